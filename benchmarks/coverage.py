"""How often the intervals and decisions of a comparison are right, on simulated runs whose truth is known: ``python benchmarks/coverage.py``.

Prints the tables of docs/statistics.md, on one core in two minutes. tests/comparing/test_statistics.py holds the library to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm, t

from policyopt.comparing.results import Interval
from policyopt.comparing.statistics import difference, holm, improvement, interval

Draw = Callable[[np.random.Generator], np.ndarray]
RUNS = 1000


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers: ability of the seed and ease of the question add up on the logit scale."""

    share: float
    """Of right answers, over all seeds and questions."""
    seed_sd: float = 0.3
    question_sd: float = 2.0
    seeds: int = 5
    questions: int = 256

    def logit(self) -> float:
        """What brings about the share."""
        x, w = hermegauss(60)
        spread = float(np.hypot(self.seed_sd, self.question_sd)) * x
        return float(brentq(lambda c: expit(c + spread) @ w / w.sum() - self.share, -20, 20))

    def contenders(self, rng: np.random.Generator, n: int) -> list[np.ndarray]:
        """So many tables [S, Q] on the same questions, with no true difference between them."""
        ease = self.logit() + self.question_sd * rng.standard_normal(self.questions)
        able = self.seed_sd * rng.standard_normal((n, self.seeds, 1))
        return list((rng.random((n, self.seeds, self.questions)) < expit(ease + able)).astype(float))


def mixed(seeds: int, questions: int, of_seed: float, of_question: float, rest: float) -> Draw:
    """Normal effects with these standard deviations, around 0."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        a, b = of_seed * rng.standard_normal((seeds, 1)), of_question * rng.standard_normal(questions)
        return a + b + rest * rng.standard_normal((seeds, questions))

    return draw


@cache
def drawn_anew(n: int, draws: int = 1000) -> np.ndarray:
    """Shares [draws, n] of n things, of which n are drawn with replacement."""
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), draws) / n


def crossed_bootstrap(y: np.ndarray) -> Interval:
    """Seeds and questions drawn anew, each with replacement: the pigeonhole bootstrap of Owen 2007, percentiles."""
    rows, columns = map(drawn_anew, y.shape)
    low, high = np.quantile(((rows @ y) * columns).sum(1), [0.025, 0.975])
    return Interval(float(y.mean()), float(low), float(high))


def of_seeds(y: np.ndarray) -> Interval:
    """Student's interval of the means of the seeds, as if the questions were all that there are."""
    means = y.mean(1)
    half = t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    return Interval(float(means.mean()), float(means.mean() - half), float(means.mean() + half))


def covered(draw: Draw, truth: float, made: Callable[[np.ndarray], Interval], runs: int, seed: int = 0) -> float:
    """How often an interval holds the truth."""
    rng = np.random.default_rng(seed)
    return float(np.mean([i.low <= truth <= i.high for i in (made(draw(rng)) for _ in range(runs))]))


def accuracy_of(a: Answers) -> Draw:
    """One contender."""
    return lambda rng: a.contenders(rng, 1)[0]


