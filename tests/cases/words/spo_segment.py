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
from policyopt.parts import EdgeAdvantage
from policyopt.parts.advantage.tree import FLAT, node_values
from policyopt.rows import Batch, make_batch

from ._grown import on_tree, table


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


def _tree(given: Mapping[str, Any]) -> dict[str, Any]:
    """The worth of the nodes of one tree, each given by its parent."""
    parent, reward = given["parent"], given["leaf_reward"]
    leaves = [i for i in range(len(parent)) if i not in parent]
    ways = []
    for node in leaves:
        way = []
        while parent[node] >= 0:
            way.append(node)
            node = parent[node]
        ways.append(way[::-1])
    batch = make_batch(
        mask=torch.ones(len(leaves), 1, dtype=torch.float64),
        reward=torch.tensor([float(reward[i]) for i in leaves], dtype=torch.float64),
        group=torch.zeros(len(leaves), dtype=torch.long),
        node=table([[i + 1 for i in way] for way in ways]),
    )
    plain = EdgeAdvantage(values="children", eps=given["params"].get("eps", 1e-8))
    scaled = dataclasses.replace(plain, scale="siblings")
    root = next(i for i, p in enumerate(parent) if p < 0)
    value: dict[int, float] = {root: float(node_values(batch, "children")[0, 0])}
    edge: dict[int, float] = {}
    edge_std: dict[int, float] = {}
    values, gain, gain_std = node_values(batch, "children"), plain.edges(batch), scaled.edges(batch)
    for row, way in enumerate(ways):
        for d, node in enumerate(way):
            value[node], edge[node] = float(values[row, d + 1]), float(gain[row, d])
            edge_std[node] = float(gain_std[row, d])
    nodes = range(len(parent))
    return {
        "value": [value[i] for i in nodes],
        "edge_advantage": [edge.get(i) for i in nodes],
        "edge_advantage_std": [edge_std.get(i) for i in nodes],
        "kept_edges": [i for i in nodes if abs(edge.get(i, 0.0)) > FLAT],
    }


COLUMNS = {"cut_values": ("node_value", "free")}
KEYS = on_tree(
    _grow,
    {
        "cutpoints": _cuts,
        "segment_advantage": lambda run: dataclasses.replace(run.part("advantage"), only=None, whiten=False)(
            run.shaped
        ),
        "prob_mask": lambda run: run.part("weight.0").tokens(run.batch).double(),
    },
)
CASES = {"value_target": _tree}
