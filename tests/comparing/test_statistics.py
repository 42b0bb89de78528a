"""Intervals and decisions of a comparison on data whose truth is known: simulated, or small enough to be worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, nct, norm, trim_mean, ttest_1samp
from scipy.stats import t as student

from policyopt.comparing.results import Interval, Line, Measure
from policyopt.comparing.statistics import (
    Estimate,
    complete,
    difference,
    estimate,
    holm,
    improvement,
    interval,
    iqm,
    lines,
    words,
)
from policyopt.training.plans import Format

NAN = math.nan


@pytest.fixture(scope="module")
def simulated() -> Any:
    """benchmarks/coverage.py, which prints the same with more runs."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    found = importlib.util.spec_from_file_location("coverage_of_intervals", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["coverage_of_intervals"] = module
    found.loader.exec_module(module)
    return module


def table(seeds: int = 4, questions: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(seeds, 1)) + rng.normal(size=questions)
    return np.asarray(effects + rng.normal(size=(seeds, questions)))


def of(format: Format = "percent", **values: Any) -> list[Line]:
    """The lines of one measure, whose first contender is the first."""
    tables = {name: np.asarray(y, dtype=float) for name, y in values.items()}
    return list(lines([Measure("accuracy", "accuracy", tables, True, format)], list(tables)))


# Simulations ---------------------------------------------------------------------------------------------------------

RUNS = 300
SLACK = 2 * math.sqrt(0.05 * 0.95 / RUNS)
"""Two standard errors of a rate of 5 % (2.5 %)."""


@pytest.mark.parametrize(
    "name",
    [
        "normal, 3 seeds x 128, seeds differ most",
        "normal, 5 seeds x 128, all alike",
        "normal, 5 seeds x 128, seeds differ most",
        "normal, 5 seeds x 128, questions differ most",
        "accuracy 0.02, 5 seeds x 256, seed sd 0.7",
        "accuracy 0.3, 5 seeds x 256, seed sd 0.3",
        "accuracy 0.9, 5 seeds x 256, seed sd 0.3",
        "difference at 0.6, 3 seeds x 256, seed sd 0.3",
        "difference at 0.6, 5 seeds x 256, seed sd 0.3",
        "one number a run, 3 seeds, normal",
        "one number a run, 3 seeds, skewed (gamma 4)",
        "one number a run, 5 seeds, skewed (gamma 4)",
        "one number a run, 10 seeds, skewed (gamma 4)",
        "share of a run, 5 seeds, skewed (beta 9, 1)",
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(simulated: Any, name: str) -> None:
    draw, truth, share = simulated.designs()[name]
    assert 0.90 <= simulated.covered(draw, truth, lambda y: interval(y, share), RUNS) <= 0.98


def test_where_nothing_but_noise_varies_they_are_too_long_rather_than_too_short(simulated: Any) -> None:
    draw, truth, _ = simulated.designs()["difference at 0.6, 5 seeds x 256, seed sd 0.0"]
    assert simulated.covered(draw, truth, interval, RUNS) >= 0.95


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("normal, 3 seeds x 128, seeds differ most", "crossed_bootstrap"),
        ("normal, 5 seeds x 128, questions differ most", "of_seeds"),
    ],
)
def test_what_the_usual_intervals_miss(simulated: Any, name: str, other: str) -> None:
    """The simulations tell a wrong interval from a right one."""
    draw, truth, _ = simulated.designs()[name]
    assert simulated.covered(draw, truth, getattr(simulated, other), 200) < 0.87


@pytest.mark.parametrize(("seeds", "sd"), [(2, 0.3), (3, 0.3), (5, 0.0), (5, 0.3)])
def test_four_contenders_without_a_difference_are_said_to_have_none(simulated: Any, seeds: int, sd: float) -> None:
    answers = simulated.Answers(0.6, sd, seeds=seeds, questions=128)
    assert simulated.false_positives(answers, 4, RUNS) <= 0.05 + SLACK


