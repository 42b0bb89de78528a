"""The page of grao."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.methods.group.grpo import grpo
from policyopt.methods.target.grao import PromptMean, grao
from policyopt.parts import FromProgram, LogProb, Normalise, SeqMeanTokenMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.rows import Batch
from policyopt.sources.draw import WithReference
from tests.batches import dlogp, gradients, random_batch, ready
from tests.methods.shared_targets import SOLUTION, SOURCE, Author, asked, main, with_targets

# GRAO ---------------------------------------------------------------------------------------------------------------


def grao_by_hand(batch: Batch, logp: Tensor, beta: float, lam: float, joint: bool) -> Tensor:
    """The loss, term by term as printed."""
    total = torch.zeros((), dtype=torch.float64)
    mean_logp = (logp * batch.mask).sum(-1) / batch.mask.sum(-1)
    for q in batch.group.unique():
        samples, targets = (((batch.group == q) & (batch.origin == s)).nonzero()[:, 0].tolist() for s in (0, 1))
        pool = batch.reward[samples + targets if joint else samples]
        mu, sigma = pool.mean(), pool.std(unbiased=False) + 1e-6
        value = ((batch.reward - mu) / sigma).tolist()
        k = len(samples)
        total = total - sum(value[i] * mean_logp[i] for i in samples) / k
        for y in targets:
            imitation = beta * value[y] * mean_logp[y]
            apart = lam * sum(value[i] * (mean_logp[i] - mean_logp[y]) for i in samples) / k
            total = total - (imitation + apart) / len(targets)
    return total / len(batch.group.unique())


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_grao_is_its_formula(joint: bool, seed: int) -> None:
    batch = with_targets(seed)
    recipe = grao(beta=0.7, lam=0.4, target_in_group=joint)
    logp = batch.logp.clone().requires_grad_()
    by_hand = grao_by_hand(batch, logp, 0.7, 0.4, joint)
    loss, found = gradients(recipe, ready(recipe, batch))
    torch.testing.assert_close(loss, by_hand.detach())
    torch.testing.assert_close(found["logp"], torch.autograd.grad(by_hand, logp)[0])


def test_grao_without_imitation_is_reinforce_in_groups() -> None:
    batch = random_batch(groups=(4, 4)).replace(origin=torch.tensor([0, 0, 0, 1] * 2))
    plain = grao().replace(
        advantage=Normalise(ddof=0), surrogate=LogProb(), aggregate=SeqMeanTokenMean(), source=grpo().source
    )
    mine = dlogp(grao(beta=0.0, lam=0.0, target_in_group=False), batch)
    torch.testing.assert_close(mine[batch.origin == 0], dlogp(plain, main(batch)))
    assert not mine[batch.origin == 1].any()


def test_a_reference_is_imitated_while_it_is_better_and_pushed_away_after() -> None:
    batch = random_batch(groups=(3,), lengths=(3, 4, 2)).replace(origin=torch.tensor([0, 0, 1]))

    def found(*reward: float, **how: Any) -> Tensor:
        return dlogp(grao(**how), batch.replace(reward=torch.tensor(reward, dtype=torch.float64)))

    assert (found(0.2, 0.4, 0.9)[2, :2] < 0).all(), "the loss falls as it becomes likelier"
    assert (found(0.6, 0.4, 0.1)[2, :2] > 0).all()
    assert not found(0.7, 0.7, 0.7).any(), "equal rewards teach nothing"
    credited = grao().advantage(batch.replace(reward=torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)))
    assert row_credit(batch.replace(advantage=credited)).sum() == pytest.approx(0, abs=1e-12)
    alone = Normalise(rows=FromProgram())(batch.replace(origin=torch.ones(3)))
    assert not alone.any(), "without samples there is nothing to compare with"
    torch.testing.assert_close(Normalise(rows=FromProgram())(batch.replace(origin=None)), Normalise()(batch))


def test_every_prompt_weighs_the_same() -> None:
    batch = with_targets(lengths=(1, 2, 3, 4, 5, 6, 1, 2, 3, 4))
    share = PromptMean()(batch).sum(-1)
    for origin in (0, 1):
        for group in range(3):
            assert share[(batch.group == group) & (origin == SOURCE)].sum() == pytest.approx(1 / 3)


def test_the_reference_stands_beside_the_group() -> None:
    sampler = Author([[5, 2]])
    rows = asyncio.run(WithReference(size=2, temperature=0.7).draw(*asked(sampler)))
    assert [(r.origin, r.tokens) for r in rows] == [(0, [5, 2]), (0, [5, 2]), (1, list(SOLUTION))]
    assert rows[2].temperature == 0.7 and rows[2].verdict is None, "judged later, as the others are"
    tight = asked(sampler, budget=4)
    assert asyncio.run(WithReference(size=1).draw(*tight))[1].tokens == list(SOLUTION[:4])
    assert tight[1].tally == {"solutions_cut": 1}
    assert len(asyncio.run(WithReference(size=2).draw(*asked(sampler, solution=())))) == 2
