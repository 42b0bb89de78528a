"""The page of skywork-or1."""

from __future__ import annotations

import pytest

from policyopt.methods.entropy.skywork_or1 import EntropyStairs, skywork_or1
from policyopt.steering import States, control


class TheirController:
    """The authors' rule, step by step."""

    def __init__(self, first: float, most: float, least: float, by: float, target: float) -> None:
        self.value, self.most, self.least, self.by, self.target, self.on = first, most, least, by, target, 1

    def update(self, entropy: float) -> float:
        self.value += self.by if entropy < self.target else -self.by
        self.value = min(max(self.value, self.least), self.most)
        self.on = int(entropy < self.target)
        return self.value * self.on


def test_the_coefficient_goes_up_and_down_the_stairs_and_is_off_above_the_target() -> None:
    recipe, states = skywork_or1(entropy_target=0.5, entropy_by=0.001, entropy_most=0.003), States()
    theirs = TheirController(0.0, 0.003, 0.0, 0.001, 0.5)
    recipe = control(recipe, {}, states)
    assert recipe.get("regularizers.EntropyBonus.coef") == 0
    found = []
    for entropy in (0.4, 0.3, 0.6, 0.4, 0.4, 0.4, 0.4, 0.5, 0.7, 0.8, 0.9, 0.1):
        recipe = control(recipe, {"entropy": entropy}, states)
        found.append(recipe.get("regularizers.EntropyBonus.coef"))
        assert found[-1] == pytest.approx(theirs.update(entropy), abs=1e-15)
    assert found == pytest.approx([0.001, 0.002, 0, 0.002, 0.003, 0.003, 0.003, 0, 0, 0, 0, 0.001])


def test_a_step_without_a_measurement_changes_nothing() -> None:
    stairs, state = EntropyStairs(by=0.001), {"coef": 0.004}
    assert stairs(0.004, {"reward/mean": 1.0}, state) == 0.004
    assert state == {"coef": 0.004}


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match=r"most is 0\.001, below least"):
        EntropyStairs(least=0.01, most=0.001)
