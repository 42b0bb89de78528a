"""A value as a function of the step."""

from __future__ import annotations

import math
from typing import Literal

from policyopt.control.by_step import ByStep
from policyopt.part import Count, Finite, Whole, part

Values = tuple[Finite, ...]


@part
class Schedule(ByStep):
    """A field as a function of the step: ``start_value`` until ``delay`` steps are done, on its way for ``steps``
    steps, then ``end_value``.

    A field that holds several numbers has a tuple at either end, and each number goes its own way.
    """

    start_value: Finite | Values
    """Value at the first step."""
    end_value: Finite | Values
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
    most: Finite | None = None
    """No value is larger."""

    def __post_init__(self) -> None:
        first, last = self.start_value, self.end_value
        ends = (*_several(first), *_several(last))
        if isinstance(first, tuple) != isinstance(last, tuple) or len(ends) != 2 * len(_several(first)):
            raise ValueError(f"start_value {first} and end_value {last} must hold equally many numbers")
        if self.shape in ("exponential", "reciprocal") and min(ends) <= 0:
            raise ValueError(f"shape {self.shape!r} needs start_value and end_value above 0")

    def value(self, step: float) -> float | tuple[float, ...]:
        """The field at a step, counted from 0."""
        first, last = self.start_value, self.end_value
        values = tuple(self._between(a, b, step) for a, b in zip(_several(first), _several(last), strict=True))
        return values if isinstance(first, tuple) else values[0]

    def _between(self, first: float, last: float, step: float) -> float:
        """One number at a step, on its way from ``first`` to ``last``."""
        done = min(max(step - self.delay, 0) / self.steps, 1.0)
        if self.stairs is not None:
            done = math.ceil(self.stairs * done - 1e-9) / self.stairs
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        value = first * (last / first) ** done if self.shape == "exponential" else first + done * (last - first)
        if self.shape == "reciprocal":
            value = 1 / (1 / first + done * (1 / last - 1 / first))
        value = last if done == 1 else value
        value = math.floor(value) if self.whole else value
        value = value if self.least is None else max(self.least, value)
        return value if self.most is None else min(self.most, value)


def _several(value: float | Values) -> Values:
    return value if isinstance(value, tuple) else (value,)
