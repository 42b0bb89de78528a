"""A value that is the average of what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from policyopt.control.follows import Follows
from policyopt.part import Fraction, part


@part
class MovingAverage(Follows):
    r"""Keep a field at the moving average of a metric of earlier steps, :math:`b \leftarrow \mu b + (1-\mu)\,m`.

    The value used at a step never contains that step, so as a baseline it leaves the gradient unbiased (Williams 1992).
    """

    field: str = "advantage.baseline"
    """Path of the field."""
    metric: str = dataclasses.field(default="reward/mean", kw_only=True)
    """What is averaged."""
    momentum: Fraction = 0.9
    """mu."""

    def follow(self, value: float, measured: float, metrics: Mapping[str, float]) -> float:
        return self.momentum * value + (1 - self.momentum) * measured
