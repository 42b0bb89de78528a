"""The plan of a gradient, on engines that are not the local one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.engine.plan import UpdateReport, accumulate, observe, said
from policyopt.methods.group.grpo import grpo
from policyopt.models.likelihood import Leaves, Weigh
from policyopt.objective import log_ratios, objective
from policyopt.recipe import Recipe
from policyopt.registry import Method, get_method
from policyopt.rows import Batch
from policyopt.training.metrics import update_metrics
from tests.batches import EVERY_METHOD, gradients, random_batch, ready, with_all_terms


class Ranks:
    """An engine whose only parameters are the log-probabilities, one for each token, and whose rows are spread over ranks."""

    def __init__(self, batch: Batch, ranks: int, micro: int) -> None:
        self.logp = batch.logp.clone().requires_grad_()
        self.micro, self.asked = micro, 0
        self.rows = torch.arange(len(batch.mask)).chunk(ranks)

    def gradient(self, recipe: Recipe, batch: Batch) -> tuple[Tensor, Tensor]:
        """The gradient [N, T] by the parameters, and the weights [N, T], summed over ranks."""
        batch = batch.replace(noise=torch.arange(len(batch.mask)).to(batch.mask)[:, None].expand_as(batch.mask))

        def leaves(piece: Batch) -> Leaves:
            return {"logp": self.logp[piece.noise[:, 0].long()]}

        def whole(batch: Batch) -> Leaves:
            self.asked += 1
            return {name: x.detach() for name, x in leaves(batch).items()}

        def learn(piece: Batch, weigh: Weigh) -> None:
            found = leaves(piece)
            gradients = weigh(found)
            torch.autograd.backward(list(found.values()), [gradients[name] for name in found])

        weight = torch.zeros_like(batch.mask)
        for rows in self.rows:
            pieces = rows.split(self.micro)
            call: dict[str, Any] = {"version": 0, "whole": whole, "learn": learn}
            weight += accumulate(recipe, batch, pieces, **call).weight
        assert self.logp.grad is not None
        return self.logp.grad, weight


@pytest.mark.parametrize("name", ["grpo", "bapo", "disco", "gspo", "trpa", "unlikeliness"])
@pytest.mark.parametrize(("ranks", "micro"), [(1, 2), (2, 2), (2, 4)])
def test_ranks_give_the_gradient_of_one_process(name: str, ranks: int, micro: int) -> None:
    recipe = get_method(name)()
    batch = ready(recipe, random_batch(groups=(4, 4)))
    leaf = batch.logp.clone().requires_grad_()
    objective(recipe, batch.with_leaves({"logp": leaf})).backward()
    engine = Ranks(batch, ranks, micro)
    found, weight = engine.gradient(recipe, batch)
    torch.testing.assert_close(found * batch.mask, leaf.grad * batch.mask, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(-weight * batch.mask, leaf.grad * batch.mask, rtol=1e-10, atol=1e-14)
    assert engine.asked == (ranks if recipe.gathers else 0), "gathered only where rows are coupled"


@EVERY_METHOD
def test_what_has_to_be_gathered(method: Any) -> None:
    recipe = method()
    assert recipe.gathers == (recipe.leaves if recipe.unit in ("group", "batch") else ())
    assert recipe.leaves[0] == "logp"
    assert ("value" in recipe.leaves) == (recipe.critic is not None)


def test_row_by_row_recipes_gather_nothing() -> None:
    assert grpo().gathers == ()


@EVERY_METHOD
def test_no_gradient_is_lost_where_the_policy_has_run_away(method: Method) -> None:
    """Log-ratios of 99 in float32: their exponentials overflow, and zero times infinity is NaN."""
    batch = random_batch(dtype=torch.float32, groups=(8, 8), drift=60.0)
    assert float(((batch.logp - batch.old_logp) * batch.mask).abs().max()) > 99
    recipe = with_all_terms(method)
    loss, found = gradients(recipe, ready(recipe, batch))
    assert torch.isfinite(loss)
    assert all(bool(torch.isfinite(x).all()) for x in found.values())


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_log_ratios_are_held_and_counted(sign: float) -> None:
    recipe, batch = get_method("grpo")(kl_coef=1.0), random_batch(dtype=torch.float32)
    mask = batch.mask.bool()
    batch = batch.replace(logp=batch.old_logp + torch.where(mask, 0.5, 0.0), ref_logp=batch.old_logp)
    first = mask.nonzero()[0]
    batch.logp[first[0], first[1]] += sign * 99
    batch = ready(recipe, batch)
    assert torch.equal(log_ratios(recipe, batch)[mask].abs() >= 20, ((batch.logp - batch.old_logp).abs() >= 20)[mask])
    found = said(recipe, batch)["ratio/clamped"]
    assert float((found * mask).sum()) == 1
    _, gradient = gradients(recipe, batch)
    assert bool(torch.isfinite(gradient["logp"]).all())
    share, sums = recipe.aggregate(batch), list[dict[str, float]]()
    for piece in (batch, batch.replace(logp=batch.old_logp)):
        report = UpdateReport(0.0, 0.0, True, torch.zeros_like(batch.mask))
        observe(report, recipe, piece.replace(share=share), gradient["logp"].sum(), gradient["logp"], 0)
        sums.append(report.sums)
    assert sums[0]["ratio/clamped"] == 1
    assert "ratio/clamped" not in sums[1], "where none is, nothing is said"


def test_what_one_update_alone_says_is_a_mean_over_all() -> None:
    first, second = (UpdateReport(0.0, 1.0, True, torch.zeros(1), sums) for sums in (
        {"tokens": 2.0, "mismatch/tokens": 0.0}, {"tokens": 2.0, "mismatch/tokens": 0.0, "ratio/clamped": 1.0}))  # fmt: skip
    assert update_metrics([first, second])["ratio/clamped"] == 0.25
