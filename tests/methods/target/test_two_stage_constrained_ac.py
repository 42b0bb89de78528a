"""The page of the two-stage constrained actor-critic."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.target.two_stage_constrained_ac import (
    ConstrainedCloning,
    constrained_optimum,
    two_stage_constrained_ac,
)
from policyopt.rows import Batch, make_batch
from tests.methods.shared_surrogates import same

EXPERTS = torch.tensor([[0.6, 0.3, 0.1, 0.0], [0.2, 0.3, 0.4, 0.1]], dtype=torch.float64)
SAMPLED = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
GAIN = torch.tensor([0.1, 0.9, -0.4, 2.0], dtype=torch.float64)


def actions() -> Batch:
    """Every action of a bandit once, with what each policy says of it."""
    roles = {f"logp_of[{name}]": x.log()[:, None] for name, x in zip(("safety", "form"), EXPERTS, strict=True)}
    logp = SAMPLED.log()[:, None]
    return make_batch(
        mask=torch.ones(4, 1).double(), group=torch.zeros(4), logp=logp, old_logp=logp, advantage=GAIN[:, None], **roles
    )


def test_the_weighted_likelihood_is_maximal_at_the_constrained_optimum() -> None:
    lam = (1.0, 0.5)
    weight = ConstrainedCloning(("safety", "form"), lam).weights(actions())[:, 0]
    assert float(weight[3]) == 0, "one policy forbids it"
    cloned = SAMPLED * weight
    best = constrained_optimum(EXPERTS, GAIN, torch.tensor(lam).double())
    same(cloned / cloned.sum(), best)


def test_one_policy_that_is_the_sampler_is_advantage_weighted_cloning() -> None:
    batch = actions().replace(**{"logp_of[safety]": SAMPLED.log()[:, None]})
    same(ConstrainedCloning(("safety",), (2.0,)).weights(batch)[:, 0], (GAIN / 2).exp())


def test_much_constraint_is_the_geometric_mean_and_little_is_greedy() -> None:
    lam = torch.tensor([3.0, 1.0], dtype=torch.float64)
    mean = (0.75 * EXPERTS[0].log() + 0.25 * EXPERTS[1].log()).softmax(-1)
    same(constrained_optimum(EXPERTS, GAIN, 1e9 * lam), mean, 1e-8)
    same(constrained_optimum(EXPERTS, GAIN, 1e-4 * lam), torch.tensor([0.0, 1.0, 0.0, 0.0]).double(), 1e-8)


def test_policies_and_their_numbers_go_together() -> None:
    recipe = two_stage_constrained_ac(("safety", "form"), (1.0, 0.5))
    assert recipe.roles == {"safety", "form"}
    with pytest.raises(ValueError, match=r"lam has 1 numbers, and there are 2 policies \(safety, form\)"):
        two_stage_constrained_ac(("safety", "form"))
    with pytest.raises(ValueError, match="names a policy twice"):
        two_stage_constrained_ac(("safety", "safety"), (1.0, 1.0))
