"""A value as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from policyopt.part import Controller, Count, Finite, Whole, part
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
