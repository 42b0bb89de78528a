"""What is measured of runs, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from policyopt.comparing.measures import aim, best, curve, drop, late, measure, measures, reached
from tests.comparing.grids import made_run

RISING = made_run([0.2, 0.4, 0.8], correct=[True, False, None], right=[4, 0, 1], lengths=[3, 5, 7], **{"pass@2": 0.5})
FALLING = made_run(
    [0.2, 0.9, 0.5], correct=[True, True, False], right=[4, 2, None], lengths=[4, 4, 4], **{"pass@2": 0.6}
)
RUNS = {("a", 0): RISING, ("a", 1): FALLING, ("b", 0): FALLING}


def values(name: str) -> dict[str, np.ndarray]:
    found = measure(name, RUNS, ["a", "b"], [0, 1])
    assert found is not None
    return {k: np.round(v, 6) for k, v in found.values.items()}


def test_answers_stand_by_seed_and_question() -> None:
    np.testing.assert_equal(values("accuracy")["a"], [[1, 0, np.nan], [1, 1, 0]])
    np.testing.assert_equal(values("accuracy")["b"], [[1, 1, 0], [np.nan] * 3])
    np.testing.assert_equal(values("length")["a"], [[3, 5, 7], [4, 4, 4]])


def test_pass_at_k_is_that_of_each_question() -> None:
    """1 - C(4 - c, 2) / C(4, 2) for 4, 0, 1 and 2 right of 4."""
    np.testing.assert_allclose(values("pass@2")["a"], [[1, 0, 0.5], [1, 5 / 6, np.nan]], atol=1e-6)


def test_the_curve_ends_with_the_last_evaluation() -> None:
    assert curve(RISING) == ([0, 5, 10], [0.2, 0.4, 0.8])
    assert (best(FALLING), round(drop(FALLING), 6), drop(RISING)) == (0.9, 0.4, 0.0)


def test_what_is_logged_counts_by_its_last_quarter() -> None:
    run = made_run([0.1, 0.2], steps=8, rows={i: {"entropy": float(i)} for i in range(1, 9)})
    assert late(run, "entropy") == 7.5
    assert np.isnan(late(run, "unknown"))
    sparse = made_run([0.1, 0.2], steps=8, rows={2: {"rare": 3.0}})
    assert late(sparse, "rare") == 3.0, "not logged in the last quarter: the last value counts"


def test_the_cost_of_a_target_lies_between_two_evaluations() -> None:
    """From 0.4 at 500 tokens to 0.8 at 1,000: 0.5 is a quarter of the way."""
    assert reached(RISING, 0.5, "tokens") == pytest.approx(625)
    assert reached(RISING, 0.5, "time/step") == pytest.approx(0.5 * 6.25)
    assert reached(RISING, 0.1, "tokens") == 0, "the start is there already"
    assert reached(RISING, 0.9, "tokens") == 1000, "never: all that was used"


def test_the_target_is_four_fifths_of_the_way_of_the_first() -> None:
    assert aim(RUNS, "a", [0, 1]) == pytest.approx(0.2 + 0.8 * (0.65 - 0.2))
    assert aim({("a", 0): made_run([0.5, 0.4])}, "a", [0]) is None


def test_a_metric_that_no_run_has_is_left_out() -> None:
    names = [m.name for m in measures(RUNS, ["a", "b"], [0, 1])]
    assert names[0] == "accuracy" and "entropy" not in names and "pass@2" in names
    assert measure("entropy", RUNS, ["a", "b"], [0, 1]) is None
