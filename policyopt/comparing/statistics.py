r"""What a comparison may say: means over seeds and questions with their uncertainty, differences, and words for them.

All seeds answer the same questions, so a metric of a contender is a table :math:`y_{sq}` of two crossed random factors,

.. math:: y_{sq} = \mu + a_s + b_q + e_{sq},

and an interval says where :math:`\mu` lies for other seeds *and* other questions. docs/statistics.md has the reasons and how often the
intervals are right in simulations (``python benchmarks/coverage.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtrinc, ndtri, poch, stdtr, stdtrit

from policyopt.comparing.results import Interval, Line, Measure
from policyopt.training.charts import NBSP, written
from policyopt.training.plans import Format

ALPHA = 0.05
"""Of all intervals and decisions: intervals are of 95 %, and a difference is seen where its corrected p-value is below."""
POWER = 0.8
"""The chance with which a difference that is called detectable is seen."""


@dataclass(frozen=True)
class Estimate:
    r"""A mean over seeds and questions, and how well it is known.

    It has two standard errors: ``se`` for new seeds and new questions, and ``seed_se`` for new seeds on these questions. The second is never the
    larger one, but has fewer degrees of freedom, and where few seeds agree by chance the first is not known as well as its own say. So what is
    said is what both allow: the longer interval, the larger p-value. Both are NaN with fewer than two seeds.
    """

    mean: float
    se: float
    df: float
    """Degrees of freedom of ``se``."""
    seed_se: float
    """With ``seeds`` - 1 degrees of freedom."""
    seeds: int
    questions: int
    """How many were counted."""

    @property
    def p(self) -> float:
        r"""Probability of a mean at least as far from 0 if the true one is 0: the larger :math:`2\,P(t_{df} > |\bar y| / se)` of the two
        standard errors. Where nothing varies, as numbers that are rounded can have it, it is that of the sign test, :math:`2^{1-S}`, and 1 for
        a mean of 0."""
        if self.se == 0:
            return 1.0 if self.mean == 0 else 2.0 ** (1 - self.seeds)
        return max(float(2 * stdtr(df, -abs(self.mean) / se)) for se, df in self._errors)

    @property
    def interval(self) -> Interval:
        r"""Student's: :math:`\bar y \pm t_{df,\,0.975}\, se`, with the standard error that makes it longer. It leaves out 0 exactly where ``p`` is
        below 0.05."""
        t, se = self._widest(1 - ALPHA / 2)
        return Interval(self.mean, self.mean - t * se, self.mean + t * se)

    @property
    def share(self) -> Interval:
        r"""Wilson's, for a mean of numbers from 0 to 1, with the effective number of observations :math:`n = \bar y (1 - \bar y) / se^2` and
        Student's :math:`t` in the place of the normal quantile:

        .. math:: \frac{\bar y + t^2 / 2n \pm t \sqrt{\bar y (1 - \bar y) / n + t^2 / 4n^2}}{1 + t^2 / n}.

        It stays between 0 and 1 and is longer to the side of 1/2. Where all answers are right, or none, :math:`n` is the number of questions.
        Sources: Wilson 1927; for samples that are not independent, Kott, Andersson and Nerman 2001; compared with others by Franco et al. 2019.
        """
        m, (t, se) = self.mean, self._widest(1 - ALPHA / 2)
        n = m * (1 - m) / se**2 if se != 0 else self.questions if m in (0, 1) and self.questions > 1 else math.inf
        middle, half = m + t * t / 2 / n, t * math.sqrt(m * (1 - m) / n + t * t / 4 / n / n)
        low, high = (middle - half) / (1 + t * t / n), (middle + half) / (1 + t * t / n)
        return Interval(m, min(low, m), max(high, m))  # rounding may take an end of 0 or 1 past the mean

    def detectable(self, comparisons: int = 1) -> float:
        r"""The true difference that is seen with a chance of 80 % by so many seeds, where the smallest p-value of so many ``comparisons`` has to
        hold: :math:`\delta\, se / c_4`, the larger of the two standard errors.

        :math:`\delta` solves :math:`P(T_{df}(\delta) > t_{df,\,1 - 0.05 / 2m}) = 0.8` with Student's noncentral :math:`T`, and
        :math:`c_4 = \sqrt{2 / df}\; \Gamma((df + 1) / 2) / \Gamma(df / 2)` is the share of the true one that a standard error has on average. With many degrees
        of freedom it is :math:`(z_{1 - 0.05 / 2m} + z_{0.8})\, se` (Bloom, Minimum Detectable Effects, Evaluation Review 1995).
        """
        sizes = []
        for se, df in self._errors:
            delta = nctdtrinc(df, 1 - POWER, stdtrit(df, 1 - ALPHA / 2 / comparisons))
            c4 = (2 / df) ** 0.5 * poch(df / 2, 0.5)
            sizes.append(float(delta) * se / float(c4))
        return max(sizes)

    @property
    def _errors(self) -> list[tuple[float, float]]:
        """Standard errors with their degrees of freedom; means of seeds that are all the same add nothing."""
        return [(self.se, self.df), *([(self.seed_se, self.seeds - 1)] if self.seed_se > 0 else [])]

    def _widest(self, level: float) -> tuple[float, float]:
        """Quantile and standard error of the longer interval."""
        found = [(float(stdtrit(df, level)), se) for se, df in self._errors]
        return max(found, key=lambda pair: pair[0] * pair[1])


def complete(y: np.ndarray) -> np.ndarray:
    """A table [S, Q] without its gaps (NaN): questions that no seed has are left out, then seeds that lack more than half of the others,
    then questions that one of the remaining seeds lacks."""
    y = y[:, ~np.isnan(y).all(0)]
    y = y[np.isnan(y).mean(1) <= 0.5] if y.size else y[:0]
    return y[:, ~np.isnan(y).any(0)]


def estimate(y: np.ndarray) -> Estimate:
    r"""The mean of ``y`` [S, Q] over seeds and questions, with a standard error for new seeds and new questions.

    Of the analysis of variance of two crossed random factors, with :math:`A = MS_{seed}/SQ`, :math:`C = MS_{question}/SQ` and
    :math:`E = MS_{residual}/SQ`:

    .. math:: se^2 = \max(A + C - E,\, A,\, C), \qquad
       df = se^4 \Big/ \left(\frac{A^2}{S-1} + \frac{C^2}{Q-1} + \frac{E^2}{(S-1)(Q-1)}\right).

    :math:`A` alone (``seed_se`` squared) is what new seeds on the same questions would do, :math:`C` the reverse: both together are never less.
    With one question it is the ordinary :math:`s^2 / S` with :math:`S - 1` degrees of freedom. Gaps (NaN) are taken out by :func:`complete`.

    Sources: Searle, Casella and McCulloch, Variance Components, 1992 (the estimate of the variance); Satterthwaite 1946 (degrees of freedom).
    """
    y = complete(np.asarray(y, dtype=float))
    n_seeds, n_questions = y.shape
    mean = float(y.mean()) if y.size else math.nan
    if n_seeds < 2 or not y.size:
        return Estimate(mean, math.nan, math.nan, math.nan, n_seeds, n_questions)
    if np.ptp(y) == 0:
        return Estimate(float(y.flat[0]), 0.0, max(y.shape) - 1, 0.0, n_seeds, n_questions)
    of_seeds, of_questions = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    a = float(of_seeds.var(ddof=1)) / n_seeds
    if n_questions == 1:
        return Estimate(mean, math.sqrt(a), n_seeds - 1, math.sqrt(a), n_seeds, n_questions)
    c = float(of_questions.var(ddof=1)) / n_questions
    cells = (n_seeds - 1) * (n_questions - 1)
    e = float(((y - of_seeds - of_questions + mean) ** 2).sum()) / cells / y.size
    variance = max(a + c - e, a, c)
    df = variance**2 / (a**2 / (n_seeds - 1) + c**2 / (n_questions - 1) + e**2 / cells)
    df = max(df, min(y.shape) - 1)
    return Estimate(mean, math.sqrt(variance), df, math.sqrt(a), n_seeds, n_questions)


def interval(y: np.ndarray, share: bool = False) -> Interval:
    """Where the mean of ``y`` [S, Q] lies with 95 % confidence, for new seeds and new questions; ``share`` says that all values lie
    between 0 and 1, and the interval with them. Its ends are NaN with fewer than two seeds."""
    found = estimate(y)
    return found.share if share else found.interval


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """How much higher ``a`` is than ``b``, both [S, Q] with the same seeds and questions in their rows and columns: the estimate of the
    table of differences. Whatever makes a seed or a question easy for both is gone from it. Seeds that one of them lacks do not count."""
    return estimate(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))


def holm(ps: Sequence[float]) -> list[float]:
    r"""P-values of one family, corrected: :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`.

    The chance that any difference is seen where there is none is at most 5 % if those below 0.05 are called seen. A NaN stays one
    and does not count. Source: Holm 1979.
    """
    p = np.asarray(ps, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return p.tolist()


def iqm(seeds: np.ndarray) -> float:
    """Interquartile mean: of the middle half of the ``seeds`` [S], which one that went astray does not move. A quarter of them, rounded
    down, is left out at either end. NaN counts as absent. Source: Agarwal et al. 2021 (rliable, arXiv:2108.13264)."""
    known = np.sort(seeds[~np.isnan(seeds)])
    cut = len(known) // 4
    return float(known[cut : len(known) - cut].mean()) if len(known) else math.nan


def improvement(a: np.ndarray, b: np.ndarray) -> Interval | None:
    r"""The probability that a run of ``a`` has more than a run of ``b`` (numbers of seeds [S], NaN for none):
    :math:`\hat\theta = P(X > Y) + P(X = Y)/2` over all pairs, as in rliable (Agarwal et al. 2021). ``None`` where either has fewer than two.

    The interval holds the :math:`\theta` with :math:`|\hat\theta - \theta| \le z_{0.975} \sqrt{V(\theta)}`,

    .. math:: V(\theta) = \frac{\theta (1 - \theta)}{mn} \left(1 + \left(\frac{m + n}{2} - 1\right)
       \left(\frac{1 - \theta}{2 - \theta} + \frac{\theta}{1 + \theta}\right)\right),

    which is method 5 of Newcombe 2006 (Statistics in Medicine 25:559). rliable's bootstrap over runs says "certainly" as soon as few runs do not
    overlap.
    """
    x, y = a[~np.isnan(a)], b[~np.isnan(b)]
    m, n = len(x), len(y)
    if min(m, n) < 2:
        return None
    found = float((np.sign(x[:, None] - y) + 1).mean() / 2)

    def excess(theta: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (found - theta) ** 2 - ndtri(1 - ALPHA / 2) ** 2 * theta * (1 - theta) * spread / (m * n)

    near = 1e-9  # at 0 and 1 themselves there is no variance
    low = float(brentq(excess, 0, found - near)) if found > 0 else 0.0
    high = float(brentq(excess, found + near, 1)) if found < 1 else 1.0
    return Interval(found, low, high)


def words(found: Estimate, corrected: float, detectable: float | None, form: Format = "number") -> str:
    """A difference for a reader, in points where the metric is in percent.

    ``"higher by 3.1 points (0.4 to 5.8)"`` where the corrected p-value is below 0.05, or else ``"no difference seen: 5 seeds could have seen
    4.2 points"``; that is no proof that there is none. ``"not known: ..."`` where fewer than two seeds have both.
    """
    unit = {"percent": " points", "seconds": " s"}.get(form, "")

    def told(x: float) -> str:
        return written(abs(x), "number" if form == "integer" else form).split(NBSP)[0]  # a mean of integers is none

    if found.seeds < 2 or not found.questions:
        return f"not known: {'one seed' if found.seeds == 1 else 'nothing measured in both'}"
    if found.se == 0 and found.mean == 0:
        return "the same everywhere"
    if found.se == 0:
        few = "" if corrected < ALPHA else ": too few to call it a difference"
        return f"{_side(found.mean)} by {told(found.mean)}{unit} in all {found.seeds} seeds{few}"
    if corrected < ALPHA:
        ends = sorted((abs(found.interval.low), abs(found.interval.high)))
        return f"{_side(found.mean)} by {told(found.mean)}{unit} ({' to '.join(map(told, ends))})"
    return f"no difference seen: {found.seeds} seeds could have seen {told(detectable or 0)}{unit}"


def lines(measures: Sequence[Measure], contenders: Sequence[str]) -> tuple[Line, ...]:
    """The statistics of every measure and contender, in their order; the first contender is what the others are compared to. The family
    of the correction is the other contenders within one measure."""
    return tuple(line for measure in measures for line in _of_measure(measure, contenders))


def _of_measure(measure: Measure, contenders: Sequence[str]) -> Iterator[Line]:
    # A metric in percent is a share, unless it goes below 0 or above 1.
    every = np.concatenate([measure.values[c].ravel() for c in contenders])
    share = measure.format == "percent" and not ((every < 0) | (every > 1)).any()
    base, *others = contenders
    found = {c: difference(measure.values[c], measure.values[base]) for c in others}
    corrected = dict(zip(found, holm([d.p for d in found.values()]), strict=True))
    family = sum(not math.isnan(p) for p in corrected.values())
    of_seeds = {c: _of_seeds(measure.values[c]) for c in contenders}
    for c in contenders:
        d = found.get(c)
        can = d.detectable(family) if d and d.se > 0 else None
        yield Line(
            metric=measure.name,
            contender=c,
            value=interval(measure.values[c], share),
            iqm=iqm(of_seeds[c]),
            seeds=tuple(of_seeds[c].tolist()),
            difference=d.interval if d else None,
            p=_known(d.p) if d else None,
            holm=_known(corrected[c]) if d else None,
            improvement=improvement(of_seeds[c], of_seeds[base]) if d else None,
            detectable=can,
            words=words(d, corrected[c], can, measure.format) if d else "",
        )


def _of_seeds(y: np.ndarray) -> np.ndarray:
    """The mean of each seed [S] over the questions that it has, NaN where it has none."""
    known = ~np.isnan(y)
    return np.where(known, y, 0).sum(1) / np.where(known.any(1), known.sum(1), math.nan)


def _known(p: float) -> float | None:
    return None if math.isnan(p) else p


def _side(x: float) -> str:
    return "higher" if x > 0 else "lower"
