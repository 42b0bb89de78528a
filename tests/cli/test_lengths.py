"""``policyopt lengths``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policyopt.methods.length.castillo import spread
from tests.commands import Said, write_sums

Command = Callable[..., Said]


def test_lengths_of_the_responses_to_each_prompt(command: Command, tiny_model: Path) -> None:
    line = ["lengths", tiny_model, "--task", write_sums(Path("sums.jsonl"), 40), "--prompts", 3, "--max-tokens", 6]
    said = command(*line, "--samples", 4, "--json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    assert found["cap"] == 6 and [row["n"] for row in found["prompts"]] == [4, 4, 4] and found["all"]["n"] == 12
    assert all(1 <= row["mean"] <= 6 for row in found["prompts"])
    greedy = json.loads(command(*line, "--samples", 2, "--temperature", 0, "--json").out)
    assert [row["cv"] for row in greedy["prompts"]] == [spread([1, 1]).cv] * 3
    table = command(*line, "--samples", 4)
    assert table.code == 0 and "at the cap" in table.out and f"{found['all']['mean']:.1f}" in table.out


def test_a_model_is_named_once(command: Command) -> None:
    said = command("lengths", "embedded", "b")
    assert said.code == 2 and "b" in said.err