@pytest.mark.parametrize(("seeds", "others", "sd"), [(3, 1, 0.05), (5, 1, 0.05), (5, 4, 0.05), (10, 4, 0.0)])
def test_a_detectable_difference_is_seen_four_times_out_of_five(
    simulated: Any, seeds: int, others: int, sd: float
) -> None:
    assert 0.74 <= simulated.power(seeds, 128, others, sd, RUNS) <= 0.88


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_the_probability_of_improvement_lies_in_its_interval(simulated: Any, gap: float) -> None:
    assert 0.90 <= simulated.improved(gap, 5, RUNS) <= 0.98


# Estimates -----------------------------------------------------------------------------------------------------------


def test_the_standard_error_is_that_of_the_analysis_of_variance() -> None:
    y = table()
    s, q = y.shape
    grand, rows, columns = y.mean(), y.mean(1), y.mean(0)
    ms_seed = q * sum((r - grand) ** 2 for r in rows) / (s - 1)
    ms_question = s * sum((c - grand) ** 2 for c in columns) / (q - 1)
    cells = sum((y[i, j] - rows[i] - columns[j] + grand) ** 2 for i in range(s) for j in range(q))
    ms_rest = cells / ((s - 1) * (q - 1))
    found = estimate(y)
    assert ms_rest < min(ms_seed, ms_question), "the data shall not ask for a floor"
    assert found.se**2 == pytest.approx((ms_seed + ms_question - ms_rest) / (s * q))
    below = ms_seed**2 / (s - 1) + ms_question**2 / (q - 1) + ms_rest**2 / ((s - 1) * (q - 1))
    assert found.df == pytest.approx((ms_seed + ms_question - ms_rest) ** 2 / below)


def test_seeds_and_questions_are_treated_alike() -> None:
    y = table()
    assert estimate(y.T).se == pytest.approx(estimate(y).se) and estimate(y.T).df == pytest.approx(estimate(y).df)


def test_what_is_said_is_what_both_standard_errors_allow() -> None:
    """Three seeds that differ by as much as chance on questions would have them: the crossed error alone would be too sure."""
    crossed, seeds = Estimate(1, 0.4, 100, 0, 3, 128), Estimate(1, 0.3, 100, 0.3, 3, 128)
    assert crossed.p == pytest.approx(2 * student.sf(1 / 0.4, 100))
    assert seeds.p == pytest.approx(2 * student.sf(1 / 0.3, 2)) and seeds.p > 0.05
    assert seeds.interval.low == pytest.approx(1 - student.ppf(0.975, 2) * 0.3)
    assert seeds.interval.low < 0 < crossed.interval.low


def test_what_is_detectable_is_seen_with_a_chance_of_four_in_five() -> None:
    """By the exact power of a t-test on five seeds with four comparisons, at the standard error that a mean one of 0.3 stands for."""
    size = Estimate(1, 0.3, 4, 0.3, 5, 1).detectable(4)
    true = 0.3 / (math.sqrt(2 / 4) * math.gamma(2.5) / math.gamma(2))
    assert nct.sf(student.ppf(1 - 0.025 / 4, 4), 4, size / true) == pytest.approx(0.8, abs=1e-6)
    many = Estimate(1, 0.3, 1e6, 0, 5, 128).detectable()
    assert many == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * 0.3, rel=1e-4)


def test_seeds_that_all_have_the_same_mean_are_no_certainty() -> None:
    found = estimate(np.array([[1.0, -1.0, 1.0], [1.0, 1.0, -1.0]]) - 1 / 3)
    assert found.p == pytest.approx(1) and found.detectable() > 0


def test_seeds_that_agree_too_well_take_nothing_from_what_questions_do() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 40))
    y -= y.mean(1, keepdims=True)
    found = estimate(y)
    assert found.se**2 == pytest.approx(y.mean(0).var(ddof=1) / 40)


