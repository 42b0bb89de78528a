"""What cases call things in ReST-RL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest
from policyopt.methods.tree.rest_rl.search import Node, Search
from policyopt.sources.program import Response


def _select(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which prompts stay, and which beginnings of their best response are gone on from."""
    params = given["params"]
    rule = ResumedFromBest(
        size=len(given["reward"][0]), std_min=params["std_min"], ddof=params["std_ddof"],
        reward_min=params["reward_min"], alpha=params["alpha"], ratio=params["ratio"],
    )  # fmt: skip
    resumed = [rule.resumes(rewards) for rewards in given["reward"]]
    lines = [n if yes else 0 for n, yes in zip(given["best_lines"], resumed, strict=True)]
    return {
        "keep_prompt": [int(rule.keeps(rewards)) for rewards in given["reward"]],
        "keep_prefixes": [int(yes) for yes in resumed],
        "prefix_weight": [rule.weights(n) for n in lines],
        "num_prefixes": [rule.count(n) for n in lines],
    }


def _uct(given: Mapping[str, Any]) -> dict[str, Any]:
    """One choice among children, and one back-propagation."""
    search, text = Search(c=given["params"]["c"], eps=given["params"]["eps"]), Response([], [], [])
    known = zip(given["value"], given["visits"], given["visible"], strict=True)
    children = [Node(text, value=value, visits=n, visible=bool(seen)) for value, n, seen in known]
    parent = Node(text, visits=given["parent_visits"], children=children)
    path: list[Node] = []
    for total, visits in zip(given["path_sum"], given["path_visits"], strict=True):
        path.append(Node(text, path[-1] if path else None, total=total, visits=visits))
    path[-1].note(sum(given["rollout_reward"]), len(given["rollout_reward"]))
    return {
        "uct": [search.uct(child.value, child.visits, parent.visits) for child in children],
        "selected": children.index(search.select(parent)),
        "path_value": [node.value for node in path],
        "path_visits": [node.visits for node in path],
    }


CASES = {"sampler": _select, "other": _uct}
