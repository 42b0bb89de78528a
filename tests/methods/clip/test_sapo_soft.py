"""The page of sapo-soft."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.clip.sapo_soft import SoftGate, sapo_soft
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import PLAIN, same, slope, tokens

# Gates ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.3, 1.0, 7.0])
def test_a_soft_gate_is_grpo_on_policy_whatever_tau(tau: float) -> None:
    batch = on_policy(random_batch())
    same(dlogp(sapo_soft(tau_pos=tau, tau_neg=2 * tau), batch), dlogp(PLAIN, batch))


def test_a_soft_gate_narrows_with_tau_and_never_closes() -> None:
    x = [-3.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0]
    weight = {tau: -slope(sapo_soft(tau_pos=tau), tokens(x)) for tau in (1e-6, 1.0, 3.0)}
    same(weight[1e-6], torch.tensor(x, dtype=torch.float64).exp(), 1e-9)
    moved = torch.tensor(x) != 0
    assert (weight[3.0] < weight[1.0])[moved].all() and (weight[3.0] > 0).all()
    r = torch.tensor(x, dtype=torch.float64).exp()
    same(weight[3.0], r / torch.cosh(1.5 * (r - 1)) ** 2)
    same(SoftGate(tau_pos=3.0).metrics(tokens(x).logp, tokens(x))["gate/weight"][0], weight[3.0])
    same(slope(sapo_soft(tau_neg=3.0), tokens(x, -1.0)), weight[3.0])
    assert slope(sapo_soft(), tokens([400.0, -400.0])).isfinite().all()
