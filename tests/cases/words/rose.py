"""What cases call things in ROSE."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.tree.rose import semantic_divergence
from policyopt.parts import EdgeAdvantage
from policyopt.parts.advantage.tree import depth, node_values
from policyopt.rows import Batch
from policyopt.sources.draw import Embedder
from policyopt.sources.draw.tree import numbered, way, writer
from policyopt.sources.program import Response

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


class _Vectors(Embedder):
    """The vectors of a case."""

    rows: Tensor

    def __call__(self, ids: Tensor, sampler: Any) -> Tensor:
        return self.rows[ids]


def _top(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The entropy of each place, and the probabilities and ids of its likeliest tokens."""
    p = torch.tensor(run.given["probs"], dtype=torch.float64)
    best = p.topk(min(run.recipe.get("source.branching.candidates"), p.shape[-1]))
    return torch.special.entr(p).sum(-1), best.values, best.indices


def _marks(run: Run) -> Tensor:
    """What the rule of branching makes of each place of a response."""
    entropy, p, ids = _top(run)
    embedder = _Vectors()
    object.__setattr__(embedder, "rows", torch.tensor(run.given["embedding"], dtype=torch.float64))
    rule: Any = dataclasses.replace(run.recipe.get("source.branching"), embedder=embedder)
    top = list(zip(ids.tolist(), p.log().tolist(), strict=True))
    piece = Response([0] * len(top), [0.0] * len(top), entropy.tolist(), False, top=top)
    return torch.tensor(rule.mark(piece, None), dtype=torch.float64)


def _divergence(run: Run) -> Tensor:
    vectors = torch.tensor(run.given["embedding"], dtype=torch.float64)
    return semantic_divergence(_top(run)[1], vectors[_top(run)[2]])


COLUMNS = dict.fromkeys(("parent", "branch_pos", "probs", "embedding"), ("", "free"))
KEYS = {
    **on_batch(_grow, {"node_values": _values, "advantage_before_length": lambda run: EdgeAdvantage()(run.shaped)}),
    "entropy": lambda run: _top(run)[0],
    "semantic_divergence": _divergence,
    "semantic_entropy": _marks,
    "branch_position": lambda run: int(_marks(run).argmax()),
}
