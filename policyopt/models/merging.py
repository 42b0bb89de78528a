"""What becomes of the weights of models that are made one. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from policyopt.part import Fraction, part

How = Literal["average", "changes", "ties"]


@part
class Merging:
    """How models become one, weight by weight (:func:`policyopt.models.merge.merged`)."""

    how: How | None = None
    """What becomes of each weight; unset: ``average``, and ``changes`` with ``keep`` or ``scale``."""
    keep: Fraction | None = None
    """Share of the changes of each tensor that is kept, the largest ones; unset: all."""
    scale: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """What changes are multiplied by; unset: 1."""

    @property
    def speaks_of_changes(self) -> bool:
        """Whether anything is said that an average has no use for."""
        return self.keep is not None or self.scale is not None

    @property
    def way(self) -> How:
        """What becomes of each weight."""
        return self.how or ("changes" if self.speaks_of_changes else "average")
