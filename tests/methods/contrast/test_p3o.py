"""The page of p3o."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.contrast.p3o import p3o
from policyopt.rows import Batch, make_batch
from tests.batches import dlogp
from tests.methods.shared_surrogates import same


def pair(log1: float, log2: float) -> Batch:
    x = torch.tensor([[log1], [log2]], dtype=torch.float64)
    return make_batch(
        mask=torch.ones_like(x), group=torch.zeros(2), logp=x, old_logp=torch.zeros_like(x),
        ref_logp=torch.zeros_like(x), reward=torch.tensor([1.0, 0.2], dtype=torch.float64),
    )  # fmt: skip


def test_p3o_clips_one_side_or_both() -> None:
    up, down = dlogp(p3o("separate", kl_coef=0.0), pair(0.3, 0.0))[:, 0].tolist()
    assert up == 0 and down == pytest.approx(0.4 * math.exp(0.3))
    up, down = dlogp(p3o("separate", kl_coef=0.0), pair(0.0, -0.3))[:, 0].tolist()
    assert down == 0 and up == pytest.approx(-0.4 * math.exp(-0.3))
    assert not dlogp(p3o("joint", kl_coef=0.0), pair(0.3, 0.0)).any()
    assert dlogp(p3o("joint", kl_coef=0.0), pair(0.1, 0.0)).all()
    for variant in ("separate", "joint"):
        free = dlogp(p3o(variant, clip=None, kl_coef=0.0), pair(0.3, -0.4))[:, 0]  # type: ignore[arg-type]
        same(free, 0.4 * math.exp(-0.1) * torch.tensor([-1.0, 1.0]).double())
