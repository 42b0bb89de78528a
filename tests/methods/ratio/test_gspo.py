"""The page of gspo."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from tests.batches import dlogp, gradients, random_batch, ready
from tests.methods.shared_limits import alike, wide


def test_gspo_on_responses_of_one_token_is_grpo() -> None:
    batch = random_batch(lengths=(1,) * 9)
    alike(dlogp(wide(gspo), batch), dlogp(wide(grpo, kl_coef=0.0), batch))


def test_gspo_gives_all_tokens_of_a_row_the_same_gradient_and_a_clipped_row_none() -> None:
    batch = random_batch()
    recipe = wide(gspo)
    done = ready(recipe, batch)
    gradient = gradients(recipe, done)[1]["logp"]
    ratio = recipe.ratio(batch).exp()[:, 0]
    advantage = done.advantage[:, 0]
    clipped = ((advantage > 0) & (ratio > 1.1)) | ((advantage < 0) & (ratio < 0.92))
    assert clipped.any()
    assert not clipped.all()
    total = torch.where(clipped, 0.0, -ratio * advantage / 9)  # whatever the length
    alike(gradient, total[:, None] * batch.mask / batch.mask.sum(-1, keepdim=True))


def test_gspo_sees_only_the_mean_of_a_rows_log_ratios() -> None:
    batch = random_batch(lengths=(6,) * 9)
    turned = batch.replace(logp=batch.old_logp + (batch.logp - batch.old_logp).roll(2, dims=1))
    alike(dlogp(wide(gspo), turned), dlogp(wide(gspo), batch))


def test_the_token_form_of_gspo_is_gspo_where_a_rows_advantages_are_equal() -> None:
    batch = random_batch(gaps=True)
    loss, got = gradients(wide(gspo, level="token"), ready(gspo(), batch))
    wanted_loss, wanted = gradients(wide(gspo), ready(gspo(), batch))
    alike(loss, wanted_loss)
    alike(got["logp"], wanted["logp"])
