"""CASTILLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policyopt.errors import UserError
from policyopt.registry import tool

PERCENTILES = (25.0, 50.0, 75.0, 99.0)


@dataclass(frozen=True)
class Lengths:
    """How long the responses to one prompt were, in tokens."""

    mean: float
    std: float
    """Over their number less one; 0 for one response."""
    std_population: float
    """Over their number."""
    cv: float
    """Coefficient of variation, std over mean; 0 where all are equally long."""
    percentiles: Mapping[float, float]
    """By their number, 0 to 100, interpolated linearly."""
    at_cap: int
    """How many are as long as was allowed."""
    shortest: int
    """Index of the shortest one, the first of equal ones."""
    longest: int
    """Index of the longest one, the first of equal ones."""
    n: int
    """How many there were."""


def spread(lengths: Sequence[float], cap: float | None = None, percentiles: Sequence[float] = PERCENTILES) -> Lengths:
    """The numbers of one prompt. Their order changes nothing but the two indices."""
    x = np.asarray(lengths, dtype=np.float64)
    mean, std = float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0
    found = np.percentile(x, percentiles).tolist()
    at_cap = 0 if cap is None else int((x >= cap).sum())
    return Lengths(
        mean, std, float(x.std()), std / mean if std else 0.0, dict(zip(percentiles, found, strict=True)), at_cap, int(x.argmin()),
        int(x.argmax()), len(x),
    )  # fmt: skip


@tool(arxiv="2505.16881", confidence="secondary", use="policyopt lengths embedded --task long-winded --prompts 8")
def castillo(
    lengths: Sequence[Sequence[float]], cap: float | None = None, percentiles: Sequence[float] = PERCENTILES
) -> list[Lengths]:
    r"""How long a model's responses are, prompt by prompt: mean, spread, percentiles, and how many ran into the cap.

    .. math:: cv = \frac{s}{\bar l},\qquad s^2 = \frac{1}{n-1}\sum_k (l_k - \bar l)^2

    The command draws ``--samples`` responses (10, as in the paper) to each of some questions and prints a line for each; ``--json`` has both deviations, and which
    response was the shortest and the longest. Medians beside means tell "all are longer" from "a few run away". Prompts whose lengths have no outlier by nature are what ``dot`` and ``grpo-lambda``
    measure themselves by. In training the log has the mean of cv over prompts (``length/cv``) and the 99th percentile of all responses (``length/p99``). This function takes
    lengths that are there already.

    Raises :class:`~policyopt.errors.UserError` for a prompt without responses. Source: arXiv:2505.16881, from third parties' accounts: 10 responses of 13 models to the prompts of 7 corpora. Our reading: the
    deviation over one less, linear percentiles. Its data set, and the predictors of length that it is for, are not here.
    """
    if not all(map(len, lengths)):
        raise UserError(
            f"castillo: prompt {[*map(len, lengths)].index(0)} has no response; give the lengths of one at least"
        )
    return [spread(row, cap, percentiles) for row in lengths]
