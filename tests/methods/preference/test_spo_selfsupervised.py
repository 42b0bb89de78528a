"""The page of spo-selfsupervised."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
import torch

from policyopt.methods.preference.dpo import dpo
from policyopt.methods.preference.spo_selfsupervised import (
    WithDegrees,
    phrases,
    ranked,
    spo_selfsupervised,
    variants,
    without,
)
from policyopt.objective import credit, token_gradients
from policyopt.parts import AllPairs, FromProgram
from policyopt.rows import make_batch
from policyopt.sources.program import Context, Question, Response

TEXT = "Red apples are sweet, and green apples are not.\nMost of the red apples grow in old orchards."


def ids(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def read(tokens: Any) -> str:
    return "".join(map(chr, tokens))


def test_phrases_end_at_stop_words_and_signs_and_are_ranked_by_degree_over_frequency() -> None:
    found = [" ".join(p.words) for p in phrases(TEXT)]
    assert found == ["red apples", "sweet", "green apples", "red apples grow", "old orchards"]
    # apples: degree 2 + 2 + 3 over 3; red: 2 + 3 over 2; grow: 3; green, old and orchards: 2; sweet: 1.
    score = {"red apples grow": 7 / 3 + 2.5 + 3, "red apples": 7 / 3 + 2.5, "green apples": 7 / 3 + 2, "old orchards": 4, "sweet": 1}  # fmt: skip
    assert [" ".join(w) for w in ranked(phrases(TEXT))] == sorted(score, key=lambda x: -score[x])


@pytest.mark.parametrize("levels", [2, 3, 4, 7])
def test_every_degree_is_a_sub_sequence_of_the_one_before(levels: int) -> None:
    texts = variants(TEXT, levels)
    assert len(texts) == levels and texts[0] == TEXT
    for more, less in itertools.pairwise(texts):
        rest = iter(more)
        assert all(c in rest for c in less)
    assert phrases(texts[-1]) == [], "the last degree says nothing"
    gone = [len(ranked(phrases(TEXT))) - len(ranked(phrases(t))) for t in texts]
    assert gone == [math.ceil(d * 5 / (levels - 1)) for d in range(levels)]


def test_a_text_without_a_phrase_has_no_variants() -> None:
    assert variants("it is not, and they were", 3) == [] and variants("", 3) == []
    found = phrases("so so good")
    assert without("so so good", found, {("good",)}) == "so so "


def test_variants_are_rows_of_which_the_degree_alone_is_learned() -> None:
    source = WithDegrees(levels=3)
    question = Question(
        (1,), 200, (0, 0, 0), given={"chosen": (*ids("fresh bread"), 2), "rejected": (*ids("it is"), 2)}
    )
    context = Context(None, source, encode=ids, decode=read, end=(2,))  # type: ignore[arg-type]
    rows = asyncio.run(source.draw(question, context))
    assert [r.origin for r in rows] == [0, 0, 1, 1, 1], "the rejected text has no phrase"
    for degree, row in enumerate(rows[2:]):
        learned = read(t for t, own in zip(row.tokens, row.own, strict=True) if own)
        assert learned == f"{degree}\x02" and read(row.tokens).endswith(f"\nmissing: {degree}\x02")
    assert read(rows[2].tokens).startswith("fresh bread\n") and read(rows[4].tokens).startswith("\nmissing")
    short = Question((1,), 5, (0, 0, 0), given=question.given)
    assert [r.origin for r in asyncio.run(source.draw(short, context))] == [0, 0] and context.tally["degrees_cut"] == 3


def graded() -> Any:
    """Two pairs, and a variant at each of three degrees for each text."""
    chance = torch.Generator().manual_seed(1)
    origin = torch.tensor([0] * 4 + [1] * 6 + [2] * 6)
    logp, ref = (-torch.rand(16, 2, generator=chance).double() for _ in range(2))
    mask = torch.ones(16, 2).double()
    mask[4:, 1] = 0
    group = torch.tensor([0, 1, 0, 1, *[0, 0, 0, 1, 1, 1] * 2])
    reward = torch.tensor([1.0, 1, 0, 0, *[0.0] * 12]).double()
    return make_batch(mask=mask, logp=logp, old_logp=logp, ref_logp=ref, group=group, reward=reward, origin=origin)


def test_the_pairs_do_not_feel_the_variants() -> None:
    batch = graded()
    plain = dpo(0.1).set("surrogate.choose", AllPairs(rows=FromProgram()))
    for gamma in (0.0, 0.5):
        recipe = spo_selfsupervised(beta=0.1, gamma=gamma)
        loss, found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp})
        base, expected = token_gradients(plain, credit(plain, batch), {"logp": batch.logp})
        torch.testing.assert_close(found["logp"][:4], expected["logp"][:4])
        degree = -batch.logp[4:, 0]
        torch.testing.assert_close(loss, base + gamma * (degree[:6].mean() + degree[6:].mean()))


def test_knowing_nothing_costs_the_logarithm_of_the_number_of_degrees() -> None:
    batch, recipe = graded(), spo_selfsupervised(gamma=1.0)
    even = batch.logp.clone()
    even[4:, 0] = -math.log(3)
    for part in recipe.regularizers:
        assert float(part(batch.replace(logp=even))) == pytest.approx(math.log(3))


def test_responses_of_the_source_are_finished() -> None:
    [row, *_] = WithDegrees().graded("plain words", 1, 99, Context(None, encode=ids, end=(2,)))  # type: ignore[arg-type]
    assert isinstance(row, Response) and row.finished and len(row.own) == len(row.tokens) == len(row.logp)
