"""An advantage within each source of rows."""

from __future__ import annotations

from torch import Tensor

from policyopt.groups import by_source
from policyopt.part import Advantage, Wrapper, part
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.select.source import over_main_rows
from policyopt.rows import Batch


@part
class BySource(Wrapper, Advantage):
    """An advantage within the rows of one source: what a prompt's different programs drew is not compared."""

    inner: Advantage = Normalise()
    """How the rows of one source are compared."""
    auxiliary: bool = True
    """Credit the rows of auxiliary programs too; otherwise they have an advantage of 0, and no statistic sees them."""

    def __call__(self, batch: Batch) -> Tensor:
        if not self.auxiliary:
            return over_main_rows(self.inner, batch)
        return self.inner(batch.replace(group=by_source(batch)))
