"""How far a measured share, or the change of one, could be off by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    r"""Wilson's 95 % interval for a share :math:`p = k/n` measured on ``n`` responses,

    .. math:: \frac{2k + z^2 \mp z\sqrt{4k(1 - p) + z^2}}{2(n + z^2)}, \qquad z = \Phi^{-1}(0.975).

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212; it is that of
    ``scipy.stats.binomtest``, which takes most of a second to import.
    """
    k = min(n, max(0, round(accuracy * n)))
    reach = Z * math.sqrt(4 * k * (1 - k / n) + Z**2)
    low, high = ((2 * k + Z**2 + side * reach) / (2 * (n + Z**2)) for side in (-1, 1))
    return (low if k else 0.0), (high if k < n else 1.0)


def difference(before: float, n: int, after: float, m: int, correlation: float = 0.0) -> tuple[float, float]:
    r"""Newcombe's hybrid 95 % interval for ``after - before``, built from the two Wilson intervals.

    .. math:: d \mp \sqrt{(p_1 - l_1)^2 - 2\phi(p_1 - l_1)(u_0 - p_0) + (u_0 - p_0)^2}

    With a ``correlation`` of 0 it takes the two measurements as independent, which is cautious where both use the same
    prompts. Source: R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10, and 2635-2650, method 10.
    """
    (low0, high0), (low1, high1) = wilson(before, n), wilson(after, m)

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    d = after - before
    return d - reach(after - low1, high0 - before), d + reach(high1 - after, before - low0)


def paired(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float]:
    r"""The 95 % interval for the change of a share that was measured twice on the same questions, in the same order.

    :func:`difference` with the correlation :math:`\phi` of the two outcomes of a question, in Newcombe's form: where it is
    above 0, its numerator is lowered by half the number of questions. Source: R. G. Newcombe, Statistics in
    Medicine 17 (1998), 2635-2650, method 10. Raises ``ValueError`` for lists of unlike length.
    """
    n = len(before)
    both = sum(a and b for a, b in zip(before, after, strict=True))
    lost, won = sum(before) - both, sum(after) - both
    neither = n - both - lost - won
    spread = math.sqrt((both + lost) * (won + neither) * (both + won) * (lost + neither))
    cross = both * neither - lost * won
    shared = max(0.0, cross - n / 2) if cross > 0 else float(cross)
    return difference(sum(before) / n, n, sum(after) / n, n, shared / spread if spread else 0.0)
