"""The page of hypo."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.preference.dpo import dpo
from policyopt.methods.preference.hypo import PairsAndSamples, SampledKL, hypo
from policyopt.part import Regularizer
from policyopt.parts import FromProgram, Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from tests.batches import TinyPolicy, dlogp, random_batch
from tests.methods.shared_surrogates import same
from tests.methods.shared_targets import Author, asked


def both(seed: int = 0) -> Batch:
    """Two pairs, with two and three samples of the policy."""
    batch = random_batch(seed, groups=(4, 5))
    side = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0, 0]).double()
    return batch.replace(reward=side, origin=torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 1]))


def test_the_pairs_are_those_of_dpo_and_the_samples_add_up_to_nothing() -> None:
    batch = both()
    given = batch.origin == 0
    found = dlogp(hypo(beta=0.3, kl_coef=0.2), batch)
    same(found[given], dlogp(dpo(beta=0.3), batch[given]))
    pull = (found * batch.mask).sum(1) / batch.mask.sum(1)
    same(pull[2:4].sum(), torch.tensor(0.0).double())
    same(pull[6:].sum(), torch.tensor(0.0).double())
    cost = ((batch.logp - batch.ref_logp) * batch.mask).sum(1)
    assert pull[2 + int(cost[2:4].argmax())] > 0, "further from the reference than its sibling: less likely"
    assert hypo(beta=0.3, kl_coef=0.0) == dpo(beta=0.3)


def test_at_the_reference_there_is_no_pull_and_the_value_is_the_mean() -> None:
    batch = both()
    part = SampledKL(coef=0.7, rows=FromProgram(main=False))
    cost = ((batch.logp - batch.ref_logp) * batch.mask).sum(1)[batch.origin == 1]
    same(part(batch), 0.7 * cost.mean())
    still = batch.replace(logp=batch.ref_logp)
    assert not dlogp(hypo(), still)[batch.origin == 1].any()
    alone = batch[torch.tensor([0, 1, 2])]
    same(part.advantage(alone)[2], cost[0])  # without another sample there is no baseline


@pytest.mark.parametrize("n", [1, 2])
def test_its_gradient_is_that_of_the_kl(n: int) -> None:
    tiny = TinyPolicy(0)
    part: Regularizer = SampledKL(coef=1.0)
    recipe = Recipe(
        source=Group(size=n),
        advantage=Normalise(centre="none", scale="none"),
        aggregate=TokenMean(),
        regularizers=(part,),
    )
    log_ratio = (tiny.logp(tiny.theta) - tiny.logp(tiny.reference)).sum(-1)
    wanted = tiny.gradient((tiny.log_probability().exp() * log_ratio).sum())
    torch.testing.assert_close(tiny.expected_gradient(recipe, n), wanted)
    assert wanted.abs().max() > 0.05


def test_a_prompt_has_its_pair_and_what_the_policy_writes() -> None:
    sampler = Author([[5, 2], [6, 2]])
    question, context = asked(sampler, budget=3)
    question = dataclasses.replace(question, given={"chosen": (7, 8, 2), "rejected": (9, 9, 9, 2)})
    rows = asyncio.run(PairsAndSamples(size=4, temperature=0.7).draw(question, context))
    assert [r.tokens for r in rows] == [[7, 8, 2], [9, 9, 9], [5, 2], [6, 2]]
    assert [r.origin for r in rows] == [0, 0, 1, 1]
    assert [r.verdict.score for r in rows if r.verdict] == [1.0, 0.0, 0.0, 0.0]
    assert [r.columns.get("chosen") for r in rows] == [1.0, 0.0, None, None]
    assert context.tally == {"texts_cut": 1}
    assert rows[0].logp == [-3.0] * 3, "what the policy thinks of them"
    with pytest.raises(ValidationError, match="take 3 or more"):
        PairsAndSamples(size=2)
