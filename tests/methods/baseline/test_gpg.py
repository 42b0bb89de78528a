"""The page of gpg."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.gpg import ForSilentGroups, gpg
from policyopt.parts import Normalise
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_credit import outcomes
from tests.methods.shared_limits import alike


def test_silent_groups_are_made_up_for_by_the_others() -> None:
    batch = outcomes([1, 0, 1, 1, 0, 0, 1, 0, 0], [2, 2, 2, 3])
    advantage = ready(gpg(), batch).advantage[:, 0]
    plain = [0.5, -0.5, 0, 0, 0, 0, 2 / 3, -1 / 3, -1 / 3]
    alike(advantage, torch.tensor(plain, dtype=torch.float64) * 9 / 5)


def test_without_silent_groups_or_without_any_other_nothing_is_scaled() -> None:
    mixed = outcomes([1, 0, 0, 1], [2, 2])
    alike(ready(gpg(), mixed).advantage[:, 0].tolist(), [0.5, -0.5, -0.5, 0.5])
    assert not ready(gpg(), outcomes([1, 1, 0, 0], [2, 2])).advantage.any()


def test_rewards_that_are_not_0_but_equal_are_silent() -> None:
    """Counting rewards that are not 0 in the place of groups that differ would scale by 4/2."""
    batch = outcomes([-1.0, 1.0, 0.0, 0.0], [2, 2])
    alike(ready(gpg(), batch).advantage[:, 0].tolist(), [-2.0, 2.0, 0.0, 0.0])


def test_any_advantage_can_stand_inside() -> None:
    batch = random_batch()
    alike(dlogp(gpg(), batch), -ready(gpg(), batch).advantage / batch.mask.sum())
    still = batch.replace(reward=torch.where(batch.group == 1, 0.5, batch.reward), token_reward=None)
    part = ForSilentGroups(inner=Normalise())
    alike(part(still), Normalise()(still) * 9 / 6)
    assert gpg(scale="group").advantage == part
