"""What cases call things in ReST-RL."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest
from policyopt.sources.draw.search import Node
from policyopt.sources.program import Response


def _rule(run: Run) -> ResumedFromBest:
    """Which prompts stay, and which beginnings of their best response are gone on from."""
    rollout: Any = run.recipe.source
    found: ResumedFromBest = dataclasses.replace(rollout, size=len(run.given["reward"][0]))
    return found


def _resumed(run: Run) -> list[bool]:
    return [_rule(run).resumes(rewards) for rewards in run.given["reward"]]


def _lines(run: Run) -> list[int]:
    """The lines of each best response that is gone on from."""
    return [n if yes else 0 for n, yes in zip(run.given["best_lines"], _resumed(run), strict=True)]


def _children(given: Mapping[str, Any]) -> Node:
    """A node with children, of which one is to be chosen."""
    parent = Node(_TEXT, visits=given["parent_visits"])
    known = zip(given["value"], given["visits"], given["visible"], strict=True)
    parent.children = [Node(_TEXT, value=value, visits=n, visible=bool(seen)) for value, n, seen in known]
    return parent


def _path(given: Mapping[str, Any]) -> list[Node]:
    """A path after the rewards at its end were passed back."""
    path: list[Node] = []
    for total, visits in zip(given["path_sum"], given["path_visits"], strict=True):
        path.append(Node(_TEXT, path[-1] if path else None, total=total, visits=visits))
    path[-1].note(sum(given["rollout_reward"]), len(given["rollout_reward"]))
    return path


def _search(run: Run) -> Any:
    return run.recipe.source


def _uct(run: Run) -> list[float]:
    parent = _children(run.given)
    return [_search(run).uct(child.value, child.visits, parent.visits) for child in parent.children]


def _selected(run: Run) -> int:
    parent = _children(run.given)
    return parent.children.index(_search(run).select(parent))


def _stage(stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "params": {**given["params"], "stage": stage}}


_TEXT = Response([], [], [])
_FREE = ("best_lines", "value", "visits", "visible", "parent_visits", "path_sum", "path_visits", "rollout_reward")
COLUMNS = dict.fromkeys(("reward", *_FREE), ("", "free"))
PARAMS = {"std_ddof": "source.ddof", "eps": "source.eps"}
GIVEN = {"sampler": partial(_stage, "policy"), "other": partial(_stage, "value")}
KEYS = {
    "keep_prompt": lambda run: [int(_rule(run).keeps(rewards)) for rewards in run.given["reward"]],
    "keep_prefixes": lambda run: [int(yes) for yes in _resumed(run)],
    "prefix_weight": lambda run: [_rule(run).weights(n) for n in _lines(run)],
    "num_prefixes": lambda run: [_rule(run).count(n) for n in _lines(run)],
    "uct": _uct,
    "selected": _selected,
    "path_value": lambda run: [node.value for node in _path(run.given)],
    "path_visits": lambda run: [node.visits for node in _path(run.given)],
}