def test_one_number_a_run_gives_students_interval() -> None:
    y = table(6, 1)
    expected = ttest_1samp(y[:, 0], 0)
    found = estimate(y)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == (pytest.approx(low), pytest.approx(high))


def test_a_difference_is_paired_by_seed_and_question() -> None:
    hard = 10 * table(5, 30, seed=1)
    a, b = hard + 0.5 + 0.1 * table(5, 30, seed=2), hard + 0.1 * table(5, 30, seed=3)
    assert difference(a, b).p < 0.01
    assert difference(a, b[::-1]).p > 0.05 and difference(a, b[:, ::-1]).p > 0.05


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_is_as_certain_as_there_are_questions(right: float) -> None:
    found = interval(np.full((3, 100), right), share=True)
    wilson = binomtest(int(100 * right), 100).proportion_ci(method="wilson")
    assert found.mean == right
    assert (found.low, found.high) == (pytest.approx(wilson.low, abs=0.001), pytest.approx(wilson.high, abs=0.001))


def test_a_share_stays_a_share() -> None:
    y = np.zeros((3, 50))
    y[0, 0] = 1
    assert interval(y).low < 0 < interval(y, share=True).low < interval(y, share=True).high < 1
    assert interval(1 - y).high > 1 > interval(1 - y, share=True).high


def test_far_from_its_ends_a_share_has_students_interval() -> None:
    y = np.asarray(0.5 + 0.001 * table(5, 50))
    plain, share = interval(y), interval(y, share=True)
    assert (share.low, share.high) == (pytest.approx(plain.low, rel=1e-4), pytest.approx(plain.high, rel=1e-4))


def test_gaps_take_as_little_with_them_as_they_can() -> None:
    y = table(4, 6)
    crashed, judge, nobody = y.copy(), y.copy(), y.copy()
    crashed[2] = NAN
    judge[1, 3] = NAN
    nobody[:, 0] = NAN
    assert np.array_equal(complete(crashed), y[[0, 1, 3]])
    assert np.array_equal(complete(judge), y[:, [0, 1, 2, 4, 5]])
    assert np.array_equal(complete(nobody), y[:, 1:])
    assert complete(np.full((3, 4), NAN)).size == 0
    both = difference(crashed, judge)
    assert (both.seeds, both.questions) == (3, 5) and both.mean == 0


# One number of many --------------------------------------------------------------------------------------------------


