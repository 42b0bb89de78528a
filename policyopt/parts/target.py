"""Text in a batch that the policy is not credited with: targets of likelihood, and what a guide wrote."""

from __future__ import annotations

from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.aggregate import TokenMean
from policyopt.parts.base import Aggregate, part
from policyopt.parts.source import over_main_rows


@part
class OwnTokens(Aggregate):
    """An aggregation over what the policy wrote itself: rows of the main program, without the tokens of a guide.

    Neither has a share in the loss, nor counts in the denominators. Rows of auxiliary programs are left to a term of
    their own, such as ``Likelihood(rows="auxiliary")``. Sources: ExPO, arXiv:2507.02834; RLGF, arXiv:2306.11816.
    """

    inner: Aggregate = TokenMean()
    """How the losses of these tokens become one number."""

    def __call__(self, batch: Batch) -> Tensor:
        return over_main_rows(self.inner, batch.replace(mask=batch.own()))
