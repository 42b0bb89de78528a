"""What cases call things in TreePO."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.rows import Batch
from policyopt.sources.draw.tree import numbered

from ._grown import on_batch, table


def _grow(run: Run) -> Batch:
    """A node is the child indices that lead to it; without a budget the rewards are whole."""
    if run.batch.budget is None:
        run.recipe = run.recipe.replace(shape=())
    ways = [[tuple(path[: d + 1]) for d in range(len(path))] for path in run.given["path"]]
    nodes = table(numbered(ways))
    return run.batch.replace(node=nodes, node_end=nodes * 0)


def _terms(run: Run) -> list[list[float]]:
    gain, weight = run.part("advantage").terms(run.shaped)
    return [row[w > 0].tolist() for row, w in zip(gain, weight, strict=True)]


COLUMNS = {"path": ("node", "free")}
PARAMS = {"weight": lambda name: {"weight": {"group_size": "size"}.get(name, name)}}
KEYS = on_batch(_grow, {"terms": _terms, "raw": lambda run: run.part("advantage").raw(run.shaped)})
