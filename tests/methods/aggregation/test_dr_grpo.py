"""The page of dr-grpo."""

from __future__ import annotations

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.group.grpo import grpo
from tests.batches import BUDGET, dlogp, on_policy, random_batch, ready
from tests.methods.shared_limits import alike


def test_leave_one_out_is_dr_grpo_with_another_learning_rate() -> None:
    batch = on_policy(random_batch(groups=(4, 4)))
    alike(dlogp(rloo(kl_coef=0.0), batch), dlogp(dr_grpo(loss_norm=10), batch) * 10 * 4 / 3)


# Lengths -------------------------------------------------------------------------------------------------------------


def test_dr_grpo_divides_every_token_by_the_same_constant() -> None:
    batch = on_policy(random_batch(groups=(2, 3), lengths=(1, 6, 2, 4, 3)))
    recipe = dr_grpo()
    advantage = ready(recipe, batch).advantage
    alike(dlogp(recipe, batch), -advantage / 5 / BUDGET)
    alike(dlogp(dr_grpo(loss_norm=4.0), batch), dlogp(recipe, batch) * BUDGET / 4)
    alike(dlogp(recipe, batch.replace(reward=3 * batch.reward)), 3 * dlogp(recipe, batch))


def test_dr_grpo_is_grpo_without_its_two_divisions() -> None:
    batch = random_batch(lengths=(4,) * 9)
    parent = grpo(kl_coef=0.0).set("advantage.scale", "none")
    alike(dlogp(dr_grpo(loss_norm=10.0), batch), dlogp(parent, batch) * 4 / 10)
