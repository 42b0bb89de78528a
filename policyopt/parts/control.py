"""Controllers: what changes a field of the recipe between steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from policyopt.parts.base import Controller, Count, Finite, Fraction, Positive, Whole, part
from policyopt.recipe import Recipe


@part
class Schedule(Controller):
    """A field as a function of the step: ``start_value`` until ``delay`` steps are done, on its way for ``steps``
    steps, then ``end_value``."""

    field: str
    """Path of the field, for example ``surrogate.high``."""
    start_value: Finite
    """Value at the first step."""
    end_value: Finite
    """Value from step ``delay + steps`` on."""
    steps: Count
    """Length of the way."""
    shape: Literal["linear", "cosine", "exponential", "reciprocal"] = "linear"
    """How it gets there; exponential (equal factors in equal times) and reciprocal (one over the value goes linearly)
    are for two values above 0."""
    delay: Whole = 0
    """Steps before it sets off."""
    stairs: Count | None = None
    """Go in this many jumps, each at the beginning of its share of the way; None goes smoothly."""
    whole: bool = False
    """Round down to a whole number."""
    least: Finite | None = None
    """No value is smaller, whatever comes of the rest."""

    def __post_init__(self) -> None:
        if self.shape in ("exponential", "reciprocal") and min(self.start_value, self.end_value) <= 0:
            raise ValueError(f"shape {self.shape!r} needs start_value and end_value above 0")

    def start(self) -> dict[str, float]:
        return {"step": 0.0}

    def value(self, step: float) -> float:
        """The field at a step, counted from 0."""
        done = min(max(step - self.delay, 0) / self.steps, 1.0)
        if self.stairs is not None:
            done = math.ceil(self.stairs * done - 1e-9) / self.stairs
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        first, last = self.start_value, self.end_value
        value = first * (last / first) ** done if self.shape == "exponential" else first + done * (last - first)
        if self.shape == "reciprocal":
            value = 1 / (1 / first + done * (1 / last - 1 / first))
        value = last if done == 1 else value
        value = math.floor(value) if self.whole else value
        return value if self.least is None else max(self.least, value)

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        return recipe.set(self.field, self.value(state["step"])), {"step": state["step"] + 1}


def scheduled(recipe: Recipe, step: float) -> Recipe:
    """The recipe as its schedules have it at a step, counted from 0; its other controllers do nothing."""
    for controller in recipe.controllers:
        if isinstance(controller, Schedule):
            recipe = recipe.set(controller.field, controller.value(step))
    return recipe


@part
class DualAscent(Controller):
    r"""A Lagrange multiplier that learns to hold a metric at or below a limit.

    .. math:: \lambda \leftarrow \max\big(0,\; \lambda + \eta\,(m - limit)\big)

    While the metric lies below the limit, the multiplier falls to 0 and stays there. Source: projected gradient ascent on
    the dual; R2VPO, arXiv:2601.03320 (the variance of the ratio). Our reading: one step per batch, with the mean of the
    metric over the updates on it.
    """

    field: str = "regularizers.0.coef"
    """Path of the multiplier."""
    metric: str = "proximal/chi2"
    """What is held down."""
    limit: Finite = 0.01
    """Where it is held."""
    lr: Positive = 0.1
    """eta."""

    def updated(self, multiplier: float, measured: float) -> float:
        """The multiplier after a measurement."""
        return max(0.0, multiplier + self.lr * (measured - self.limit))

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        if self.metric not in metrics:
            return recipe, state
        return recipe.set(self.field, self.updated(recipe.get(self.field), metrics[self.metric])), state


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
