"""A value that depends on which side of a target a metric is."""

from __future__ import annotations

from collections.abc import Mapping

from policyopt.part import Controller, Finite, part
from policyopt.recipe import Recipe


@part
class Thermostat(Controller):
    r"""A field that has one value while a metric is at or below its target, and another while it is above.

    Before the first measurement the metric counts as 0; a step without one keeps the last. Source: AEPO,
    arXiv:2510.08141, eq. 9, and the authors' code (597358816/AEPO). Our reading: the metric is the mean entropy of the
    distributions that the last step's responses were drawn from; the authors take its sampled estimate, the mean
    of -log pi over the same tokens.
    """

    field: str
    """Path of the field."""
    target: Finite
    """Wanted value of the metric."""
    below: Finite
    """Value of the field while the metric is no higher than the target."""
    above: Finite
    """Value of the field while it is higher."""
    metric: str = "entropy"
    """Where it is read."""

    def start(self) -> dict[str, float]:
        return {"metric": 0.0}

    def value(self, metric: float) -> float:
        """What the field is at a value of the metric."""
        return self.below if metric <= self.target else self.above

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        metric = metrics.get(self.metric, state["metric"])
        return recipe.set(self.field, self.value(metric)), {"metric": metric}
