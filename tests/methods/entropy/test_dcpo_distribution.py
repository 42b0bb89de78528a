"""The page of dcpo-distribution."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt import methods as po
from policyopt.control import Thermostat
from policyopt.methods.entropy.dcpo_distribution import LogProbAt, TargetGap, VirtualTemperature
from policyopt.rows import FIXED, Batch
from policyopt.steering import States, control
from tests.batches import random_batch
from tests.methods.shared_entropy import SEEDS, logits, over_vocabulary


def test_the_thermostat_is_hot_at_the_target_and_before_the_first_measurement() -> None:
    states: States = {}
    recipe, seen = po.aepo(entropy_target=0.5), []
    for metrics in ({}, {"entropy": 0.6}, {}, {"entropy": 0.5}, {"entropy": 0.4}):
        recipe = control(recipe, metrics, states)
        seen.append((recipe.get("source.auxiliary_temperature"), recipe.get("select.ReplaceByAuxiliary.share")))
    hot, cold = (1.2, 1.0), (0.8, 0.5)
    assert seen == [hot, cold, cold, hot, hot]
    gap = TargetGap("advantage.gap", 0.5, below=0.1, above=0.05)
    assert [gap.value(x) for x in (0.0, 0.45, 0.5, 0.53, 9.0)] == pytest.approx([0.1, 0.05, 0.0, -0.03, -0.05])
    assert isinstance(gap, Thermostat)


@SEEDS
def test_the_virtual_temperature_is_a_change_of_measure(seed: int) -> None:
    z = logits(seed)
    logp = z.log_softmax(-1)
    for temperature in (1.2, 0.8):
        ratio = (over_vocabulary(LogProbAt(temperature), z) - logp).exp()
        torch.testing.assert_close((logp.exp() * ratio).sum(-1), torch.ones(7, dtype=torch.float64))
        rare, likely = (ratio.gather(-1, at[:, None]) for at in (logp.argmin(-1), logp.argmax(-1)))
        assert (rare > likely).all() == (temperature > 1)
    torch.testing.assert_close(over_vocabulary(LogProbAt(1.0), z), logp)


def virtual(part: VirtualTemperature, batch: Batch) -> Batch:
    found = {part.hot: 0.2, part.cold: -0.2, 1.0: 0.0}
    return batch.with_statistics({FIXED + LogProbAt(t).key: batch.old_logp + x for t, x in found.items()})


def test_only_rewarded_rows_get_the_extra_term_and_few_of_them_get_more() -> None:
    batch = random_batch().replace(reward=torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=torch.float64))
    plain = po.grpo().advantage(batch)
    for gap, ratio in ((0.1, math.exp(0.2)), (-0.1, math.exp(-0.2))):
        part = VirtualTemperature(gap=gap)
        found = part(virtual(part, batch))
        alpha = (0.1 / (4 / 9)) / (1 + 0.1 / (4 / 9))
        rewarded = (batch.reward > 0)[:, None]
        torch.testing.assert_close(found, (1 - alpha) * plain + alpha * ratio * rewarded * batch.mask)
    right = batch.replace(reward=torch.ones(9, dtype=torch.float64))
    assert (part(virtual(part, right))[batch.mask > 0] > 0).all(), "groups that are all right still pull"
    assert part.strength(right) < part.strength(batch)
    wrong = batch.replace(reward=torch.zeros(9, dtype=torch.float64))
    assert part.strength(wrong) == 0
    assert not part(virtual(part, wrong)).any()
