"""A value that answers to what is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from policyopt.part import Controller, part


@part
class Follows(Controller):
    """A field that moves whenever a metric was measured in the last step, and stays where it is when it was not.

    A controller of this kind says in :meth:`follow` where it goes.
    """

    metric: str = dataclasses.field(kw_only=True)
    """Where it reads."""

    def __call__(self, value: Any, metrics: Mapping[str, float], state: dict[str, float]) -> Any:
        if self.metric not in metrics:
            return value
        return self.follow(value, metrics[self.metric], metrics)

    def follow(self, value: Any, measured: float, metrics: Mapping[str, float]) -> Any:
        """What the field holds at the next step, given what it holds now and the metric; ``metrics`` are all of them."""
        raise NotImplementedError
