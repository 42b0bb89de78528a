"""The page of rl-struct."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.judge.multirole_r1 import multirole_r1
from policyopt.methods.judge.rl_struct import rl_struct
from tests.batches import dlogp, random_batch
from tests.methods.shared_judges import same, with_components

# Components ----------------------------------------------------------------------------------------------------------


def test_rl_struct_and_multirole_are_grpo_where_the_judge_gives_no_parts() -> None:
    batch = random_batch()
    for recipe in (rl_struct(group_size=2), multirole_r1(group_size=2)):
        same(dlogp(recipe, batch), dlogp(grpo(group_size=2), batch))


def test_the_scale_of_all_weights_is_of_no_account() -> None:
    batch = with_components(
        random_batch(groups=(3,)), valid=[1, 0, 1], struct=[1, 0, 0.5], format=[1, 1, 0], correct=[0, 0, 1], length=[1, 1, 0]
    )  # fmt: skip
    one, ten = rl_struct(group_size=2, kl_coef=0), rl_struct(10, 10, 5, 5, 2.5, group_size=2, kl_coef=0)
    torch.testing.assert_close(dlogp(one, batch), dlogp(ten, batch), rtol=1e-4, atol=1e-6)
