"""What cases call things in SPO (Segment Policy Optimization)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.lens.given import Malformed
from policyopt.methods.tree.spo_segment import cutpoints
from policyopt.parts.advantage.tree import FLAT, node_values
from policyopt.rows import Batch, make_batch

from ._grown import on_batch, table


def _cuts(run: Run) -> list[list[int]]:
    rollout = run.recipe.source
    rows = [x[m.bool()].tolist() for x, m in zip(run.batch.old_logp, run.batch.mask, strict=True)]
    return [cutpoints(row, rollout.threshold, rollout.interval) for row in rows]  # type: ignore[attr-defined]


def _grow(run: Run) -> Batch:
    """Each response is a path of its own, whose nodes end at the cuts."""
    if "cut_values" not in run.given:
        return run.batch
    cuts, values = _cuts(run), run.given["cut_values"]
    for i, (at, value) in enumerate(zip(cuts, values, strict=True)):
        if len(at) != len(value):
            raise Malformed(f"given.cut_values[{i}]: expected {len(at)} numbers, one for each cut, got {len(value)}")
    ends = [[*at, int(size)] for at, size in zip(cuts, run.batch.mask.sum(-1), strict=True)]
    return run.batch.replace(
        node=table([[1 + i + j * len(cuts) for j in range(len(row))] for i, row in enumerate(ends)]),
        node_end=table(ends),
        node_value=table([[*row, math.nan] for row in values], torch.float64),
    )


def _ways(parent: list[int]) -> list[list[int]]:
    """The nodes that the way to each leaf passes, the root left out."""
    ways = []
    for node in (i for i in range(len(parent)) if i not in parent):
        way = []
        while parent[node] >= 0:
            way.append(node)
            node = parent[node]
        ways.append(way[::-1])
    return ways


def _tree(run: Run) -> Batch:
    """The leaves of one tree, whose nodes are given by their parents."""
    ways, reward = _ways(run.given["parent"]), run.given["leaf_reward"]
    return make_batch(
        mask=torch.ones(len(ways), 1, dtype=torch.float64),
        reward=torch.tensor([float(reward[way[-1]]) for way in ways], dtype=torch.float64),
        group=torch.zeros(len(ways), dtype=torch.long),
        node=table([[i + 1 for i in way] for way in ways]),
    )


def _of_nodes(run: Run, x: torch.Tensor, first: float | None = None) -> list[float | None]:
    """A number [N, D] of each place of the leaves' ways as one of each node; ``first`` is the root's."""
    parent = run.given["parent"]
    found = {node: float(x[row, d]) for row, way in enumerate(_ways(parent)) for d, node in enumerate(way)}
    return [first if above < 0 else found[node] for node, above in enumerate(parent)]


def _edges(run: Run, scale: str) -> list[float | None]:
    """The advantage of the edge to each node."""
    part: Any = dataclasses.replace(run.part("advantage"), scale=scale)
    return _of_nodes(run, part.edges(run.batch))


def _values(run: Run) -> list[float | None]:
    values = node_values(run.batch, run.part("advantage").values)
    return _of_nodes(run, values[:, 1:], float(values[0, 0]))


def _grown(run: Run) -> Batch:
    return _tree(run) if "parent" in run.given else _grow(run)


def _whole(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "params": {**(given.get("params") or {}), "variant": "tree"}}


COLUMNS = dict.fromkeys(("cut_values", "parent", "leaf_reward"), ("", "free"))
GIVEN = {"value_target": _whole}
KEYS = on_batch(
    _grown,
    {
        "cutpoints": _cuts,
        "value": _values,
        "edge_advantage": lambda run: _edges(run, "none"),
        "edge_advantage_std": lambda run: _edges(run, "siblings"),
        "kept_edges": lambda run: [i for i, x in enumerate(_edges(run, "none")) if abs(x or 0.0) > FLAT],
        "segment_advantage": lambda run: dataclasses.replace(run.part("advantage"), only=None, whiten=False)(
            run.shaped
        ),
        "prob_mask": lambda run: run.part("weight.MeanOver").tokens(run.batch).double(),
    },
)