def test_holm() -> None:
    """Holm 1979: the smallest by as many as there are, the next by one less, and never below one that was smaller."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([NAN, 0.03]) == pytest.approx([NAN, 0.03], nan_ok=True)


def test_the_interquartile_mean_leaves_out_what_went_astray() -> None:
    assert iqm(np.array([0.5, 0.6, -9, 0.7, 99])) == pytest.approx(0.6)
    x = np.random.default_rng(0).normal(size=11)
    assert iqm(np.append(x, NAN)) == pytest.approx(trim_mean(x, 0.25))
    assert math.isnan(iqm(np.array([NAN])))


def test_the_probability_of_improvement_counts_pairs() -> None:
    found = improvement(np.array([1, 2, 3.0, NAN]), np.array([0, 2, 4.0]))
    assert found is not None and found.mean == pytest.approx((1 + 1.5 + 2) / 9)
    assert improvement(np.array([1, NAN]), np.array([1, 2, 3.0])) is None


def test_runs_that_do_not_overlap_are_no_certainty() -> None:
    few, many = (improvement(np.arange(n) + 100.0, np.arange(n) * 1.0) for n in (3, 30))
    assert few is not None and many is not None
    assert few.mean == few.high == 1 and few.low == pytest.approx(0.501, abs=1e-3)
    assert 0.85 < many.low < 1


def test_either_order_of_two_contenders_says_the_same() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 5))
    a, b = improvement(x, y), improvement(y, x)
    assert a is not None and b is not None
    assert (a.mean, a.low, a.high) == pytest.approx((1 - b.mean, 1 - b.high, 1 - b.low))


# Lines and words -----------------------------------------------------------------------------------------------------


def test_what_is_seen_is_said_with_its_interval() -> None:
    found = Estimate(mean=0.031, se=0.01, df=20, seed_se=0.001, seeds=5, questions=128)
    assert words(found, 0.01, 0.04, "percent") == "higher by 3.1 points (1.0 to 5.2)"
    assert words(Estimate(-12, 2, 20, 0, 5, 128), 0.01, 8, "integer") == "lower by 12 (7.83 to 16.2)"
    assert words(Estimate(-1.5, 0.5, 20, 0, 5, 1), 0.01, 1, "seconds") == "lower by 1.50 s (0.46 to 2.54)"


def test_what_is_not_seen_comes_with_what_could_have_been() -> None:
    found = Estimate(mean=0.02, se=0.01, df=20, seed_se=0.01, seeds=5, questions=128)
    assert words(found, 0.06, 0.042, "percent") == "no difference seen: 5 seeds could have seen 4.2 points"


def test_one_seed_is_said_to_be_one() -> None:
    first, other = of(grpo=[[1, 0, 1]], other=[[1, 1, 1]])
    assert other.words == "not known: one seed"
    assert (first.value.mean, other.difference and other.difference.mean) == (
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
    )
    assert math.isnan(first.value.low) and other.difference and math.isnan(other.difference.high)
    assert (other.p, other.holm, other.improvement, other.detectable) == (None,) * 4


def test_two_runs_that_share_one_seed_do_not_make_a_pair() -> None:
    _, other = of(grpo=[[0.1], [0.2], [NAN]], other=[[NAN], [0.4], [0.5]])
    assert other.words == "not known: one seed" and not math.isnan(other.value.low)
    _, never = of(grpo=[[0.1], [0.2]], other=[[NAN], [NAN]])
    assert never.words == "not known: nothing measured in both" and all(math.isnan(s) for s in never.seeds)


def test_what_does_not_vary_is_said_to_be_so() -> None:
    _, same, more = of("integer", grpo=[[5.0]] * 3, same=[[5.0]] * 3, more=[[7.0]] * 3)
    assert same.words == "the same everywhere" and (same.p, same.detectable) == (1, None)
    assert more.words == "higher by 2 in all 3 seeds: too few to call it a difference" and more.p == 0.25
    assert more.difference == Interval(2, 2, 2)


def test_more_contenders_ask_for_more() -> None:
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(size=(5, 20)) for name in "abcde"}
    alone, among = of("number", a=tables["a"], b=tables["b"])[1], of("number", **tables)[1]
    assert alone.p == among.p == alone.holm
    assert among.detectable and alone.detectable and among.detectable > alone.detectable
    assert [line.holm for line in of("number", **tables)[1:]] == holm(
        [line.p for line in of("number", **tables)[1:] if line.p is not None]
    )


def test_a_metric_in_percent_that_leaves_0_to_1_is_no_share() -> None:
    (line,) = of(grpo=[[-0.1], [0.1], [0.0]])
    assert line.value.low < -0.1 and line.difference is None and line.words == ""


def test_the_mean_of_a_seed_is_over_the_questions_that_it_has() -> None:
    (line,) = of(grpo=[[1, 0, NAN, 0.5], [NAN] * 4])
    assert line.seeds[0] == pytest.approx(0.5) and math.isnan(line.seeds[1]) and line.iqm == pytest.approx(0.5)


def test_lines_come_by_measure_and_then_by_contender() -> None:
    values = {"a": table(), "b": table(seed=1)}
    found = lines([Measure("x", "x", values, None), Measure("y", "y", values, True)], ["a", "b"])
    assert [(line.metric, line.contender) for line in found] == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]
