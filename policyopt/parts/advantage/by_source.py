"""An advantage within each source of rows."""

from __future__ import annotations

from torch import Tensor

from policyopt.groups import by_source
from policyopt.part import Advantage, Wrapper, part
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.select.rows import RowSelector, over_rows
from policyopt.rows import Batch


@part
class BySource(Wrapper, Advantage):
    """An advantage within the rows of one source: what a prompt's different programs drew is not compared."""

    inner: Advantage = Normalise()
    """How the rows of one source are compared."""
    rows: RowSelector | None = None
    """The rows that are credited; the others have an advantage of 0, and no statistic sees them. None for all."""

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and what picks the rows."""
        return super().needs if self.rows is None else super().needs | self.rows.needs

    def __call__(self, batch: Batch) -> Tensor:
        return over_rows(lambda some: self.inner(some.replace(group=by_source(some))), self.rows, batch)
