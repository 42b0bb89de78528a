"""Rewards of several judges, and their weighted sum."""

from __future__ import annotations

from collections.abc import Iterable

from policyopt import schema
from policyopt.part import Finite, Shape, part
from policyopt.rows import Batch

OWN = frozenset({"correct", "formatted"})
"""Components that every judge has."""


def own(names: Iterable[str]) -> frozenset[str]:
    """Which of the named components are columns of the batch, whoever judges: the verdict's own, and numbers of a program."""
    found = {name: schema.find(name) for name in names}
    return frozenset(n for n, c in found.items() if n in OWN or (c and (c.filled_by, c.axes) == ("program", "N")))


def silent(batch: Batch, names: Iterable[str]) -> bool:
    """Whether the judge gives no components at all, though some of these names are none that every judge has."""
    asked = set(names) - own(names)
    return bool(asked) and not batch.members("component") and not asked & batch.components().keys()


@part
class WeightedSum(Shape):
    r"""A weighted sum of components in the place of the score, :math:`R = \sum_k w_k c_k`.

    Where the judge gives no components and some are asked for, its score stays. Sources: RL-Struct, arXiv:2512.00319;
    MultiRole-R1, arXiv:2507.20187; Listener-Rewarded Thinking, arXiv:2506.22832.
    """

    weights: tuple[tuple[str, Finite], ...] = (("correct", 1.0), ("formatted", 0.1))
    """Name and weight of each component."""

    @property
    def needs(self) -> frozenset[str]:
        """What every judge says, and what programs say, as far as it counts."""
        return own(name for name, _ in self.weights)

    def __call__(self, batch: Batch) -> Batch:
        if silent(batch, {name for name, _ in self.weights}):
            return batch
        return batch.replace(reward=sum((w * batch.component(name) for name, w in self.weights), 0 * batch.reward))
