"""Prompts and draws that a command line sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.commands import QUICK, Said, lines
from tests.tiny import write_task


def test_a_line_says_how_prompts_are_written_and_responses_drawn(
    command: Callable[..., Said], tiny_model: Path, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "task")
    (tmp_path / "system.txt").write_text("Be brief.")
    named = ("--task", task["task"], "--judge", task["judge"], "--device", "cpu")
    how = ("--prompting.system", "@system.txt", "--prompting.template", "tags=[1]", "--prompting.template", "a=b c")
    ends = ("--stop", "e", "--stop", "ab", "--stop-token", "60", "--prompting.special", "none")
    said = command(
        "train", "grpo", "--model", tiny_model, *named, *how, *ends, *QUICK, "--steps", 1, "--out", "run",
        "--recipe.source.top-k", 6, "--eval.top-p", 0.9, "--eval.temperature", 0.5,
    )  # fmt: skip
    assert said.code == 0, said.words
    assert said.out.count("--prompting.template tags a: the model's chat template never reads it") == 1
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["prompting"] == {
        "system": "Be brief.", "template_args": {"tags": [1], "a": "b c"}, "stop": ["e", "ab"], "stop_tokens": ["60"],
        "special": "none",
    }  # fmt: skip
    assert (config["recipe"]["source"]["top_k"], config["eval"]["top_p"]) == (6, 0.9)
    assert lines(Path("run/metrics.jsonl"))[1]["mismatch/max"] < 1e-4
    for row in lines(Path("run/samples.jsonl")):
        assert "e" not in row["response"][:-1], "it would have ended there"

    again = ("--prompting.system", "@system.txt", "--stop", "e", "--model", "run/model", "--max-tokens", 8)
    said = command("sample", *named, *again, "--top-k", 3, "--min-p", 0.1, "--top-p", 0.9, "--questions", 1)
    assert said.code == 0, said.words
    said = command(
        "eval", *named, *again, "--top-p", 0.5, "--temperature", 0.5, "--prompts", 2, "--samples", 4, "--json"
    )
    assert said.code == 0 and '"pass@4"' in said.out, said.words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--prompting.system", "@nothing.txt"), "prompting.system: the file nothing.txt cannot be read"),
        (("--prompting.template", "enable_thinking"), "expected NAME=VALUE"),
        (("--prompting.template", "padding=1"), "padding is no argument of a template"),
        (("--recipe.source.top-p", "1.5"), "top-p"),
        (("--recipe.source.top-k", "2000"), "top-k"),
        (("--prompting.sytem", "x"), "--prompting.system"),
    ],
)
def test_what_cannot_be_is_refused(line: tuple[str, ...], said: str, command: Callable[..., Said]) -> None:
    found = command("train", "grpo", *line)
    assert found.code == 2
    assert said in found.words
