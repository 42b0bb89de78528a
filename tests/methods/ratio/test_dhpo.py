"""The page of dhpo."""

from __future__ import annotations

import pytest

from policyopt.methods.ratio.dhpo import dhpo
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_ratios import same


@pytest.mark.parametrize("seed", range(3))
def test_both_branches_of_dhpo_must_clip_to_silence_a_token(seed: int) -> None:
    recipe = dhpo(mix="entropy", seq_clip_low=0.1, seq_clip_high=0.1)
    batch = ready(recipe, random_batch(seed=seed, drift=0.8))
    w = recipe.surrogate.token_weight(batch)  # type: ignore[attr-defined]
    token, sequence = (
        gradients(r, batch)[1]["logp"] for r in (dhpo(token_weight=1.0), dhpo(token_weight=0.0, seq_clip_low=0.1, seq_clip_high=0.1))
    )  # fmt: skip
    same(gradients(recipe, batch)[1]["logp"], w * token + (1 - w) * sequence)
    scaled = batch.replace(sampled_entropy=batch.sampled_entropy * 7)
    same(recipe.surrogate.token_weight(scaled), w)  # type: ignore[attr-defined]
    assert ((w * batch.mask).amax(-1) == 1).all()


def test_the_entropy_of_dhpo_may_be_held_against_the_batch_and_point_the_other_way() -> None:
    batch = random_batch()
    entropy = batch.sampled_entropy * batch.mask
    turned = dhpo(mix="entropy", entropy_norm="batch", entropy_to="sequence")
    same(turned.surrogate.token_weight(batch) * batch.mask, (1 - entropy / entropy.max()) * batch.mask)  # type: ignore[attr-defined]
    assert (dhpo().unit, dhpo(mix="entropy").unit, turned.unit) == ("row", "row", "batch")
