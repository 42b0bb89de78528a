"""The page of sppo."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.groups import preferred
from policyopt.methods.games.sppo import sppo
from policyopt.objective import shaped
from policyopt.rows import Batch
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import same


def pairs(first: float = 0.8, second: float = 0.3) -> Batch:
    batch = random_batch(groups=(2,))
    return batch.replace(reward=torch.tensor([first, second], dtype=torch.float64), beats=None, wins=None)


def test_at_the_start_of_a_round_it_pulls_by_the_win_rate() -> None:
    batch = on_policy(pairs(0.8, 0.6))
    found = dlogp(sppo(beta=0.5).replace(shape=()), batch)
    wanted = -torch.tensor([0.3, 0.1], dtype=torch.float64) / 0.5
    same(found, wanted[:, None] * batch.mask)  # both up: the worse one wins more than half the time too


def test_each_side_is_fitted_by_itself() -> None:
    batch = pairs()
    recipe = sppo(beta=0.5).replace(shape=())
    other = batch.replace(logp=torch.cat([batch.logp[:1], batch.logp[1:] - 3]))
    same(dlogp(recipe, batch)[0], dlogp(recipe, other)[0])
    n = batch.mask.sum(1)
    there = batch.old_logp + (torch.tensor([0.3, -0.2], dtype=torch.float64) / 0.5 / n)[:, None]
    assert dlogp(recipe, batch.replace(logp=there)).abs().max() < 1e-12
    back = dlogp(recipe, pairs(0.5, 0.4))
    rho = ((batch.logp - batch.old_logp) * batch.mask).sum(1)[0]
    same(back[0], rho * batch.mask[0])  # half of the time: back to where it was


@pytest.mark.parametrize(("wins", "lead"), [("pair", 1 / (1 + math.exp(-0.5)) - 0.5), ("hard", 0.5)])
def test_one_against_the_other(wins: str, lead: float) -> None:
    batch = on_policy(pairs())
    found = dlogp(sppo(beta=0.5, wins=wins), batch)
    same(found, torch.tensor([-lead, lead], dtype=torch.float64)[:, None] / 0.5 * batch.mask)


def test_a_response_ties_with_itself() -> None:
    batch = random_batch(groups=(5,))
    table = preferred(batch, 1.0)
    assert torch.equal(table.diagonal(), torch.full((5,), 0.5).double())
    same(shaped(sppo(), batch).reward, table.mean(1))
    same(shaped(sppo(), batch).reward.mean(), torch.tensor(0.5, dtype=torch.float64))
