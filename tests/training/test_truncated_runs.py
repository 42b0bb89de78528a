"""Runs whose draws are truncated: on-policy in every program, the same bits after a power cut."""

from __future__ import annotations

import dataclasses
import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from policyopt.items import Example, user
from policyopt.methods.exit.s_grpo import s_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.guidance.prefix_rl import prefix_rl
from policyopt.methods.guidance.rlgf import rlgf
from policyopt.methods.tree.arpo_agentic import arpo_agentic
from policyopt.methods.tree.rest_rl import rest_rl
from policyopt.recipe import Recipe
from policyopt.sources.program import Response
from policyopt.training.config import Evaluation
from policyopt.training.run import run
from policyopt.training.services import Held
from tests.commands import lines, write_rows
from tests.runs import assert_same_end, left_behind, power_cut, tiny_run
from tests.tiny import JUDGE


def truncated(recipe: Recipe, **bounds: float) -> Recipe:
    return recipe.replace(source=dataclasses.replace(recipe.source, **bounds))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("task")
    (place / "judge.py").write_text(JUDGE)
    rows = ({"prompt": f"{i}?", "answer": "?", "solution": "12 + 3\n#### ?"} for i in range(24))
    return {"task": str(write_rows(place / "data.jsonl", rows)), "judge": f"{place / 'judge.py'}:score"}


PIECED = {
    "thoughts that are cut": s_grpo(exits=2),
    "beginnings of others": prefix_rl(group_size=4),
    "a guide that goes on": rlgf("aggrevated", group_size=2),
    "trees": arpo_agentic(group_size=4, initial=2, segment=3),
    "a search": rest_rl(group_size=4),
}
"""Programs that put responses together from pieces, each in its own way."""


@pytest.mark.parametrize("kind", PIECED)
def test_pieces_remember_what_they_were_drawn_from(
    kind: str, tiny_model: Path, task: dict[str, str], tmp_path: Path
) -> None:
    recipe = truncated(PIECED[kind], top_k=4)
    config = tiny_run(
        tmp_path / "run", tiny_model, task, recipe, steps=1, batch=2 * recipe.source.size,
        eval=Evaluation(every=0, prompts=2, samples=0),
    )  # fmt: skip
    roles = {name: str(tiny_model) for name in recipe.roles - {"reference", "previous"}}
    run(dataclasses.replace(config, roles=roles), quiet=True)
    [_, row] = lines(config.out / "metrics.jsonl")
    assert row["mismatch/max"] < 1e-4
    assert row["entropy"] < 1.5, "over four tokens it is at most log 4, over all it would be above 2"


def test_a_truncated_run_that_is_cut_ends_with_the_same_bits(
    tiny_model: Path, task: dict[str, str], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "recipe": truncated(grpo(group_size=4), top_p=0.7), "staleness": 1, "steps": 4,
        "eval": Evaluation(every=0, prompts=2, samples=2, k=1, temperature=0.7, top_p=0.9),
    }  # fmt: skip
    whole, cut = (tiny_run(tmp_path / name, tiny_model, task, **settings) for name in ("whole", "cut"))
    run(whole, quiet=True)
    with power_cut(after=3):
        run(cut, quiet=True)
    run(cut, resume=cut.out, quiet=True)
    assert_same_end(cut.out, left_behind(whole.out))


def test_responses_that_are_held_keep_their_support() -> None:
    response = Response([5, 6, 7], [0.0] * 3, [0.0] * 3, support=[(), array("i", [6, 9])], later=True)
    held = Held(Example("a", user("?"), "1"), (1, 2), (0, 1, 2), [response], 4)
    again = Held.from_dict(json.loads(json.dumps(held.to_dict())))
    assert [list(ids) for ids in again.responses[0].supports] == [[], [6, 9], []]
    assert (again.tokens, again.key, again.step) == ((1, 2), (0, 1, 2), 4)
