"""What cases call things in ARPO (agentic)."""

from __future__ import annotations

from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.tree.arpo_agentic import SharedAdvantage
from policyopt.rows import Batch
from policyopt.sources.draw.tree import numbered

from ._grown import on_batch, table


def _grow(run: Run) -> Batch:
    """The node of each token is given: this is the hard form of the advantage."""
    own: Any = run.recipe.advantage
    run.recipe = run.recipe.replace(advantage=own if isinstance(own, SharedAdvantage) else SharedAdvantage(own=own))
    # A response ends with its last token that is trained on: what a tool says in between is masked.
    length = [max((t for t, x in enumerate(row, 1) if x), default=0) for row in run.batch.mask.tolist()]
    # Two rows share a token where both have it from the same node; a row may leave another's node before its end.
    rows = [[*enumerate(row[:n])] for row, n in zip(run.given["node"], length, strict=True)]
    return run.batch.replace(node=table(numbered(rows)), node_end=table([[t + 1 for t, _ in row] for row in rows]))


def _rule(run: Run) -> Any:
    return run.recipe.get("source.branching")


def _jumps(run: Run) -> list[float]:
    """The rise of each path's normalised entropy after a tool."""
    return [
        now - start for now, start in zip(run.given["entropy_after_tool"], run.given["entropy_initial"], strict=True)
    ]


def _branches(run: Run) -> list[int]:
    """How often each path forks, given the random numbers."""
    rule = _rule(run)
    made: list[int] = rule.forks(
        _jumps(run), [row[: rule.beam - 1] for row in run.given["uniform"]], run.params["slots"]
    )
    return made


COLUMNS = dict.fromkeys(("node", "entropy_after_tool", "entropy_initial", "uniform"), ("", "free"))
PARAMS = {"slots": None, "branches_per_step": lambda more: {"beam": 1 + more}}
KEYS = {
    **on_batch(_grow, {"advantage_row": lambda run: run.part("advantage").own(run.shaped)}),
    "delta_entropy": _jumps,
    "branch_probability": lambda run: [_rule(run).probability(jump) for jump in _jumps(run)],
    "branches": _branches,
    "slots_left": lambda run: run.params["slots"] - sum(_branches(run)),
}
