"""Controllers that hold a metric at a target, or follow what it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from policyopt.parts.base import Controller, Finite, NonNegative, part
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


@part
class TargetGap(Thermostat):
    r"""A field that is the distance of a metric from its target, :math:`\mathrm{clip}(target - m, -above, below)`.

    The metric is read as in :class:`Thermostat`. Source: DCPO, arXiv:2601.12730, and the authors' code
    (597358816/DCPO).
    """

    below: NonNegative = 0.1
    """Largest distance while the metric is below the target."""
    above: NonNegative = 0.1
    """Largest distance while it is above."""

    def value(self, metric: float) -> float:
        return min(max(self.target - metric, -self.above), self.below)


def two_phases(step: float, steps: int, drop: float = 0.2, rate: float = 2.0, decay: float = 3.0) -> float:
    r"""A slow decline over the first half of a run and a fast one over the second, with a step between them.

    .. math:: w = 1 - d\,(1 - e^{-r s/h})\ (s \le h),\qquad w = (1-d)\,e^{-k (s-h)/(S-h)}\ (s > h),\qquad h = \lfloor S/2\rfloor
    """
    half = steps // 2
    if step <= half:
        return 1 - drop * (1 - math.exp(-rate * step / half))
    return (1 - drop) * math.exp(-decay * (step - half) / (steps - half))


@part
class TwoPhases(Controller):
    """A field on the course of :func:`two_phases`. Source: EPO, arXiv:2509.22576, the authors' code (WujiangXu/EPO)."""

    field: str
    """Path of the field."""
    steps: Annotated[int, Field(ge=2)] = 150
    """Steps of the run; the value stays from there on."""

    def start(self) -> dict[str, float]:
        return {"step": 0.0}

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        value = two_phases(min(state["step"], self.steps), self.steps)
        return recipe.set(self.field, value), {"step": state["step"] + 1}


@part
class FirstValue(Controller):
    """A field that takes the first value of a metric and keeps it. Source: SIREN, arXiv:2509.25133 (its anchor)."""

    field: str
    """Path of a field that is None until then."""
    metric: str
    """What is measured."""

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        if recipe.get(self.field) is not None or self.metric not in metrics:
            return recipe, state
        return recipe.set(self.field, metrics[self.metric]), state


@part
class TurnHistory(Controller):
    r"""The mean entropy of each turn over all steps so far, as a tuple: turn u is entry u.

    Reads ``turn/u/entropy`` over ``turn/u/share`` (:class:`~policyopt.parts.entropy.EntropyBand`). Source: EPO,
    arXiv:2509.22576. Our reading: a turn that a step did not reach is left out of its mean (the authors' code keeps
    generating for finished episodes), and the step under way is not in it.
    """

    field: str = "regularizers.0.history"
    """Path of the tuple."""

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        state = dict(state)
        for u in range(sum(name.endswith("/share") for name in metrics)):
            share = metrics.get(f"turn/{u}/share", 0.0)
            if share > 0:
                state[f"sum/{u}"] = state.get(f"sum/{u}", 0.0) + metrics[f"turn/{u}/entropy"] / share
                state[f"steps/{u}"] = state.get(f"steps/{u}", 0.0) + 1
        seen = sum(name.startswith("steps/") for name in state)
        return recipe.set(self.field, tuple(state[f"sum/{u}"] / state[f"steps/{u}"] for u in range(seen))), state
