"""The page of tulu3."""

from __future__ import annotations

import torch

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.judge.tulu3 import tulu3
from policyopt.objective import shaped
from tests.batches import dlogp, random_batch
from tests.methods.shared_judges import same

# Tulu 3 --------------------------------------------------------------------------------------------------------------


def test_tulu3_is_ppo_on_verified_answers_and_a_right_one_without_end_is_punished() -> None:
    batch = random_batch(lengths=(6, 6, 2, 3, 6, 4, 1, 6, 5))
    verified = batch.replace(
        reward=torch.where(batch.truncated > 0.5, -10.0, 10.0 * batch.correct).to(batch.reward)
    )  # fmt: skip
    same(dlogp(tulu3(group_size=4), batch), dlogp(ppo(group_size=4), verified))
    cut_but_right = (batch.truncated > 0.5) & (batch.correct > 0.5)
    assert cut_but_right.any()
    assert (shaped(tulu3(), batch).reward[cut_but_right] == -10).all()
