"""What cases call things in Reinforce-Ada."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.rows import Batch
from policyopt.training.rows import to_batch, with_baseline

from ._grown import on_batch
from ._scripted import Script, play, verdict


def _rounds(given: Mapping[str, Any]) -> dict[str, Any]:
    """A round has as many responses as the first one."""
    return {**given, "params": {**given["params"], "round_size": len(given["round_rewards"][0][0])}}


def _draw(run: Run) -> Batch:
    """The rollout program of each prompt on the given outcomes; what it drew is scored and has its baseline."""
    program: Any = run.recipe.source
    responses, group = [], []
    names = ("rounds_used", "responses_seen", "resolved")
    notes: dict[str, list[Any]] = {name: [] for name in names}
    for number, rounds in enumerate(run.given["round_rewards"]):
        script = Script([[verdict(score) for score in scores] for scores in rounds])
        drawn = play(program, script, 0)
        responses += drawn
        group += [number] * len(drawn)
        notes["rounds_used"].append(script.asked)
        notes["responses_seen"].append(len(script.drawn))
        notes["resolved"].append(program.enough([r.verdict.score > program.threshold for r in drawn if r.verdict]))
    run.notes.update(notes)
    verdicts = [r.verdict for r in responses if r.verdict is not None]
    batch = to_batch([()] * len(responses), responses, verdicts, group, 1, torch.float64)
    return with_baseline(batch, [r.use for r in responses])[torch.tensor([r.use == "train" for r in responses])]


def _by_prompt(run: Run, x: torch.Tensor) -> list[list[float]]:
    return [x[run.batch.group == g].tolist() for g in range(len(run.given["round_rewards"]))]


STOPS = {"balanced": "balanced", "positive_focused": "positive"}
COLUMNS = {"round_rewards": ("", "free")}
PARAMS = {"exit": lambda name: {"exit": STOPS[name]}, "n": "group_size", "positive_threshold": "threshold"}
GIVEN = {"sampler": _rounds}
KEYS = on_batch(
    _draw,
    {
        "rounds_used": lambda run: run.notes["rounds_used"],
        "responses_seen": lambda run: run.notes["responses_seen"],
        "resolved": lambda run: run.notes["resolved"],
        "selected": lambda run: _by_prompt(run, run.batch.tokens[:, 0]),
        "global_mean": lambda run: [rows[0] for rows in _by_prompt(run, run.batch.baseline_reward)],
        "advantage": lambda run: _by_prompt(run, run.all_rows(run.credited.advantage)[:, 0]),
    },
)
