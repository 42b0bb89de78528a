"""The words of a line, before anything is done for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_start import HEAVY, ran
from tests.commands import Said

Command = Callable[..., Said]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("list --kind part --kind study", "--kind"),
        ("eval --task chain_sum --prompts 4 --task=ties", "--task"),
        ("train grpo --steps 3 --seed 1 --steps 5", "--steps"),
        ("train grpo --batch 8 --max_tokens 8 --max-tokens 9", "--max-tokens"),
    ],
)
def test_an_option_is_given_once(line: str, option: str, command: Command) -> None:
    said = command(*line.split())
    assert (said.code, said.err) == (2, f"policyopt: {option} is given twice: leave one of them away\n")


def test_what_may_be_repeated_is(command: Command) -> None:
    said = command("train", "grpo", "--role", "a=x", "--role", "b=y", "--steps", "0")
    assert "given twice" not in said.err
    assert "steps" in said.err


@pytest.mark.usefixtures("cache")
def test_a_misspelt_option_of_a_method_that_was_used_imports_no_torch(command: Command, tmp_path: Path) -> None:
    first = command("train", "GRPO", "--lerning-rate", "1")
    ((again, same, packages),) = ran(["train", "grpo", "--lerning-rate", "1"], folder=tmp_path)
    assert (first.code, again, first.err, packages & HEAVY) == (2, 2, same, set())
    assert "there is no option --lerning-rate; nearest: --optim.lr (`policyopt train grpo --help` shows all)" in same
    assert "nearest: --steps" in command("train", "grpo", "--stepz", "1", "--recipe.surrogate.unknown", "1").err


def test_help_of_a_command_and_of_a_method(command: Command) -> None:
    assert command("help", "list").out == command("list", "--help").out
    assert command("help", "explain", "grpo").out == command("explain", "--help").out
    assert command("help", "nothing").code == 2
