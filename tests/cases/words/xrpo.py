"""What cases call things in XRPO."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from policyopt.lens.case import Run
from policyopt.parts import Normalise


def _prompts(run: Run) -> list[tuple[int, float, int]]:
    """Of each prompt: how many responses it has, the deviation of their rewards, and how many there are in all."""
    rewards = run.given["rewards_so_far"]
    return [(len(r), statistics.stdev(map(float, r)), sum(map(len, rewards))) for r in rewards]


def _rule(run: Run) -> Any:
    return run.recipe.source


def _base(run: Run) -> Normalise:
    """The advantage before it is raised, with the same fields."""
    own = run.part("advantage")
    return Normalise(**{f.name: getattr(own, f.name) for f in dataclasses.fields(Normalise)})


COLUMNS = {"rewards_so_far": ("", "free")}
PARAMS = {"lambda_novelty": "novelty", "kappa_clip": "cap", "lambda": "bonus"}
KEYS = {
    "base_advantage": lambda run: _base(run)(run.shaped),
    "base": lambda run: _base(run)(run.shaped),
    "seq_score": lambda run: run.part("advantage").likelihood(run.shaped),
    "novelty": lambda run: run.part("advantage").eta(run.shaped),
    "half_width": lambda run: [_rule(run).half_width(n, s) for n, s, _ in _prompts(run)],
    "half_width_next": lambda run: [_rule(run).half_width(n + 1, s) for n, s, _ in _prompts(run)],
    "bonus": lambda run: [_rule(run).optimism(n, total) for n, _, total in _prompts(run)],
    "priority": lambda run: [_rule(run).priority(*prompt) for prompt in _prompts(run)],
    "next_prompt": lambda run: _rule(run).share(run.given["rewards_so_far"], 1).index(1),
}
