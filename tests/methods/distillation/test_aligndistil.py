"""The page of aligndistil."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.methods.distillation.aligndistil import ExtrapolatedKL, aligndistil
from policyopt.methods.distillation.gkd import gkd
from policyopt.parts.probe.tilt import tilt
from tests.methods.shared_divergence import distributions

# AlignDistil -------------------------------------------------------------------------------------------------------------


def roles(seed: int = 0) -> dict[str, Tensor]:
    return {"teacher": distributions(4, 6, seed=seed), "reference": distributions(4, 6, seed=seed + 1)}


def test_where_the_models_agree_the_target_is_the_teacher() -> None:
    part, others = ExtrapolatedKL(), roles()
    others["reference"] = others["teacher"] + 1
    torch.testing.assert_close(part.weight(others), torch.full((4,), 1e-3, dtype=torch.float64))
    torch.testing.assert_close(part.extrapolated(others), others["teacher"].log_softmax(-1))


@pytest.mark.parametrize(("ratio", "end"), [(1.0, "teacher"), (1e-9, "reference")])
def test_the_first_theorem_at_its_ends(ratio: float, end: str) -> None:
    part, others = ExtrapolatedKL(alpha=0.0, floor=ratio, base="reference"), roles()
    torch.testing.assert_close(part.extrapolated(others), others[end].log_softmax(-1))


def test_the_first_theorem_is_the_optimum_of_the_implied_reward() -> None:
    """softmax(z*) maximises E[b1 log(pi_T / pi_ref)] - b2 KL(pi || pi_ref)."""
    b1, b2 = 0.3, 0.2
    logits = {name: x[:1] for name, x in roles().items()}
    best = ExtrapolatedKL(alpha=0.0, floor=b1 / b2, base="reference").extrapolated(logits)[0]
    plus, base = (logits[name].log_softmax(-1)[0] for name in ("teacher", "reference"))
    reward = b1 * (plus - base)
    torch.testing.assert_close(best.exp(), tilt(base.exp(), reward, 1 / b2))


def test_the_gradient_vanishes_at_the_target_alone_and_constants_change_nothing() -> None:
    part, others = ExtrapolatedKL(alpha=3.0), roles()
    target = torch.zeros(4, dtype=torch.long)
    for logits, still in ((part.extrapolated(others), True), (distributions(4, 6, seed=5), False)):
        leaf = logits.clone().requires_grad_()
        slope = torch.autograd.grad(part(leaf, target, others).sum(), leaf)[0]
        assert bool(slope.abs().max() < 1e-12) == still
        torch.testing.assert_close(slope.sum(-1), torch.zeros(4, dtype=torch.float64))
    shifted = {name: x + 2 for name, x in others.items()}
    torch.testing.assert_close(part(leaf, target, shifted), part(leaf + 1, target, others))
    assert ((part.weight(others) > part.floor) & (part.weight(others) <= part.floor + 2 * part.alpha)).all()


def test_aligndistil_weighs_what_gkd_would_not() -> None:
    assert aligndistil(beta=0.2).replace(regularizers=()) == gkd(student_share=1.0).replace(regularizers=())
    assert aligndistil(beta=0.2).get("regularizers.DistributionLoss.coef") == 0.2
