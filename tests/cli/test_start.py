"""What a command imports before it answers: the heavy libraries only where they have work to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import policyopt
from tests.commands import Said

HEAVY = {
    "torch",
    "transformers",
    "scipy",
    "reasoning_gym",
    "datasets",
    "peft",
    "pandas",
    "jinja2",
    "tensorboard",
}
LISTENED = """
import contextlib, io, json, sys
from policyopt.cli import main
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line)
    print(json.dumps([code, out.getvalue() + err.getvalue(), sorted(sys.modules)]))
"""


def imported(code: str, *line: str, folder: Path) -> tuple[str, str]:
    """What a program prints that keeps what it has found out in ``folder/cache``, on standard output and on standard error."""
    where = {"PYTHONPATH": str(Path(policyopt.__file__).parents[1]), "POLICYOPT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=120, cwd=folder,
        env={**os.environ, **where, "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def ran(*lines: Sequence[str], folder: Path) -> list[tuple[int, str, set[str]]]:
    """Command lines one after the other in one process: the exit code of each, all that it printed, and the packages that were
    imported by its end."""
    out, _ = imported(LISTENED, json.dumps(lines), folder=folder)
    ended = [json.loads(row) for row in out.splitlines()]
    return [(code, text, {name.split(".")[0] for name in modules}) for code, text, modules in ended]


LIGHT: list[tuple[str, int, str]] = [
    ("--help", 0, "usage: policyopt"),
    ("help list", 0, "--kind"),
    ("list", 0, "grpo"),
    ("list --kind all --json", 0, "RewardCliff"),
    ("tasks", 0, "chain_sum"),
    ("eval --help", 0, "--samples"),
    ("serve --help", 0, "--port"),
    ("serve --host 0.0.0.0", 2, "set POLICYOPT_SERVE_TOKEN"),
    ("train", 0, "METHOD is one of"),
    ("explain --help", 0, "NAME is one of"),
    ("train grppo", 2, "no method is called 'grppo'"),
    ("train rl-subnetworks --help", 2, "rl-subnetworks is a study, not a method"),
    ("advise", 0, "entropy-falls"),
    ("advise --symptom stale", 0, "vespo"),
    ("explain gppo", 2, "nothing is called 'gppo'"),
    ("check gppo", 2, "no method is called 'gppo'"),
    ("check missing.py", 2, "there is no file missing.py"),
    ("verify missing.json", 2, "missing.json: no such file"),
    ("train grpo --task missing.jsonl", 2, "there is no file 'missing.jsonl'"),
    ("train grpo --task=chain_smu", 2, "no task is called 'chain_smu'; nearest: chain_sum"),
    ("eval --task missing.jsonl", 2, "there is no file 'missing.jsonl'"),
    ("sample --task missing.parquet", 2, "there is no file 'missing.parquet'"),
    ("train grpo --config missing.yaml", 2, "missing.yaml: cannot be read"),
    ("train grpo --resume missing", 2, "--resume missing: no run lies there"),
    ("train grpo --with nothing", 2, "no study is called 'nothing'; known: redteamcua, alignment-asymptotics"),
]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, set[str]]]:
    """What became of each of these lines. A package that one imports is there for those after it too."""
    lines = [line for line, _, _ in LIGHT]
    return dict(
        zip(lines, ran(*(line.split() for line in lines), folder=tmp_path_factory.mktemp("light")), strict=True)
    )


@pytest.mark.parametrize(("line", "code", "said"), LIGHT)
def test_what_needs_no_model_imports_none(
    line: str, code: int, said: str, light: dict[str, tuple[int, str, set[str]]]
) -> None:
    ended, text, packages = light[line]
    assert (ended, packages & HEAVY) == (code, set())
    assert said in text


def test_the_help_of_a_method_is_kept(command: Callable[..., Said], cache: Path, tmp_path: Path) -> None:
    first = command("train", "grpo", "--help")
    assert first.code == 0
    assert "--recipe.surrogate.high" in first.out
    ((again, same, packages),) = ran(["train", "grpo", "--help"], folder=tmp_path)
    assert (again, packages & HEAVY, same) == (0, set(), first.out)
    (kept,) = cache.glob("help-*.json")
    kept.write_text("spoilt")
    assert command("train", "grpo", "--help").out == first.out


def test_the_package_shows_its_names_and_imports_nothing_for_it(tmp_path: Path) -> None:
    code = "import sys, policyopt; print(sorted(dir(policyopt))); print(sorted(sys.modules))"
    names, modules = (set(eval(line)) for line in imported(code, folder=tmp_path)[0].splitlines())
    assert names >= {*policyopt.__all__, "__version__"}
    assert names >= {"train", "Recipe", "method", "get_method", "methods", "parts"}
    assert not {name.split(".")[0] for name in modules} & {*HEAVY, "pydantic", "tyro", "rich", "numpy", "yaml"}


def test_a_method_is_imported_with_what_its_page_needs(tmp_path: Path) -> None:
    code = "import sys; from policyopt import get_method; get_method('grpo')(); print(sorted(sys.modules))"
    modules = eval(imported(code, folder=tmp_path)[0])
    assert "policyopt.methods.group.grpo" in modules
    assert "policyopt.methods.tree.rose" not in modules
    assert not {name.split(".")[0] for name in modules} & (HEAVY - {"torch"})
