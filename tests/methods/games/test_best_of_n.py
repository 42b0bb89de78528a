"""The pages of best-of-n and bonbon."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.analysis.alignment_asymptotics import best_of, win_rate
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.games.best_of_n import AtLeast, best_of_n
from policyopt.methods.games.bonbon import best_worst_gap, bonbon
from policyopt.objective import selected
from policyopt.parts import BestResponse, TokenMean
from tests.batches import dlogp, on_policy, random_batch, ready
from tests.methods.shared_surrogates import same


def test_the_kept_rows_alone_are_made_likely() -> None:
    batch = random_batch(groups=(3, 2, 1))
    batch = batch.replace(reward=torch.tensor([0.2, 0.9, 0.9, 0.1, -0.3, 0.0], dtype=torch.float64))
    kept = torch.tensor([False, True, False, True, False, True])
    assert torch.equal(BestResponse()(batch), kept), "of equal ones the first"
    recipe = best_of_n()
    update = ready(recipe, batch)
    assert torch.equal(selected(recipe, update), kept)
    rows = update[kept]
    same(dlogp(recipe, rows), -rows.mask / rows.mask.sum())
    monotone = batch.replace(reward=(3 * batch.reward).exp())
    assert torch.equal(BestResponse()(monotone), kept)
    assert AtLeast(reward=0.2)(batch).tolist() == [True, True, True, False, False, False]


def test_raft_plus_plus_never_lowers_a_response_and_counts_every_token() -> None:
    batch = random_batch(groups=(3, 3), drift=2.0)
    recipe = best_of_n("raft++", threshold=0.7)
    kept = batch.reward >= 0.7
    found = dlogp(recipe, batch)
    assert kept.any() and not kept.all()
    assert not found[~kept].any()
    assert (found <= 0).all()
    first = dlogp(recipe, on_policy(batch))
    same(first, -kept.double()[:, None] * batch.mask / batch.mask.sum())
    plain = reinforce("none").replace(aggregate=TokenMean())
    same(first, dlogp(plain, on_policy(batch).replace(reward=kept.double())))


def test_how_often_the_best_of_n_wins() -> None:
    base, reward = (
        torch.tensor([0.4, 0.25, 0.2, 0.15], dtype=torch.float64),
        torch.tensor([0.1, 0.7, 0.7, 0.95], dtype=torch.float64),
    )
    assert float(win_rate(best_of(base, reward, 1), base, reward)) == pytest.approx(0.5)
    rates = [float(win_rate(best_of(base, reward, n), base, reward)) for n in (1, 2, 4, 8)]
    assert rates == sorted(rates) and all(r < n / (n + 1) for r, n in zip(rates[1:], (2, 4, 8), strict=True))
    level = torch.ones(4).double()
    assert float(win_rate(best_of(base, level, 8), base, level)) == pytest.approx(0.5)
    fine = torch.arange(500).double()
    p = torch.full((500,), 1 / 500).double()
    assert float(win_rate(best_of(p, fine, 3), p, fine)) == pytest.approx(3 / 4, abs=2e-3)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_target_of_bonbon_is_the_gap_that_the_best_of_n_has(n: int) -> None:
    """On many equally likely outcomes, over all places that the best and the worst of n draws can take."""
    m = 4000
    place = (torch.arange(m).double() + 0.5) / m
    ratio = (n - 1) * place.log()  # the log-density of the best of n, up to a constant
    best, worst = place ** (n - 1), (1 - place) ** (n - 1)
    gap = ((best / best.sum() - worst / worst.sum()) * ratio).sum()
    assert float(gap) == pytest.approx(best_worst_gap(n), rel=3e-3)
    with pytest.raises(ValueError, match="take at least 2"):
        best_worst_gap(1)


def test_bonbon_rests_at_its_target_and_sees_the_best_and_the_worst_alone() -> None:
    batch = random_batch(groups=(4,), lengths=(1, 1, 1, 1))
    best, worst = int(batch.reward.argmax()), int(batch.reward.argmin())
    at = batch.ref_logp.clone()
    at[best, 0] += best_worst_gap(4)
    rest = dlogp(bonbon(alpha=0.0, group_size=4), batch.replace(logp=at))
    assert rest.abs().max() < 1e-12
    pull = dlogp(bonbon(alpha=0.3, group_size=4), batch.replace(logp=at))
    assert float(pull[best, 0]) == pytest.approx(-0.3)
    others = [i for i in range(4) if i not in (best, worst)]
    assert not dlogp(bonbon(group_size=4), batch)[others].any()
    assert [best_worst_gap(n) for n in (2, 4)] == pytest.approx([1.0, 3 * (1 + 1 / 2 + 1 / 3)])
