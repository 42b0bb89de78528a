"""The page of mpo-meta."""

from __future__ import annotations

import json

from policyopt.methods.judge.mpo_meta import Criterion, Refinement, merge, mpo_meta, within
from policyopt.steering import States, control

# Rubrics -------------------------------------------------------------------------------------------------------------


def test_a_rubric_is_rewritten_from_what_was_seen_and_goes_on_after_a_restart() -> None:
    recipe = mpo_meta(interval=2, group_size=2)
    controller = recipe.controllers[0]
    assert isinstance(controller, Refinement)
    states: States = {}
    versions = []
    metrics: dict[str, float] = {}
    for _ in range(6):
        recipe = control(recipe, metrics, states := json.loads(json.dumps(states)))
        versions.append([c.scale for c in recipe.get("shape.Rubric.items")])
        metrics = {"accuracy": 0.1, "format": 1.0}
    assert versions == [[5, 5], [5, 5], [5, 5], [6, 4], [6, 4], [7, 3]]
    assert [controller.version(u) for u in range(6)] == [0, 0, 0, 1, 1, 2]


def test_proposals_are_merged_whole_and_without_duplicates() -> None:
    assert within([5, 5, 1], 10) == [0, 1]
    assert within([11], 10) == []
    a, b = Criterion(name="a", scale=2), Criterion(name="b", scale=4)
    assert merge((a,), [(a, b), (Criterion(name="a", scale=4),)]) == (Criterion(name="a", scale=3), b)
    assert merge((a,), []) == (a,)
