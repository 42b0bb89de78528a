"""The page of rso."""

from __future__ import annotations

import asyncio

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.games.rso import Knockout, Survivors, rso
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import AllPairs
from tests.batches import dlogp, random_batch, ready
from tests.cases.words._scripted import verdict
from tests.methods.shared_surrogates import same
from tests.methods.shared_targets import Author, asked


def test_sigmoid_with_gamma_is_dpo_and_a_wide_hinge_is_silent() -> None:
    batch = random_batch(groups=(2, 2))
    same(dlogp(rso(gamma=0.3), batch), dlogp(dpo(beta=0.3), batch))
    recipe = rso(gamma=0.9, loss="hinge")
    pull = dlogp(recipe, batch.replace(logp=batch.ref_logp))
    sign = torch.where(pull.sum(1) < 0, -1.0, 1.0).double()
    same(pull, 0.9 / 2 * sign[:, None] * batch.mask)
    wrong = batch.replace(logp=batch.ref_logp + 2 * sign[:, None])
    same(dlogp(recipe, wrong), pull)  # the same however wrong
    wide = batch.replace(logp=batch.ref_logp - 3 * sign[:, None])
    assert not dlogp(recipe, wide).any()
    slic = rso(gamma=0.9, loss="hinge", reference=False)
    same(dlogp(slic, batch), dlogp(slic, batch.replace(ref_logp=batch.ref_logp - 5)))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_who_meets_whom(size: int) -> None:
    batch = ready(rso(), random_batch(groups=(size, 3, 1)))
    better, worse = Knockout()(batch)
    assert len(better) == size // 2 + 1
    rows = torch.cat([better, worse]).tolist()
    assert len(set(rows)) == len(rows), "each in one pair"
    every = {(i, j) for i, j in zip(*(x.tolist() for x in AllPairs()(batch)), strict=True)}
    cup = set(zip(*(x.tolist() for x in Knockout(first=False)(batch)), strict=True))
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) <= cup <= every
    assert len(cup) == size - 1 + 2, "every duel has a loser, and all but one lose"
    turned = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    again = [turned[x].tolist() for x in Knockout(first=False)(batch[turned])]
    assert set(zip(*again, strict=True)) == cup, "whatever the order of the rows"
    level = batch.replace(advantage=torch.ones_like(batch.advantage))
    assert not len(Knockout(first=False)(level)[0])


def test_survivors_are_judged_distinct_and_of_the_reference() -> None:
    texts, said = [[5, 2], [6, 2], [5, 2], [7, 2]], [verdict(x) for x in (0.0, 5.0, 0.0, 9.0)]
    guide, policy = Author(texts, said), Author([[1, 2]])
    program = Survivors(size=2, candidates=4, beta=1e-6)
    question, context = asked(policy, program=program, samplers={"reference": guide})
    rows = asyncio.run(program.draw(question, context))
    assert [r.tokens for r in rows] == [[7, 2], [6, 2]], "the best first, as beta is small"
    assert context.tally == {"candidates": 4, "survivors": 2, "passes": 2}
    assert not policy.requests
    with pytest.raises(ValidationError, match="3 candidates leave no 4 survivors"):
        Survivors(size=4, candidates=3)
