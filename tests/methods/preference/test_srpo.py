"""SRPO: a generator and a refiner that are one model, and where the rows of both come from."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
import torch

from policyopt.methods.preference.srpo import REFINED, Revisions, SelfImproving, WithRefinements, srpo
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Context, Question, Response
from tests.methods.preference.pairs import worked

KINDS = ("w", "l", "w|l", "l|w", "w|w", "l|l")


def six(scores: list[dict[str, float]], p: list[float]) -> Batch:
    """The six rows of each pair, of one token with such log-ratios each; p is how likely the first text is preferred."""
    rows = [(g, k, s[name], p[g]) for g, s in enumerate(scores) for k, name in enumerate(KINDS)]
    first = [float(KINDS[k][0] == "w") for _, k, _, _ in rows]
    mask = torch.ones(len(rows), 1, dtype=torch.float64)
    logp = torch.tensor([[s] for _, _, s, _ in rows], dtype=torch.float64)
    return make_batch(
        mask=mask, logp=logp - 2, old_logp=logp - 2, ref_logp=0 * mask - 2, group=torch.tensor([g for g, *_ in rows]),
        chosen=torch.tensor(first, dtype=torch.float64), origin=torch.tensor([max(0, k - 1) for _, k, _, _ in rows]),
        reward=torch.tensor([q if x else 1 - q for x, (*_, q) in zip(first, rows, strict=True)], dtype=torch.float64),
    )  # fmt: skip


def same(x: Any, y: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=1e-10, atol=1e-10)


def random_scores(seed: int) -> dict[str, float]:
    x = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return dict(zip(KINDS, x.tolist(), strict=True))


@pytest.mark.parametrize("pair", list(itertools.permutations(range(3), 2)))
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_solution_of_the_game_has_no_loss_on_any_pair(pair: tuple[int, int], alpha: float) -> None:
    """Whoever chose the pairs, and with preferences that run in a circle: the refiner tilts the reference by the preference over
    what it is given, and the generator leaves least to improve."""
    gain, beta = torch.tensor([[0.0, 0.4, -0.3], [-0.4, 0.0, 0.2], [0.3, -0.2, 0.0]], dtype=torch.float64), 0.3
    const = torch.tensor([0.3, -0.1, 0.7], dtype=torch.float64)  # the normaliser of each answer that is given
    a, b = gain / beta + const, const + 5
    w, z = pair
    scores = {"w": b[w], "l": b[z], "w|l": a[w, z], "l|w": a[z, w], "w|w": a[w, w], "l|l": a[z, z]}
    batch = six([{k: float(x) for k, x in scores.items()}], [0.5 + float(gain[w, z])])
    loss, gradient = worked(srpo(beta=beta, alpha=alpha), batch)
    assert loss == pytest.approx(0, abs=1e-20) and gradient.abs().max() < 1e-10
    assert worked(srpo(beta=beta, alpha=alpha), batch.replace(reward=1 - batch.reward))[0] > 0.01


def test_alpha_1_moves_the_refiner_alone() -> None:
    batch = six([random_scores(0), random_scores(1)], [1.0, 1.0])
    gradient = worked(srpo(alpha=1.0), batch)[1][:, 0]
    assert (gradient[batch.origin == 0] == 0).all() and (gradient[batch.origin > 0] != 0).all()
    joint = worked(srpo(alpha=0.0), batch)[1][:, 0]
    same(joint[batch.origin == 0], joint[(batch.origin == 1) | (batch.origin == 2)])  # one residual
    assert (joint[batch.origin > 2] == 0).all()


def test_names_of_the_two_texts_mean_nothing() -> None:
    scores, turned = random_scores(2), str.maketrans("wl", "lw")
    other = {k.translate(turned): x for k, x in scores.items()}
    one, two = worked(srpo(), six([scores], [0.8])), worked(srpo(), six([other], [0.2]))
    assert one[0] == pytest.approx(two[0])
    place = [KINDS.index(k.translate(turned)) for k in KINDS]
    same(one[1], two[1][place])


def test_the_reference_is_best_where_nothing_is_preferred() -> None:
    loss, gradient = worked(srpo(), six([dict.fromkeys(KINDS, 0.0)], [0.5]))
    assert loss == 0 and (gradient == 0).all()


def test_rows_in_any_order_and_pairs_without_refinements() -> None:
    batch = six([random_scores(3), random_scores(4)], [1.0, 1.0])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    (a, up), (b, down) = worked(srpo(), batch), worked(srpo(), batch[order])
    assert a == pytest.approx(b)
    same(up[order], down)
    alone = make_batch(**{k: torch.cat([x, x[:2]]) for k, x in batch.columns().items()} | {
        "group": torch.cat([batch.group, torch.tensor([7, 7])])
    })  # fmt: skip
    assert worked(srpo(), alone)[0] == pytest.approx(a)
    assert len(SelfImproving().sixes(alone)) == 2


# Where the rows come from ----------------------------------------------------------------------------------------------


def context(room: int = 1000, **more: Any) -> Context:
    """A context whose tokens are the letters of texts."""
    return Context(
        encode=lambda text: tuple(map(ord, text)), decode=lambda ids: "".join(map(chr, ids)),
        frame=lambda text: tuple(map(ord, text)), room=room, **{"sampler": None, **more},
    )  # fmt: skip


QUESTION = Question(
    tuple(map(ord, "2+2?")), 9, (0, 0, 0), text="2+2?",
    given={"chosen": tuple(map(ord, "4")), "rejected": tuple(map(ord, "five"))},
)  # fmt: skip


def test_each_text_is_written_again_in_view_of_either() -> None:
    rows = asyncio.run(WithRefinements(request="Better?").draw(QUESTION, context()))
    assert [r.origin for r in rows] == [0, 0, 1, 2, 3, 4]
    texts = {"chosen": "4", "rejected": "five"}
    for row, (side, shown) in zip(rows[2:], REFINED, strict=True):
        assert "".join(map(chr, row.tokens)) == texts[side]
        assert "".join(map(chr, row.context)) == f"2+2?\n\n{texts[shown]}\n\nBetter?"
        assert row.columns["chosen"] == float(side == "chosen")
    assert not rows[0].context and not rows[1].context


def test_a_pair_without_room_stands_alone() -> None:
    asked = context(room=5)
    assert [r.origin for r in asyncio.run(WithRefinements().draw(QUESTION, asked))] == [0, 0]
    assert asked.tally["pairs_without_room"] == 1


class Counting:
    """A sampler that answers with the number of the request, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def generate(self, prompt: tuple[int, ...], **how: Any) -> list[Response]:
        self.asked.append("".join(map(chr, prompt)))
        return [Response([ord(str(len(self.asked)))], [0.0], [0.0], "eos")]


def test_an_answer_is_revised_in_view_of_the_last_one() -> None:
    sampler = Counting()
    (last,) = asyncio.run(Revisions(revisions=2, request="Better?").draw(QUESTION, context(sampler=sampler)))
    assert sampler.asked == ["2+2?", "2+2?\n\n1\n\nBetter?", "2+2?\n\n2\n\nBetter?"]
    assert last.tokens == [ord("3")]
    short = Counting()
    (only,) = asyncio.run(Revisions(revisions=2).draw(QUESTION, context(room=5, sampler=short)))
    assert only.tokens == [ord("1")]
