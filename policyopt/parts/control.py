"""Controllers: what changes a field of the recipe between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from policyopt.parts.base import Controller, Count, Finite, Fraction, Positive, part
from policyopt.recipe import Recipe


@part
class Schedule(Controller):
    """A field as a function of the step: from ``start_value`` to ``end_value`` over ``steps`` steps, then constant."""

    field: str
    """Path of the field, for example ``surrogate.high``."""
    start_value: Finite
    """Value at the first step."""
    end_value: Finite
    """Value from step ``steps`` on."""
    steps: Count
    """Length of the way."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it gets there."""

    def start(self) -> dict[str, float]:
        return {"step": 0.0}

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        done = min(state["step"] / self.steps, 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        value = self.start_value + done * (self.end_value - self.start_value)
        return recipe.set(self.field, value), {"step": state["step"] + 1}


@part
class AdaptiveKL(Controller):
    r"""Move a KL coefficient so that the measured KL approaches a target.

    .. math:: e = \mathrm{clip}(KL / target - 1, \pm c),\qquad \beta \leftarrow \beta\,(1 + e\,n / horizon)

    n is the number of responses of the step. Source: Ziegler et al., arXiv:1909.08593, section 2.2.
    """

    field: str = "shape.0.coef"
    """Path of the coefficient."""
    target: Positive = 6.0
    """Wanted KL per response, in nats."""
    horizon: Positive = 10_000
    """Responses over which the coefficient can change by a factor of about ``1 + c``."""
    clip: Positive = 0.2
    """Bound c on the proportional error."""
    metric: str = "kl/ref_response"
    """Where the KL is read."""

    def updated(self, coef: float, kl: float, responses: float) -> float:
        """The coefficient after ``responses`` responses with a mean KL of ``kl``."""
        error = min(max(kl / self.target - 1, -self.clip), self.clip)
        return coef * (1 + error * responses / self.horizon)

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        if self.metric not in metrics:
            return recipe, state
        coef = self.updated(recipe.get(self.field), metrics[self.metric], metrics["responses"])
        return recipe.set(self.field, coef), state


@part
class MovingAverage(Controller):
    r"""Keep a field at the moving average of a metric of earlier steps, :math:`b \leftarrow \mu b + (1-\mu)\,m`.

    The value used at a step never contains that step, so as a baseline it leaves the gradient unbiased (Williams 1992).
    """

    field: str = "advantage.baseline"
    """Path of the field."""
    metric: str = "reward/mean"
    """What is averaged."""
    momentum: Fraction = 0.9
    """mu."""

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        if self.metric not in metrics:
            return recipe, state
        value = self.momentum * recipe.get(self.field) + (1 - self.momentum) * metrics[self.metric]
        return recipe.set(self.field, value), state
