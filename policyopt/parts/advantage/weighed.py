"""An advantage of which some rows have more than others."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.part import UNITS, Advantage, Unit, Wrapper, part
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.select.rows import Judged, RowSelector, RowWeight, picked
from policyopt.rows import Batch


@part
class Weighed(Wrapper, Advantage):
    r"""Another advantage, times how much each row counts, :math:`A_{i,t} \leftarrow w_i A_{i,t}`.

    The weight comes after centre and scale: before them, one that all rows of a prompt share would cancel. Sources: ADORA, the
    authors' code (ShadeCloak/ADORA; prompts); APO, arXiv:2506.21655 (wrong answers); GUI-G1, arXiv:2505.15810 (prompts).
    """

    of: Advantage = Normalise()
    """The advantage before it."""
    by: RowSelector | RowWeight = Judged()
    """w."""

    around: ClassVar[str] = "of"

    @property
    def needs(self) -> frozenset[str]:
        """What the advantage and the weight read."""
        return self.of.needs | self.by.needs

    @property
    def unit(self) -> Unit:
        """The larger of the two."""
        return max(self.of.unit, self.by.unit, key=UNITS.index)

    def __call__(self, batch: Batch) -> Tensor:
        return self.of(batch) * picked(self.by, batch)[:, None]
