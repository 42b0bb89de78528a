"""An aggregation over one source of rows."""

from __future__ import annotations

from torch import Tensor

from policyopt.part import Aggregate, part
from policyopt.parts.aggregate.means import TokenMean
from policyopt.parts.select.rows import FromProgram, over_rows
from policyopt.rows import Batch


@part
class OwnTokens(Aggregate):
    """An aggregation over what the policy wrote itself: rows of the main program, without the tokens of a guide.

    Neither has a share in the loss, nor counts in the denominators. Rows of auxiliary programs are left to a term of
    their own, such as ``Likelihood(rows=FromProgram(main=False))``. Sources: ExPO, arXiv:2507.02834; RLGF, arXiv:2306.11816.
    """

    inner: Aggregate = TokenMean()
    """How the losses of these tokens become one number."""

    def __call__(self, batch: Batch) -> Tensor:
        return over_rows(self.inner, FromProgram(), batch.replace(mask=batch.own()))
