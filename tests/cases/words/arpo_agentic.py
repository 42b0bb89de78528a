"""What cases call things in ARPO (agentic)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.tree.arpo_agentic import SharedAdvantage, arpo_agentic
from policyopt.rows import Batch
from policyopt.sources.draw.tree import numbered

from ._grown import on_tree, table


def _grow(run: Run) -> Batch:
    """The node of each token is given: this is the hard form of the advantage."""
    own: Any = run.recipe.advantage
    run.recipe = run.recipe.replace(advantage=own if isinstance(own, SharedAdvantage) else SharedAdvantage(own=own))
    length = [int(n) for n in run.batch.mask.sum(-1)]
    # Two rows share a token where both have it from the same node; a row may leave another's node before its end.
    rows = [[*enumerate(row[:n])] for row, n in zip(run.given["node"], length, strict=True)]
    return run.batch.replace(node=table(numbered(rows)), node_end=table([[t + 1 for t, _ in row] for row in rows]))


def _branch(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which paths fork, given their normalised entropies and random numbers."""
    params = given["params"]
    recipe = arpo_agentic(alpha=params["alpha"], beta=params["beta"], beam=1 + params["branches_per_step"])
    rule: Any = recipe.get("source.branching")
    jumps = [now - start for now, start in zip(given["entropy_after_tool"], given["entropy_initial"], strict=True)]
    draws = [row[: rule.beam - 1] for row in given["uniform"]]
    made = rule.forks(jumps, draws, params["slots"])
    return {
        "delta_entropy": jumps,
        "branch_probability": [rule.probability(jump) for jump in jumps],
        "branches": made,
        "slots_left": params["slots"] - sum(made),
    }


COLUMNS = {"node": ("node", "free")}
KEYS = on_tree(_grow, {"advantage_row": lambda run: run.part("advantage").own(run.shaped)})
CASES = {"sampler": _branch}
