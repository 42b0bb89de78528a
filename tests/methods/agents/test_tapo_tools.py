"""The page of tapo-tools."""

from __future__ import annotations

import torch

from policyopt.methods.agents.tapo_tools import MixedSound, SoundReward, tapo_tools
from policyopt.objective import kept, shaped
from tests.batches import dlogp, random_batch


def test_only_what_is_right_and_in_form_is_rewarded() -> None:
    batch = random_batch()
    both = (batch.correct > 0) & (batch.formatted > 0)
    assert SoundReward()(batch).reward.tolist() == [1.0 if x else -1.0 for x in both]
    spoilt = SoundReward()(batch.replace(formatted=0 * batch.formatted)).reward
    assert (spoilt == -1).all()


def test_a_group_that_is_all_right_leaves_whatever_its_lengths() -> None:
    batch = random_batch(groups=(4, 3))
    same = torch.where(batch.group == 0, 1.0, batch.correct)
    batch = batch.replace(correct=same, formatted=torch.ones_like(same), budget=0 * batch.budget + 4)
    recipe = tapo_tools()
    assert kept(recipe, shaped(recipe, batch)).tolist() == [False] * 4 + [True] * 3
    assert shaped(recipe, batch).reward[:4].unique().numel() > 1
    assert MixedSound()(batch)[4:].all()


def test_what_tools_say_changes_nothing() -> None:
    batch = random_batch(gaps=True)
    recipe = tapo_tools()
    other = batch.replace(
        **{name: torch.where(batch.mask > 0, getattr(batch, name), -7.0) for name in ("logp", "old_logp")}
    )
    torch.testing.assert_close(dlogp(recipe, batch), dlogp(recipe, other))
    assert (dlogp(recipe, batch)[batch.mask == 0] == 0).all()


def test_a_bad_token_beyond_the_ceiling_has_no_gradient() -> None:
    batch = random_batch(groups=(4,))
    batch = batch.replace(logp=batch.old_logp + 3.0, formatted=torch.ones_like(batch.correct))
    found = dlogp(tapo_tools(dual=10.0), batch)
    assert (found == 0).all(), "good tokens are above 1.28, bad ones above 10"
    assert (dlogp(tapo_tools(dual=100.0), batch) != 0).any()
