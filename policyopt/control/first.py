"""A value that is the first one that was measured."""

from __future__ import annotations

from collections.abc import Mapping

from policyopt.control.follows import Follows
from policyopt.part import part


@part
class FirstValue(Follows):
    """A field that is None until it takes the first value of a metric, and keeps it.

    Sources: SIREN, arXiv:2509.25133 (its anchor); GTPO, arXiv:2508.03772 (the entropy of the initial policy).
    """

    def follow(self, value: float | None, measured: float, metrics: Mapping[str, float]) -> float:
        return measured if value is None else value
