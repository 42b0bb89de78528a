"""The page of Decision Mamba."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.distillation.decision_mamba import decision_mamba
from policyopt.methods.preference.sft import sft
from policyopt.objective import objective
from policyopt.recipe import Recipe
from policyopt.rows import make_batch
from policyopt.steering import States, control


def course(recipe: Recipe, steps: int) -> list[tuple[float, float]]:
    states, found = States(), []
    for _ in range(steps):
        recipe = control(recipe, {}, states)
        found.append((recipe.get("regularizers.Likelihood.coef"), recipe.get("regularizers.DistributionLoss.coef")))
    return found


def test_the_weight_of_the_past_goes_up_from_iteration_to_iteration() -> None:
    found = course(decision_mamba(alpha=1.0, cap=0.5, iterations=4, every=3), 15)
    past = [b for _, b in found]
    assert past == pytest.approx([0] * 3 + [0.25] * 3 + [0.5] * 9)
    assert [a + b for a, b in found] == pytest.approx([1.0] * 15), "a mixture"
    assert {b for _, b in course(decision_mamba(alpha=0.0, iterations=2, every=1), 5)} == {0.0}, (
        "supervised fine-tuning"
    )


def test_the_past_is_the_policy_at_the_end_of_the_iteration_before() -> None:
    reference = decision_mamba(every=3).reference
    assert [reference(step) for step in range(1, 8)] == [0, 0, 1, 0, 0, 1, 0]


def test_the_loss_is_the_cross_entropy_with_the_mixed_target() -> None:
    logits = torch.tensor([[[0.3, -0.2, 1.0], [0.0, 0.5, -1.0]]], dtype=torch.float64, requires_grad=True)
    past = torch.tensor([[[1.0, 0.0, 0.2], [-0.5, 0.1, 0.4]]], dtype=torch.float64)
    target, beta = torch.tensor([[2, 0]]), 0.3
    recipe = (
        decision_mamba().set("regularizers.Likelihood.coef", 1 - beta).set("regularizers.DistributionLoss.coef", beta)
    )
    logp = logits.log_softmax(-1)
    mask = torch.ones(1, 2, dtype=torch.float64)
    statistic = recipe.live[0]
    value = statistic(logits[0], target[0], {"reference": past[0]})[None]
    batch = make_batch(mask=mask, logp=logp.gather(-1, target[..., None])[..., 0], group=torch.tensor([0]))
    loss = objective(recipe, batch.with_statistics({statistic.key: value}))
    mixed = (1 - beta) * torch.nn.functional.one_hot(target, 3) + beta * past.softmax(-1)
    expected = -(mixed * logp).sum(-1).mean()
    gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_it_differs_from_fine_tuning_by_the_past_alone() -> None:
    assert decision_mamba().source == sft().source and decision_mamba().roles == {"reference"}
