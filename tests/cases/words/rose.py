"""What cases call things in ROSE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.methods.tree.rose import semantic_divergence
from policyopt.parts import EdgeAdvantage
from policyopt.parts.advantage.tree import depth, node_values
from policyopt.rows import Batch
from policyopt.sources.draw.tree import numbered, way, writer

from ._grown import on_batch, table


def _grow(run: Run) -> Batch:
    """Rows that leave others after so many tokens."""
    origin = list(zip(run.given["parent"], run.given["branch_pos"], strict=True))
    origin = [(row, kept if row >= 0 else 0) for row, kept in origin]
    cuts = {writer(row, kept, origin) for row, kept in origin if row >= 0 and kept}
    ways = [way(i, int(size), origin, cuts) for i, size in enumerate(run.batch.mask.sum(-1))]
    return run.batch.replace(node=table(numbered(ways)), node_end=table([[end for _, end in w] for w in ways]))


def _values(run: Run) -> list[list[float]]:
    values = node_values(run.shaped)
    return [row[: n + 1].tolist() for row, n in zip(values, depth(run.shaped).tolist(), strict=True)]


def _semantic(given: Mapping[str, Any]) -> dict[str, Any]:
    """Places of a response, by the distributions of their tokens."""
    p, vectors = (torch.tensor(given[name], dtype=torch.float64) for name in ("probs", "embedding"))
    best = p.topk(min(given["params"]["top_k"], p.shape[-1]))
    entropy = torch.special.entr(p).sum(-1)
    divergence = semantic_divergence(best.values, vectors[best.indices])
    return {
        "entropy": entropy,
        "semantic_divergence": divergence,
        "semantic_entropy": entropy * divergence,
        "branch_position": int((entropy * divergence).argmax()),
    }


COLUMNS = {"parent": ("node", "free"), "branch_pos": ("node_end", "free")}
KEYS = on_batch(_grow, {"node_values": _values, "advantage_before_length": lambda run: EdgeAdvantage()(run.shaped)})
CASES = {"metric": _semantic}
