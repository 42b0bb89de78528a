"""The page of clip-cov."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.entropy.clip_cov import CovarianceBand, clip_cov
from policyopt.methods.group.grpo import grpo
from policyopt.parts import TokenMean
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_surrogates import same


def test_clip_cov_mutes_no_more_than_its_quota_of_eligible_tokens() -> None:
    wide: dict[str, Any] = {"low": 0.2, "high": 0.2, "cov_low": 0.0, "cov_high": 50.0}
    batch = ready(clip_cov(), random_batch())
    parent = grpo(0.2, 0.2, kl_coef=0.0).replace(aggregate=TokenMean())
    plain = gradients(parent, batch)[1]["logp"]
    same(gradients(clip_cov(**wide, cov_ratio=0.0), batch)[1]["logp"], plain)
    muted = gradients(clip_cov(**wide, cov_ratio=0.1), batch)[1]["logp"]
    part: CovarianceBand = clip_cov(**wide, cov_ratio=0.1).get("weight.SelectedWeight.tokens")
    picked, eligible = part(batch), part.eligible(batch)
    assert int(picked.sum()) == int(0.1 * int(batch.mask.sum())) < int(eligible.sum())
    assert not (picked & ~eligible).any()
    assert (plain[eligible] != 0).all(), "what PPO clips is not eligible"
    same(muted, torch.where(picked, 0.0, plain))
    every = gradients(clip_cov(**wide, cov_ratio=1.0), batch)[1]["logp"]
    same(every, torch.where(eligible, 0.0, plain))
    flat = batch.replace(advantage=torch.full_like(batch.mask, 0.3))
    assert not part(flat).any()


def test_the_draw_follows_the_noise_alone_and_is_uniform() -> None:
    batch = ready(clip_cov(), random_batch(groups=(4, 4), lengths=(6,) * 8))
    part = CovarianceBand(fraction=0.1, above=-50.0, below=50.0, low=None, high=None)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(part(batch[order]), part(batch)[order])
    g = torch.Generator().manual_seed(1)
    draws = [part(batch.replace(noise=torch.rand(8, 6, generator=g).double())).double() for _ in range(600)]
    often = torch.stack(draws).mean(0)
    assert float(often.sum()) == pytest.approx(4)
    assert float(often.min()) > 0.04 and float(often.max()) < 0.13  # 1/12 each
