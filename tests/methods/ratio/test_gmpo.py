"""The page of gmpo."""

from __future__ import annotations

import torch

from policyopt.methods.ratio.gmpo import gmpo
from policyopt.parts import TokenRatio
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_ratios import same


def test_a_clipped_token_of_gmpo_is_silent_and_still_counts() -> None:
    batch = ready(gmpo(), random_batch(seed=4, drift=0.8))
    log_ratio = TokenRatio()(batch)
    good = batch.advantage > 0
    clipped = torch.where(good, log_ratio > 0.4, log_ratio < -0.4) & batch.mask.bool()
    _, got = gradients(gmpo(), batch)
    assert clipped.any()
    for i in range(len(batch.mask)):
        mine = batch.mask[i].bool()
        limited = torch.where(good[i], log_ratio[i].clamp(max=0.4), log_ratio[i].clamp(min=-0.4))[mine]
        rho = limited.mean().exp()
        wanted = -batch.advantage[i] * rho / (9 * mine.sum()) * batch.mask[i] * ~clipped[i]
        same(got["logp"][i], wanted)


def test_tokens_of_little_entropy_are_no_tokens_of_the_mean() -> None:
    recipe = gmpo(low=None, high=None, rho=0.4)
    batch = ready(recipe, random_batch(seed=4, drift=0.8))
    log_ratio = TokenRatio()(batch)
    cut = torch.quantile(batch.entropy[batch.mask.bool()], 0.6)
    _, got = gradients(recipe, batch)
    empty = 0
    for i in range(len(batch.mask)):
        mine = batch.mask[i].bool() & (batch.entropy[i] >= cut)
        if not mine.any():
            empty += 1
            assert not got["logp"][i].any()
            continue
        rho = log_ratio[i][mine].mean().exp()
        same(got["logp"][i], -batch.advantage[i] * rho / (9 * mine.sum()) * mine)
    assert empty < len(batch.mask)
