"""The page of expo."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.group.grpo import grpo
from policyopt.methods.target.expo import SelfExplained, expo
from policyopt.objective import credit, objective
from policyopt.sources.program import Response
from tests.batches import dlogp, random_batch, ready
from tests.cases.words._scheduled import scheduled
from tests.cases.words._scripted import verdict
from tests.engine.test_local import drawn, engine_of
from tests.methods.shared_targets import SOURCE, Author, asked, characters, main, with_targets


def test_the_log_averages_over_the_tokens_that_count(tiny_model: Path) -> None:
    recipe = expo(low=0.01, high=0.01)
    engine = engine_of(tiny_model, recipe, micro_batch=3)
    batch = drawn(engine, recipe).replace(origin=torch.tensor([0, 0, 1, 0, 0, 0, 1]))
    batch = credit(recipe, batch)
    sums = engine.gradient(recipe, batch).sums
    alone = engine.gradient(grpo(low=0.01, high=0.01), credit(grpo(), main(batch))).sums
    assert sums["tokens"] == alone["tokens"] < batch.mask.sum()
    for name in ("clip_fraction/low", "clip_fraction/high"):
        assert sums[name] == alone[name]
    assert sums["signal/positive"] > alone["signal/positive"], "targets pull too"


# ExPO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_expo_is_grpo_and_the_likelihood_of_explanations(seed: int) -> None:
    batch = with_targets(seed)
    parent, mine = dlogp(grpo(), main(batch)), dlogp(expo(sft_coef=0.3), batch)
    torch.testing.assert_close(mine[SOURCE == 0], parent, rtol=0, atol=0)
    each = torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=torch.float64)  # the last prompt has two
    expected = -0.3 / 3 * each[:, None] * batch.mask[SOURCE == 1]
    torch.testing.assert_close(mine[SOURCE == 1], expected)
    without = dlogp(expo(sft_coef=0.0), batch)
    torch.testing.assert_close(without[SOURCE == 0], parent, rtol=0, atol=0)
    assert not without[SOURCE == 1].any()
    torch.testing.assert_close(
        objective(expo(sft_coef=0.0), ready(expo(sft_coef=0.0), batch)), objective(grpo(), ready(grpo(), main(batch)))
    )


def test_a_group_that_fails_learns_from_its_explanation_alone() -> None:
    batch = random_batch(groups=(4,)).replace(origin=torch.tensor([0, 0, 0, 1]))
    failed = batch.replace(reward=torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64))
    found = dlogp(expo(sft_coef=0.1, kl_coef=0.0), failed)
    assert not found[:3].any()
    torch.testing.assert_close(found[3], -0.1 * batch.mask[3])


def test_the_weight_of_explanations_can_fall_to_nothing() -> None:
    recipe = expo(sft_coef=0.2, anneal_steps=4)
    assert [scheduled(recipe, s).get("regularizers.Likelihood.coef") for s in (0, 2, 4, 9)] == [0.2, 0.1, 0.0, 0.0]
    assert not expo().controllers


def test_explanations_stand_behind_the_plain_question_and_end_with_the_truth() -> None:
    right, wrong, silent = "so 2\n#### 2", "so 3\n#### 3", "so so"
    texts = [(*characters("no\n#### 9"), 2), *((*characters(t), 2) for t in (right, wrong)), characters(silent)]
    sampler = Author(texts, [verdict(0.0), verdict(1.0), verdict(0.0), verdict(0.0)])
    prompt = asked(sampler)
    rows = asyncio.run(
        SelfExplained(size=1, explanations=3, temperature=0.7, request="{question} {answer}").draw(*prompt)
    )
    assert [r.origin for r in rows] == [0, 1, 1, 1]
    written = ["".join(map(chr, r.tokens)) for r in rows[1:]]
    assert written == ["so 2\n#### 2\x02", "so 3\n#### 2\x02", "so so\n#### 2\x02"]
    (plain, _), (told, how) = sampler.requests
    assert plain == characters("1+1?") and told == characters("1+1? 2")
    assert how["temperature"] == 0.7 and how["key"] != (0, 0, 0)
    assert all(r.logp == [-3.0] * len(r.tokens) and not r.context and r.finished for r in rows[1:])
    assert prompt[1].tally == {"explanations": 3, "explanations_right": 1}
    tight = asked(sampler, budget=9)
    assert len(SelfExplained().corrected(*tight, Response([*characters("a long way\n#### 7")], [], [], "eos"))) == 9
    sampler.verdicts = []
    assert len(asyncio.run(SelfExplained(size=2).draw(*asked(sampler, answer="")))) == 2, "nothing to explain"
    assert len(asyncio.run(SelfExplained(size=2).draw(*asked(sampler, room=6)))) == 2, "no room to tell it"
    with pytest.raises(ValidationError, match="never says"):
        SelfExplained(request="explain {question}")
