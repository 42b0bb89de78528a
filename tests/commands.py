"""Command lines run in this process, and small tasks for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policyopt.cli import main

QUICK = ("--batch", "8", "--group-size", "4", "--max-tokens", "8", "--eval.prompts", "4", "--eval.samples", "0")
"""Two prompts with four short responses each, and little to evaluate."""


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Standard error as running text, without boxes and line breaks."""
        return " ".join(re.sub(r"[╭╮╰╯│─┃━]+", " ", self.err).split())


def caller(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A function that runs a command: ``call("train", "grpo", "--steps", 3)``."""

    def call(*line: Any) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in line])
        return Said(code, *capsys.readouterr())

    return call


def over(defaults: Iterable[Any], line: Iterable[Any]) -> list[Any]:
    """A line, after those of some pairs of option and value that it does not set itself: an option is given once."""
    line, words = list(line), iter(defaults)
    given = {str(word).partition("=")[0] for word in line}
    return [
        word for option, value in zip(words, words, strict=True) if option not in given for word in (option, value)
    ] + line


def write_sums(path: Path, count: int = 12, **more: Any) -> Path:
    """A dataset of sums with whole numbers as answers."""
    return write_rows(path, ({"prompt": f"{i}+{i}=?", "answer": str(2 * i)} | more for i in range(count)))


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes | None]:
    """All files and folders below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
