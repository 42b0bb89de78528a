"""The page of luspo."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.methods.aggregation.luspo import luspo
from policyopt.methods.ratio.gspo import gspo
from policyopt.recipe import Recipe
from tests.batches import dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_limits import alike, wide


def test_luspo_is_gspo_times_the_length() -> None:
    batch = random_batch(lengths=(4,) * 9)
    for pair in zip(
        gradients(wide(luspo), ready(luspo(), batch)), gradients(wide(gspo), ready(gspo(), batch)), strict=True
    ):
        got, wanted = (x if isinstance(x, Tensor) else x["logp"] for x in pair)
        alike(got, 4 * wanted)


def test_luspo_treats_tokens_of_long_and_short_responses_alike() -> None:
    def gradient(recipe: Recipe) -> Tensor:
        batch = random_batch(groups=(2, 2), lengths=(2, 6, 2, 6)).replace(reward=torch.tensor([1.0, 0, 0, 1]).double())
        return dlogp(recipe, batch.replace(logp=batch.old_logp + 0.01))

    per_token = gradient(luspo(low=0.1, high=0.1))
    alike(per_token[0, 0], per_token[3, 5])
    assert float(gradient(gspo(low=0.1, high=0.1))[0, 0] / gradient(gspo(low=0.1, high=0.1))[3, 0]) == pytest.approx(3)


def test_luspo_on_policy_is_reinforce_with_token_sums() -> None:
    batch = on_policy(random_batch())
    done = ready(luspo(), batch)
    loss, got = gradients(luspo(), done)
    alike(got["logp"], -done.advantage / 9)
    alike(loss, -(done.advantage[:, 0] * batch.mask.sum(-1)).sum() / 9)
