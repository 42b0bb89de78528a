"""A value that depends on which side of a target a metric is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from policyopt.control.follows import Follows
from policyopt.part import Finite, part


@part
class Thermostat(Follows):
    r"""A field that has one value while a metric is at or below its target, and another while it is above.

    Before the first measurement the metric counts as 0; a step without one keeps the last. Source: AEPO,
    arXiv:2510.08141, eq. 9, and the authors' code (597358816/AEPO). Our reading: the metric is the mean entropy of the
    distributions that the last step's responses were drawn from; the authors take its sampled estimate, the mean
    of -log pi over the same tokens.
    """

    target: Finite
    """Wanted value of the metric."""
    below: Finite
    """Value of the field while the metric is no higher than the target."""
    above: Finite
    """Value of the field while it is higher."""
    metric: str = dataclasses.field(default="entropy", kw_only=True)
    """Where it is read."""

    @property
    def asks(self) -> frozenset[str]:
        """What the log takes the metric from."""
        return frozenset({"sampling entropy"} if self.metric == "entropy" else ())

    def start(self) -> dict[str, float]:
        return {"metric": 0.0}

    def __call__(self, value: Any, metrics: Mapping[str, float], state: dict[str, float]) -> Any:
        state["metric"] = metrics.get(self.metric, state["metric"])
        return super().__call__(value, {**metrics, self.metric: state["metric"]}, state)

    def follow(self, value: Any, measured: float, metrics: Mapping[str, float]) -> float:
        return self.value(measured)

    def value(self, metric: float) -> float:
        """What the field is at a value of the metric."""
        return self.below if metric <= self.target else self.above
