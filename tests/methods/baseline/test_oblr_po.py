"""The page of OBLR-PO."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.engine.local.noise import signal_and_noise
from policyopt.methods.baseline.oblr_po import SCORE, LeastVariance, ScoreNorm, SignalToNoise, oblr_po
from policyopt.objective import advantages
from policyopt.rows import FIXED, Batch
from policyopt.steering import States, control
from tests.batches import random_batch


def weighed(batch: Batch, weight: list[float]) -> Batch:
    norms = torch.zeros_like(batch.mask)
    norms[:, 0] = torch.tensor(weight, dtype=torch.float64)
    return batch.with_statistics({FIXED + SCORE.key: norms})


def gained(batch: Batch, leave_one_out: bool = False) -> Tensor:
    return advantages(oblr_po(leave_one_out=leave_one_out), batch)[:, 0]


def test_equal_weights_are_the_mean_and_their_scale_does_not_matter() -> None:
    batch = random_batch(groups=(4, 3))
    mean = torch.cat([r - r.mean() for r in batch.reward.split((4, 3))])
    torch.testing.assert_close(gained(weighed(batch, [2.0] * 7)), mean)
    weight = [1.0, 5, 2, 8, 3, 0.5, 4]
    found = gained(weighed(batch, weight))
    torch.testing.assert_close(found, gained(weighed(batch.replace(reward=batch.reward + 3), [9 * w for w in weight])))
    balance = [float(x.sum()) for x in (found * torch.tensor(weight).double()).split((4, 3))]
    assert balance == pytest.approx([0, 0], abs=1e-12)


def test_left_out_of_its_own_baseline() -> None:
    batch = random_batch(groups=(3, 1))
    weight = torch.tensor([1.0, 5, 2, 8]).double()
    found = gained(weighed(batch, weight.tolist()), leave_one_out=True)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        mean = (weight[others] * batch.reward[others]).sum() / weight[others].sum()
        torch.testing.assert_close(found[i], batch.reward[i] - mean)
    assert found[3] == 0


def test_on_a_bandit_it_has_less_variance_than_the_mean() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, -1.5]).double()
    p, reward = logits.softmax(0), torch.tensor([1.0, 0.0, 3.0, -1.0]).double()
    score = torch.eye(4).double() - p
    target = torch.arange(4)
    weight = ScoreNorm()(logits.expand(4, 4), target, {})
    torch.testing.assert_close(weight, score.square().sum(1))

    def variance(baseline: Tensor) -> float:
        gradient = score * (reward - baseline)[:, None]
        mean = (p[:, None] * gradient).sum(0)
        return float((p * gradient.square().sum(1)).sum() - mean.square().sum())

    best = (p * weight * reward).sum() / (p * weight).sum()
    assert variance(best) < variance((p * reward).sum())
    assert all(variance(best) <= variance(best + x) for x in (-0.5, 0.1, 0.5))


def test_the_rate_follows_the_signal() -> None:
    recipe, states = oblr_po(momentum=0.0, hold=1, least=0.05), States()

    def rate(signal: float, noise: float) -> float:
        nonlocal recipe
        recipe = control(recipe, {"gradient/signal": signal, "gradient/noise": noise}, states)
        return recipe.update.rate

    assert rate(1.0, 1.0) == 1, "it holds at first"
    assert [rate(3.0, 1.0), rate(1.0, 1.0), rate(-1.0, 1.0), rate(1.0, 0.0)] == [0.75, 0.5, 0.05, 1.0]
    assert control(recipe, {}, states) == recipe, "a step without an update changes nothing"
    assert SignalToNoise().asks == {"gradient noise"} and LeastVariance().fixed == (SCORE,)


def test_signal_and_noise_are_those_of_the_parts() -> None:
    gradients = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    mean = gradients.mean(0)
    signal, noise = signal_and_noise(gradients.square().sum(1).tolist(), float(mean.square().sum()))
    assert noise == pytest.approx(float((gradients - mean).square().sum() / 20))
    assert signal + noise == pytest.approx(float(mean.square().sum()))
