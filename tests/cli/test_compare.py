"""``policyopt compare`` as it is typed: who is compared, what is refused, what is left behind; and the same from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import policyopt as po
from policyopt.cli.compare import CompareOptions, contender, grid_of, split, words
from policyopt.errors import UserError
from tests.commands import Said, write_sums

SMALL = (
    "--steps",
    "4",
    "--batch",
    "8",
    "--max-tokens",
    "8",
    "--eval.prompts",
    "4",
    "--eval.samples",
    "0",
    "--eval.every",
    "2",
)


def test_a_line_falls_into_contenders_own_options_and_those_of_runs() -> None:
    line = [
        "grpo",
        "grpo --low 0.1",
        "--seeds",
        "3",
        "--batch",
        "8",
        "--sweep=optim.lr=1,2",
        "--lora",
        "--task",
        "x",
        "--out",
        "o",
    ]
    assert split(line) == (
        ["grpo", "grpo --low 0.1"],
        ["--seeds", "3", "--sweep=optim.lr=1,2", "--out", "o"],
        ["--batch", "8", "--lora", "--task", "x"],
    )


def test_settings_become_a_line() -> None:
    assert words({"optim": {"lr": 0.1}, "eval.every": 4, "lora": True, "hub_public": False, "betas": [0.9, 0.99], "x": None}) == [
        "--optim.lr", "0.1", "--eval.every", "4", "--lora", "--no-hub-public", "--betas", "0.9", "0.99", "--x", "none",
    ]  # fmt: skip


def test_contenders_have_what_is_shared_and_what_is_their_own(tmp_path: Path) -> None:
    own = tmp_path / "hot.yaml"
    own.write_text("method: dr-grpo\ngroup-size: 4\noptim:\n  lr: 0.003\n")
    options = CompareOptions(sweep=("optim.clip-norm=1,2",), seeds=3, budget="steps=7")
    grid = grid_of(["grpo --low 0.1", str(own)], ["--batch", "16"], options)
    assert [c.label for c in grid.contenders] == [
        "grpo --low 0.1 optim.clip-norm=1", "grpo --low 0.1 optim.clip-norm=2", "hot optim.clip-norm=1", "hot optim.clip-norm=2",
    ]  # fmt: skip
    one, _, _, other = (c.config for c in grid.contenders)
    assert one.recipe.get("surrogate.low") == 0.1 and one.optim.clip_norm == 1.0 and one.batch == 16
    assert other.recipe.name == "dr-grpo" and other.optim.lr == 0.003 and other.optim.clip_norm == 2.0
    assert {c.config.steps for c in grid.contenders} == {7} and one.eval.every == 1 and grid.seeds == (0, 1, 2)


def test_a_method_of_ones_own_and_a_configuration_are_contenders(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("import policyopt as po\n\n\ndef hotter() -> po.Recipe:\n    return po.methods.grpo(low=0.3)\n")
    assert contender(f"{mine}:hotter", [], {}).config.recipe.get("surrogate.low") == 0.3
    saved = tmp_path / "config.yaml"
    saved.write_text(contender("grpo --low 0.4", ["--batch", "32"], {}).config.to_yaml())
    again = contender(str(saved), [], {})
    assert (again.label, again.config.recipe.get("surrogate.low"), again.config.batch) == ("config", 0.4, 32)


def test_a_testbed_brings_its_settings() -> None:
    grid = grid_of(["grpo", "cispo"], [], CompareOptions(testbed="stale"))
    assert {(c.config.task, c.config.staleness) for c in grid.contenders} == {("chain_sum", 4)}


def test_what_is_ones_own_goes_before_what_is_shared_and_that_before_the_testbed() -> None:
    options = CompareOptions(testbed="stale", sweep=("batch=8,64",))
    grid = grid_of(["grpo", "grpo --optim.lr=2e-4"], ["--optim.lr", "5e-4", "--batch", "16"], options)
    assert [(c.config.optim.lr, c.config.batch, c.config.staleness) for c in grid.contenders] == [
        (5e-4, 8, 4), (5e-4, 64, 4), (2e-4, 8, 4), (2e-4, 64, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["grpo", "gspo", "--seeds", "1"], "one seed says nothing"),
        (["grpo"], "two methods at least"),
        (["grpo", "gspoo"], "no method is called 'gspoo'"),
        (["grpo", "grpo"], "grpo is there twice"),
        (["grpo", "gspo", "--sweep", "optim.lrr=1,2"], "lrr"),
        (["grpo", "gspo", "--sweep", "optim.lr"], "a field and its values"),
        (["grpo", "gspo", "--sweep", "optim.lr=fast"], "optim.lr"),
        (["grpo", "gspo", "--budget", "hours=1"], "--budget hours=1"),
        (["grpo", "gspo", "--budget", "steps=4", "--eval.every", "10"], "before the first evaluation"),
        (["grpo", "gspo", "--task", "chain_sun"], "chain_sum"),
        (["grpo", "gspo", "--testbed", "stalle"], "stale"),
        (["grpo", "gspo --task countdown"], "same questions"),
        (["grpo", "dr-grpo", "--batch", "100", "--group-size", "3"], "multiple"),
        (["grpo", "gspo", "--resume", "nowhere"], "its plan says what is compared"),
        (["--resume", "nowhere"], "no comparison lies there"),
        (["grpo", "gspo", "--jobs", "0"], "jobs"),
    ],
)
def test_bad_lines_are_refused_before_anything_runs(
    line: list[str], said: str, command: Callable[..., Said], tmp_path: Path
) -> None:
    found = command("compare", *line)
    assert found.code == 2 and said in found.words, found.err
    assert "Traceback" not in found.err and not (tmp_path / "runs").exists()


def test_a_method_that_the_task_cannot_serve_is_refused(
    command: Callable[..., Said], tmp_path: Path, tiny_model: Path
) -> None:
    task = write_sums(tmp_path / "sums.jsonl")
    found = command("compare", "grpo", "otr", "--task", task, "--model", tiny_model, *SMALL)
    assert found.code == 2 and "otr: otr reads worked solutions" in found.words and not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("warm")
def test_a_comparison_is_run_shown_and_gone_on_with(
    command: Callable[..., Said], tmp_path: Path, tiny_model: Path
) -> None:
    task = write_sums(tmp_path / "sums.jsonl")
    line = [
        "compare",
        "grpo",
        "dr-grpo",
        "--seeds",
        "2",
        "--out",
        "out",
        "--task",
        task,
        "--model",
        tiny_model,
        "--group-size",
        "4",
        *SMALL,
    ]
    found = command(*line)
    assert found.code == 0, found.err
    assert "accuracy" in found.out and "compared to grpo" in found.out and "page: out/compare.html" in found.out
    assert (tmp_path / "out/compare.html").stat().st_size < 2 << 20
    table = json.loads((tmp_path / "out/comparison.json").read_text())
    assert table
    again = command("compare", "--resume", "out")
    assert again.code == 0 and "4 of 4 runs" in again.out


@pytest.mark.usefixtures("warm")
def test_the_same_from_python(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_sums(tmp_path / "sums.jsonl")
    settings = {
        "model": str(tiny_model),
        "task": str(task),
        "steps": 2,
        "batch": 8,
        "max_tokens": 8,
        "eval": {"prompts": 4, "samples": 0, "every": 1},
    }
    found = po.compare(
        {"plain": po.methods.grpo(group_size=4), "hot": (po.methods.grpo(group_size=4), {"optim": {"lr": 1e-2}})},
        seeds=2, quiet=True, **settings,
    )  # fmt: skip
    table, page = found
    assert page.is_file() and page.parent.parent == Path("runs")
    assert table.loc[("accuracy", "hot"), "words"] and "plain" in str(found)
    with pytest.raises(UserError, match="several seeds"):
        po.compare(["grpo", "gspo"], seed=3)
    with pytest.raises(UserError, match="no field is called 'optimm'"):
        po.compare(["grpo", "gspo"], optimm=3)


def test_what_a_session_alone_holds_is_trained_in_it(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(12)]
    seen: list[str] = []

    def judge(prompt: str, response: str, answer: str) -> float:
        seen.append(response)
        return float(len(response) % 2)

    found = po.compare(
        {"a": po.methods.grpo(group_size=4), "b": po.methods.dr_grpo(group_size=4)}, seeds=2, quiet=True, out=tmp_path / "out",
        model=str(tiny_model), task=rows, judge=judge, steps=1, batch=8, max_tokens=8, eval={"prompts": 3, "samples": 0, "every": 1},
    )  # fmt: skip
    assert len(found.found.runs) == 4
