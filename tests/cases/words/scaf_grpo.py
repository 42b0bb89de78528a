"""What cases call things in Scaf-GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run
from policyopt.rows import Batch

from ._grown import on_batch
from ._scripted import Script, drawn_batch, given_tokens, members, play, verdict


def _hints(given: Mapping[str, Any], group: Any) -> list[tuple[int, float]]:
    """The hints of a group from weak to strong: level, and the reward of the response to it."""
    asked = zip(given["hint_group"], given["hint_level"], given["hint_reward"], strict=True)
    return sorted((level, reward) for g, level, reward in asked if g == group)


def _rescue(run: Run) -> Batch:
    """The rollout program of each group on the given outcomes."""
    given = run.given
    run.notes.update(chosen=[], replaced=[])
    drawn = []
    for group, mine in members(given["group"]):
        hints = _hints(given, group)
        program = run.method(levels=max(1, len(hints)), warmup_steps=run.params["warmup_steps"]).source
        plain = [verdict(given["reward"][i]) for i in mine]
        script = Script([plain, *([verdict(reward)] for _, reward in hints)])
        rows = play(program, script, len(hints) + 1, run.params["step"] - 1, size=len(mine))
        rescued = [i for i, response in enumerate(rows) if given_tokens(response)]
        run.notes["replaced"].append(mine[rescued[0]] if rescued else None)
        run.notes["chosen"].append(hints[given_tokens(rows[rescued[0]]) - 1][0] if rescued else None)
        drawn.append((mine, rows))
    return drawn_batch(drawn, given["group"])


COLUMNS = dict.fromkeys(("hint_group", "hint_level", "hint_reward"), ("", "free"))
PARAMS = {"step": None}
KEYS = on_batch(
    _rescue,
    {
        "chosen_level": lambda run: run.notes["chosen"],
        "replaced_row": lambda run: run.notes["replaced"],
    },
)
