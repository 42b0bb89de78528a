"""BoNBoN."""

from __future__ import annotations

from fractions import Fraction

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import BestWorst, Likelihood, Pairs, Side, SquareTo
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import GroupFrom


def best_worst_gap(n: int) -> float:
    r"""By how much the log-ratio of the best-of-n policy to the one that drew is larger on the best of n draws than on the worst, in
    expectation: :math:`(n-1)\sum_{k<n}\frac1k`, in nats.

    The density of the best of n is :math:`nF^{n-1}`, so the log-ratio is :math:`(n-1)\log F` up to a constant, and
    :math:`E\log F` is -1/n for the best and :math:`-\sum_{k\le n}\frac1k` for the worst, whatever the reward. Raises ``ValueError`` for
    fewer than two draws.
    """
    if n < 2:
        raise ValueError(f"the best and the worst of {n} draws are one: take at least 2")
    return float((n - 1) * sum(Fraction(1, k) for k in range(1, n)))


def ipo_beta(n: int) -> float:
    """The beta of IPO whose target is :func:`best_worst_gap`, 1/(2 beta)."""
    return 1 / (2 * best_worst_gap(n))


@method(
    parent=dpo,
    arxiv="2406.00832",
    confidence="secondary",
    claim=Claim(
        "A policy that answers once comes to answer like the best of several responses of the start, and gets more right than one "
        "that imitates the best ones.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        against="best-of-n",
        both={"group-size": 4, "steps": 20},
    ),
)
def bonbon(alpha: float = 0.005, group_size: int = 8) -> Recipe:
    r"""BoNBoN alignment: the best of n responses of the reference is made likely, and held apart from the worst as far as the
    best-of-n policy holds them.

    .. math:: L = -\alpha\,\mathrm{mean}_q\log\pi_\theta(y_b) + (1-\alpha)\,\mathrm{mean}_q\Big(h_b - h_w - \frac{1}{2\beta_n}\Big)^2,\qquad
              \frac{1}{2\beta_n} = (n-1)\sum_{k<n}\frac1k

    h is the log-ratio to the reference of a whole response, n = ``group_size``, y_b and y_w the best and the worst of n. The
    target is what the best-of-n policy has in expectation, whatever the reward, so that no temperature is left to choose: it lies
    :math:`\log n - (n-1)/n` nats from the reference. The reference draws the responses (a :class:`~policyopt.sources.draw.GroupFrom`): the
    target holds for its draws alone. A prompt whose responses are all worth the same is skipped.

    Source: arXiv:2406.00832, from third parties' accounts; n 8 and alpha 0.005 as we know them from there. The target was derived again
    (:func:`best_worst_gap`).
    """
    pair = BestWorst()
    return dpo().replace(
        source=GroupFrom(size=group_size),
        surrogate=Pairs(link=SquareTo(target=best_worst_gap(group_size)), choose=pair),
        regularizers=(Likelihood(coef=alpha, rows=Side(choose=pair), mean="prompt"),),
    )
