"""Prompts from several sources: in which order they come, and what the log says of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from policyopt.engine.streams import stream_key, uniforms
from policyopt.errors import UserError
from policyopt.items import Example, Task
from policyopt.recipe import Recipe
from policyopt.rows import Batch

Order = Callable[[int], int]
"""From the number of prompts taken so far to the example that comes next."""

_BLOCK = 4096


def check_weights(recipe: Recipe, task: Task) -> None:
    """Raises :class:`~policyopt.errors.UserError` where weights and a curriculum both say which prompts come."""
    if task.weights and recipe.curriculum is not None:
        name = type(recipe.curriculum).__name__
        raise UserError(
            f"{recipe.name}: its curriculum {name} chooses the prompts, so that weights of {task.name} mean nothing: leave them out"
        )


def order_of(examples: Sequence[Example], seed: int, weights: Mapping[str, float]) -> Order:
    """Every example once per pass; with weights, the sources by chance in proportion to them, and the examples of each
    once per pass of it. It follows from the seed alone, so that a resumed run goes on where it stopped.

    Raises :class:`~policyopt.errors.UserError` for a source of which no example is left to train on.
    """
    if not weights:
        return Passes(len(examples), seed)
    members: dict[str, list[int]] = {name: [] for name in weights}
    for i, e in enumerate(examples):
        members[e.source].append(i)
    if empty := [name for name, found in members.items() if not found]:
        raise UserError(f"all rows of {empty[0]} are held out: add rows, or name held-out rows by --eval-task")
    return Mixed(list(members.values()), list(weights.values()), seed)


class Passes:
    """Every number below ``count`` once per pass, in an order that follows from the key and the pass."""

    def __init__(self, count: int, *key: int) -> None:
        self.count, self.key = count, key
        self._order: tuple[int, np.ndarray] | None = None

    def __call__(self, cursor: int) -> int:
        """The number at a place, counted over all passes."""
        epoch, place = divmod(cursor, self.count)
        if self._order is None or self._order[0] != epoch:
            seed, *rest = self.key
            self._order = (epoch, np.random.default_rng((seed, epoch, *rest)).permutation(self.count))
        return int(self._order[1][place])


class Mixed:
    """Sources by chance, in proportion to their weights; within each source, passes over it."""

    def __init__(self, members: Sequence[Sequence[int]], weights: Sequence[float], seed: int) -> None:
        self.members = members
        self.passes = [Passes(len(m), seed, source + 1) for source, m in enumerate(members)]
        self._key = np.array([stream_key((seed, -2))], dtype=np.uint64)
        self._bounds = np.cumsum(weights)[:-1] / sum(weights)
        self._chosen = np.zeros(0, dtype=np.int64)
        self._earlier = np.zeros(0, dtype=np.int64)
        """How often the source of each place was chosen before it."""

    def __call__(self, cursor: int) -> int:
        """The number of the example at a place, counted over all passes."""
        while cursor >= len(self._chosen):
            self._extend()
        source = int(self._chosen[cursor])
        return self.members[source][self.passes[source](int(self._earlier[cursor]))]

    def _extend(self) -> None:
        places = np.arange(len(self._chosen), max(_BLOCK, 2 * len(self._chosen)))
        fresh = np.searchsorted(self._bounds, uniforms(self._key, places), side="right")
        self._chosen = np.concatenate([self._chosen, fresh])
        self._earlier = np.zeros_like(self._chosen)
        for source in range(len(self.members)):
            mine = self._chosen == source
            self._earlier[mine] = np.arange(int(mine.sum()))


# What the log says ---------------------------------------------------------------------------------------------------


def source_metrics(batch: Batch) -> dict[str, float]:
    """Of the sources of a mixture: the share of the rows that each has, and their mean reward and accuracy where they were
    judged."""
    rows: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(batch.records or ()):
        if name := record.get("source"):
            rows[name].append(i)
    reward = batch.total_reward() if batch.correct is not None else None
    out: dict[str, float] = {}
    for name in sorted(rows):
        at = torch.tensor(rows[name], device=batch.mask.device)
        out[f"source[{name}]/share"] = len(at) / len(batch)
        if reward is not None:
            out[f"source[{name}]/reward"] = float(reward[at].nanmean())
            out[f"source[{name}]/accuracy"] = float(batch.correct[at].mean())
    return out


def accuracy_by_source(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """``accuracy/NAME`` of judged responses to the questions of each source of a mixture."""
    right: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        if name := record.get("source"):
            right[name].append(bool(record["correct"]))
    return {f"accuracy/{name}": sum(found) / len(found) for name, found in sorted(right.items())}
