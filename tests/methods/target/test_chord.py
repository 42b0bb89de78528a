"""The page of CHORD."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.target.chord import Uncertainty, WarmupCosine, chord
from policyopt.parts import TokenMean
from tests.batches import gradients, ready
from tests.methods.shared_targets import SOURCE, main, with_targets

PARENT = grpo(kl_coef=0.0).replace(aggregate=TokenMean())


@pytest.mark.parametrize("phi", [True, False])
def test_loss_and_gradient_are_those_of_trinity(phi: bool) -> None:
    """(1 - mu) PPO over the usual rows + mu * mean(-logp * p (1 - p)) over the expert ones, in scalars."""
    batch, mu = with_targets(drift=0.4), 0.3
    recipe = chord(mu_peak=mu, mu_valley=mu, phi=phi)
    usual, clipped = gradients(PARENT, ready(PARENT, main(batch)))
    expert = batch.mask[SOURCE == 1]
    expected, total = torch.zeros_like(expert), 0.0
    for i, t in expert.nonzero().tolist():
        logp = float(batch.logp[SOURCE == 1][i, t])
        weight = math.exp(logp) * (1 - math.exp(logp)) if phi else 1.0
        expected[i, t] = -mu * weight / float(expert.sum())
        total += mu * weight * -logp / float(expert.sum())
    loss, found = gradients(recipe, ready(recipe, batch))
    torch.testing.assert_close(float(loss), (1 - mu) * float(usual) + total)
    torch.testing.assert_close(found["logp"][SOURCE == 0], (1 - mu) * clipped["logp"])
    torch.testing.assert_close(found["logp"][SOURCE == 1], expected)


def test_the_ends_are_grpo_and_supervised_fine_tuning() -> None:
    batch = with_targets()
    none, every = (chord(mu_peak=mu, mu_valley=mu, phi=False) for mu in (0.0, 1.0))
    found = gradients(none, ready(none, batch))[1]["logp"]
    torch.testing.assert_close(found[SOURCE == 0], gradients(PARENT, ready(PARENT, main(batch)))[1]["logp"])
    assert not found[SOURCE == 1].any()
    found = gradients(every, ready(every, batch))[1]["logp"]
    assert not found[SOURCE == 0].any()
    targets = batch.mask[SOURCE == 1]
    torch.testing.assert_close(found[SOURCE == 1], -targets / targets.sum())


def test_what_the_policy_is_sure_of_teaches_least() -> None:
    batch = with_targets()
    p = torch.tensor([1.0, 0.99, 0.5, 0.01, 1e-12], dtype=torch.float64)
    found = Uncertainty()(batch.replace(logp=p.log().expand(10, 5)))[0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0099, 0.25, 0.0099, 1e-12], dtype=torch.float64))


def test_mu_rises_and_falls_and_the_rest_is_grpos() -> None:
    mu, rest = chord(mu_peak=0.5, mu_valley=0.02, warmup_steps=4, decay_steps=8).controllers
    assert isinstance(mu, WarmupCosine) and isinstance(rest, WarmupCosine)
    for step, expected in ((0, 0.0), (2, 0.25), (4, 0.5), (8, 0.26), (12, 0.02), (40, 0.02)):
        assert mu.value(step) == pytest.approx(expected)
        assert rest.value(step) == pytest.approx(1 - expected)
    assert (mu.field, rest.field) == ("regularizers.Likelihood.coef", "weight.Factor.value")
    assert chord(mu_peak=0.9, mu_valley=0.05, decay_steps=200).get("regularizers.Likelihood.coef") == 0.9
    assert not chord().controllers and chord().get("weight.Factor.value") == 0.9
