"""What cases call things in CPL with Step-APO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.tree.cpl_step_apo import Plan, PlanSearch
from policyopt.sources.program import Response

from ._pairs import KEYS as KEYS
from ._pairs import told


def _steps(given: Mapping[str, Any]) -> dict[str, Any]:
    """Steps in pairs, none of which ends its response; the reward of a step is its value, and no critic is asked."""
    found = told(given)
    reward = [*given["q_chosen"], *given["q_rejected"]]
    params = {**found["params"], "by": "reward"}
    return found | {"reward": reward, "truncated": [1.0] * len(reward), "params": params}


def _search(given: Mapping[str, Any]) -> dict[str, Any]:
    """A node of a search, and its children."""
    search, text = PlanSearch(c=given["params"]["c_puct"]), Response([], [], [])
    node = Plan(text, visits=given["parent_visits"])
    node.children = [Plan(text, node, value=c["q"], visits=c["visits"], prior=c["prior"]) for c in given["children"]]
    chosen = search.select(node)
    return {
        "puct": [search.puct(child, node.visits) for child in node.children],  # type: ignore[arg-type]
        "select": None if chosen is None else node.children.index(chosen),
    }


GIVEN = {"preference_loss": _steps}
CASES = {"sampler": _search}
