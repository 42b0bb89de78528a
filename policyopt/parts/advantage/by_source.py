"""Advantages of rows that come from several programs."""

from __future__ import annotations

from torch import Tensor

from policyopt.groups import by_source
from policyopt.part import Advantage, Wrapper, part
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.select.rows import over_main_rows
from policyopt.rows import Batch


@part
class BySource(Wrapper, Advantage):
    """An advantage within the rows of one source: what a prompt's different programs drew is not compared."""

    inner: Advantage = Normalise()
    """How the rows of one source are compared."""

    def __call__(self, batch: Batch) -> Tensor:
        return self.inner(batch.replace(group=by_source(batch)))


@part
class OfMain(Wrapper, Advantage):
    """An advantage of the rows of the main program, as if there were no others; the others have an advantage of 0."""

    inner: Advantage = Normalise()
    """How the rows of the main program are compared."""

    def __call__(self, batch: Batch) -> Tensor:
        return over_main_rows(self.inner, batch)