def difference_of(a: Answers) -> Draw:
    """Two contenders that do not differ, one minus the other."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        x, y = a.contenders(rng, 2)
        return x - y

    return draw


def _gamma(seeds: int, rng: np.random.Generator) -> np.ndarray:
    return rng.gamma(4, size=(seeds, 1))


def _exponential(seeds: int, rng: np.random.Generator) -> np.ndarray:
    return rng.exponential(size=(seeds, 1))


def _beta(seeds: int, rng: np.random.Generator) -> np.ndarray:
    return rng.beta(9, 1, (seeds, 1))


def designs() -> dict[str, tuple[Draw, float, bool]]:
    """What is simulated by name: tables, the true mean, whether it is a share."""
    found: dict[str, tuple[Draw, float, bool]] = {}
    mixes = {
        "all alike": (0.05, 0.3, 0.4),
        "seeds differ most": (0.2, 0.3, 0.4),
        "questions differ most": (0.02, 1, 0.4),
        "noise alone": (0, 0, 1),
    }
    for seeds in (2, 3, 5, 10):
        for name, sds in mixes.items():
            found[f"normal, {seeds} seeds x 128, {name}"] = mixed(seeds, 128, *sds), 0.0, False
    for seeds, share, sd in product((3, 5), (0.02, 0.3, 0.9), (0.0, 0.3, 0.7)):
        a = Answers(share, sd, seeds=seeds)
        found[f"accuracy {share}, {seeds} seeds x 256, seed sd {sd}"] = accuracy_of(a), share, True
    for seeds, sd in product((3, 5), (0.0, 0.3, 0.7)):
        a = Answers(0.6, sd, seeds=seeds)
        found[f"difference at 0.6, {seeds} seeds x 256, seed sd {sd}"] = difference_of(a), 0.0, False
    for n in (3, 5, 10):
        found[f"one number a run, {n} seeds, normal"] = mixed(n, 1, 1, 0, 0), 0.0, False
        found[f"one number a run, {n} seeds, skewed (gamma 4)"] = partial(_gamma, n), 4.0, False
        found[f"one number a run, {n} seeds, very skewed (exponential)"] = partial(_exponential, n), 1.0, False
        found[f"share of a run, {n} seeds, skewed (beta 9, 1)"] = partial(_beta, n), 0.9, True
    return found


def false_positives(a: Answers, others: int, runs: int, seed: int = 0) -> float:
    """How often some of so many contenders, which do not differ from the first one, is said to."""
    rng = np.random.default_rng(seed)
    families = (a.contenders(rng, 1 + others) for _ in range(runs))
    return float(np.mean([min(holm([difference(y, first).p for y in rest])) < 0.05 for first, *rest in families]))


def power(seeds: int, questions: int, others: int, of_seed: float, runs: int, seed: int = 0) -> float:
    """How often a difference of the detectable size (of the mean standard error and degrees of freedom) is seen, by the p-value that has to
    hold for the first of ``others``."""
    rng = np.random.default_rng(seed)
    draw = mixed(seeds, questions, of_seed, 0.2, 0.4)
    zero = np.zeros((seeds, questions))
    size = np.mean([difference(draw(rng), zero).detectable(others) for _ in range(runs)])
    return float(np.mean([difference(draw(rng) + size, zero).p < 0.05 / others for _ in range(runs)]))


def improved(gap: float, seeds: int, runs: int, seed: int = 0) -> float:
    """How often the interval of the probability of improvement holds it, of normal runs that lie ``gap`` standard deviations apart."""
    rng, truth = np.random.default_rng(seed), float(norm.cdf(gap / 2**0.5))
    pairs = ((rng.standard_normal(seeds) + gap, rng.standard_normal(seeds)) for _ in range(runs))
    found = [improvement(x, y) for x, y in pairs]
    return float(np.mean([i is not None and i.low <= truth <= i.high for i in found]))


def main() -> None:
    print("| of 95 % intervals, how many hold the truth | here | bootstrap over seeds and questions | seeds alone |")
    print("| --- | --- | --- | --- |")
    for name, (draw, truth, share) in designs().items():
        ours = covered(draw, truth, lambda y, share=share: interval(y, share), RUNS)
        drawn = covered(draw, truth, crossed_bootstrap, RUNS // 2)
        print(f"| {name} | {ours:.1%} | {drawn:.1%} | {covered(draw, truth, of_seeds, RUNS):.1%} |", flush=True)
    print("\n| no true difference: how often one is seen | 1 other | 4 others |\n| --- | --- | --- |")
    for seeds in (2, 3, 5, 10):
        for sd in (0.0, 0.3):
            rates = [f"{false_positives(Answers(0.6, sd, seeds=seeds), n, RUNS):.1%}" for n in (1, 4)]
            print(f"| {seeds} seeds x 256, seed sd {sd} | {' | '.join(rates)} |", flush=True)
    print("\n| a difference of the detectable size: how often it is seen | 1 other | 4 others |\n| --- | --- | --- |")
    for seeds in (3, 5, 10):
        for sd in (0.0, 0.05):
            rates = [f"{power(seeds, 256, n, sd, RUNS):.0%}" for n in (1, 4)]
            print(f"| {seeds} seeds x 256, seed sd {sd} | {' | '.join(rates)} |", flush=True)
    print(
        "\n| probability of improvement: intervals that hold it | 3 seeds | 5 seeds | 10 seeds |\n| --- | --- | --- | --- |"
    )
    for gap in (0.0, 1.0, 2.0, 3.0):
        rates = [f"{improved(gap, seeds, RUNS):.1%}" for seeds in (3, 5, 10)]
        print(f"| {gap} standard deviations apart | {' | '.join(rates)} |", flush=True)


if __name__ == "__main__":
    main()
