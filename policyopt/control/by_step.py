"""A value that follows from the step alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.part import Controller, part


@part
class ByStep(Controller):
    """A field as a function of the step; a controller of this kind says in :meth:`value` which."""

    def start(self) -> dict[str, float]:
        return {"step": 0.0}

    def __call__(self, value: Any, metrics: Mapping[str, float], state: dict[str, float]) -> Any:
        now = self.value(state["step"])
        state["step"] += 1
        return now

    def value(self, step: float) -> Any:
        """The field at a step, counted from 0."""
        raise NotImplementedError
