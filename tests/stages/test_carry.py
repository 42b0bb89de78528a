"""Plans carried out: what a stage gets of those before it, and that whatever kills one, it ends with the same bits."""

from __future__ import annotations

import contextlib
import json
import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from policyopt.errors import UserError
from policyopt.models.merge import merged
from policyopt.stages.carry import Planned, run_plan
from tests.runs import PROCESSES, die, lines, nth, timeless
from tests.tiny import write_task

SMALL: dict[str, Any] = {
    "batch": 16, "max_tokens": 12, "seed": 1, "device": "cpu", "optim": {"lr": 3e-3}, "eval": {"every": 0, "prompts": 6, "samples": 0},
    "checkpoints": {"every": 2, "keep": 1},
}  # fmt: skip
BLOCK = 5
"""Of answers, so that the few questions here are several."""


def plan_of(folder: Path, model: Path) -> dict[str, Any]:
    """Three stages and a merge on the tiny model: it draws, learns from pairs of that, and imitates what it said best."""
    task = write_task(folder / "task")
    return {
        **SMALL, **task, "model": str(model),
        "stages": [
            {"name": "draw", "method": "grpo", "group_size": 4, "steps": 3, "answers": {"prompts": 18, "samples": 4}},
            {"name": "compare", "method": "dpo", "rows": "pairs", "steps": 3, "batch": 8, "answers": {"prompts": 12, "samples": 4}},
            {"name": "imitate", "method": "sft", "rows": {"form": "demonstrations", "by": "length"}, "steps": 3, "batch": 4},
            {"name": "both", "merge": {"of": ["start", "draw", "imitate"], "keep": 0.5, "scale": 0.7}},
        ],
    }  # fmt: skip


def left(out: Path) -> dict[str, Any]:
    """All that a plan has left and that does not tell how long it took."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "metrics.jsonl":
            # What the reference thinks of given texts is kept on the disk: the second run of a plan finds it there.
            found[name] = [row | {"tokens/reference": None} for row in timeless(lines(path))]
        elif path.name in ("rows.jsonl", "samples.jsonl"):
            found[name] = lines(path)
        elif path.name == "summary.json":
            found[name] = json.loads(path.read_text()) | {"seconds": None}
        elif path.name == "model.safetensors":
            found[name] = {k: x.tolist() for k, x in load_file(path).items()}
    return found


def _child(plan: dict[str, Any] | None, out: Path, where: str, name: str, n: int, text: Path) -> None:
    with text.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        torch.set_num_threads(1)
        import policyopt.stages.answers as answers

        answers.BLOCK = BLOCK
        if where:
            nth(where, name, n, lambda *_, **__: die())
        try:
            run_plan(plan, out=out) if plan is not None else run_plan(resume=out)
        except BaseException:
            traceback.print_exc(file=file)
            raise


def carried(plan: dict[str, Any] | None, out: Path, where: str = "", name: str = "", n: int = 0) -> Any:
    """A plan in a process of its own."""
    process = PROCESSES.Process(target=_child, args=(plan, out, where, name, n, out.with_suffix(".txt")))
    process.start()
    return process


def ended(process: Any, out: Path) -> int:
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    assert process.exitcode in (0, -9), out.with_suffix(".txt").read_text()[-3000:]
    return int(process.exitcode)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[dict[str, Any], Path]:
    """The plan, and the folder that it leaves where nobody disturbs it."""
    folder = tmp_path_factory.mktemp("plan")
    plan = plan_of(folder, tiny_model)
    assert ended(carried(plan, folder / "whole"), folder / "whole") == 0
    return plan, folder / "whole"


def test_what_is_handed_on(undisturbed: tuple[dict[str, Any], Path], tiny_model: Path) -> None:
    _, out = undisturbed
    configs = [
        yaml.safe_load((out / f"{name}/config.yaml").read_text()) for name in ("1-draw", "2-compare", "3-imitate")
    ]
    assert [c["model"] for c in configs] == [str(tiny_model), str(out / "1-draw/model"), str(out / "2-compare/model")]
    assert configs[1]["task"] == f"answers:{out}/1-draw/answers:pairs"
    assert configs[2]["task"] == f"answers:{out}/2-compare/answers:demonstrations:length"
    rows = lines(out / "1-draw/answers/rows.jsonl")
    assert len(rows) == 18 and all(len(r["responses"]) == 4 for r in rows)
    judged = {(text, right) for r in rows for text, right in zip(r["responses"], r["correct"], strict=True)}
    assert all(right == (len(text) % 2 == 0) for text, right in judged)  # what the judge of the task says
    assert len(lines(out / "2-compare/answers/rows.jsonl")) == 12
    models = [
        load_file(tiny_model / "model.safetensors"),
        *(load_file(out / f"{n}/model/model.safetensors") for n in ("1-draw", "3-imitate")),
    ]
    mean, told = merged(models, how="changes", keep=0.5, scale=0.7), load_file(out / "4-both/model/model.safetensors")
    assert all(torch.equal(mean[k], told[k]) for k in told)
    assert json.loads((out / "4-both/summary.json").read_text())["after"]["n"] == 6
    page = (out / "report.html").read_text()
    assert all(f"{i}. <a" in page for i in (1, 2, 3)) and "8 × " not in page and "4 × 18 answers" in page


MOMENTS = {
    "a step of the second stage": ("policyopt.training.loop:Trainer", "step", 4),
    "a judged block": ("policyopt.stages.answers", "_line", 7),
    "before a stage": ("policyopt.stages.carry", "filled", 1),
    "a merge": ("policyopt.models.merge", "merged", 5),
}
MORE = {
    "a step of the first": ("policyopt.training.loop:Trainer", "step", 1),
    "a step of the third": ("policyopt.training.loop:Trainer", "step", 8),
    "an answer": ("policyopt.stages.answers", "_drawn", 1),
    "an answer of the second": ("policyopt.stages.answers", "_drawn", 5),
    "the end of a stage": ("policyopt.training.run", "leave", 1),
    "a report": ("policyopt.stages.carry", "write_report", 0),
}


@pytest.mark.parametrize("moment", [*MOMENTS, *(pytest.param(m, marks=pytest.mark.heavy) for m in MORE)])
def test_killed_it_ends_with_the_same_bits(
    moment: str, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    plan, whole = undisturbed
    out = tmp_path / "out"
    assert ended(carried(plan, out, *(MOMENTS | MORE)[moment]), out) == -9
    assert ended(carried(None, out), out) == 0
    assert_same(out, whole)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random_again_and_again(seed: int, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    plan, whole = undisturbed
    out, chance = tmp_path / "out", random.Random(seed)
    process, kills = carried(plan, out), 0
    while True:
        process.join(0.3 + 3 * chance.random())
        if process.exitcode is None and kills < 6:
            process.kill()
            kills += 1
        if ended(process, out) == 0:
            break
        begun = (out / "plan.yaml").is_file()
        process = carried(None if begun else plan, out)
    assert kills
    assert_same(out, whole)


def assert_same(out: Path, whole: Path) -> None:
    """Bit for bit, but for the names of the folders."""
    mine, reference = (json.loads(json.dumps(left(folder)).replace(str(folder), "HERE")) for folder in (out, whole))
    assert mine.keys() == reference.keys()
    for name in reference:
        assert mine[name] == reference[name], name


# In this process ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, tiny_model: Path) -> Callable[..., Planned]:
    """A plan of one or two steps a stage."""
    task = write_task(tmp_path / "task")

    def carry(*stages: dict[str, Any], **changes: Any) -> Planned:
        plan = {**SMALL, **task, "model": str(tiny_model), "steps": 1, "stages": [*stages], **changes}
        return run_plan(plan, out=tmp_path / "out", quiet=True)

    return carry


def test_a_budget_below_the_prompt(small: Callable[..., Planned], tmp_path: Path) -> None:
    """Found before the first stage, whichever it is of; nothing is left behind."""
    with pytest.raises(UserError, match=r"stage long: --max-tokens 999 leaves no room for a prompt"):
        small({"method": "grpo"}, {"name": "long", "method": "grpo", "max_tokens": 999})
    assert not (tmp_path / "out").exists()


def test_rows_that_cannot_be_had(small: Callable[..., Planned], tmp_path: Path) -> None:
    """A stage whose answers leave no pair says so, and the stages before it are kept."""
    (tmp_path / "task").mkdir(exist_ok=True)
    one = {"name": "draw", "method": "grpo", "answers": {"prompts": 4, "samples": 1}}
    with pytest.raises(UserError, match=r"stage dpo: .*of no question is one response better than another"):
        small(one, {"method": "dpo", "rows": "pairs", "batch": 8})
    assert (tmp_path / "out/1-draw/model/model.safetensors").is_file()
    assert "not begun" in (tmp_path / "out/report.html").read_text()


def test_histories_of_another_dataset(small: Callable[..., Planned], tmp_path: Path) -> None:
    """Answers to rows that have changed since are refused, by name."""
    stages = (
        {"name": "draw", "method": "grpo", "group_size": 4, "answers": {"prompts": 18}},
        {"method": "sft", "rows": "demonstrations", "batch": 4},
    )
    small(*stages)
    data = tmp_path / "task/data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"other {i}", "answer": str(i)}) + "\n" for i in range(12)))
    (tmp_path / "out/2-sft/summary.json").unlink()
    with pytest.raises(UserError, match=r"stage sft: .*the task has changed since it was answered"):
        run_plan(resume=tmp_path / "out", quiet=True)


def test_ctrl_c_in_a_stage(small: Callable[..., Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step ends, the stage is saved, no further one begins; going on ends it."""
    import policyopt.training.process as process

    heard: list[int] = []
    plain = process.Interrupt.__enter__

    def asked(self: Any) -> Any:
        found = plain(self)
        if not heard:
            heard.append(1)
            self.asked = 2
        return found

    monkeypatch.setattr(process.Interrupt, "__enter__", asked)
    found = small({"name": "a", "method": "grpo", "steps": 3}, {"name": "b", "method": "grpo"})
    assert (found.stopped, found.signal) == (True, 2)
    assert not (tmp_path / "out/2-b").exists()
    again = run_plan(resume=tmp_path / "out", quiet=True)
    assert not again.stopped
    assert [r.summary["steps"] for r in again.stages.values()] == [3, 1]


def test_folders(small: Callable[..., Planned], tmp_path: Path) -> None:
    found = small({"method": "grpo"})
    assert found.model == tmp_path / "out/1-grpo/model"
    with pytest.raises(UserError, match="is not empty: choose another folder, or go on with its plan by --resume"):
        small({"method": "grpo"})
    with pytest.raises(UserError, match="no plan lies there"):
        run_plan(resume=tmp_path, quiet=True)
    with pytest.raises(UserError, match="give nothing else"):
        run_plan(resume=tmp_path / "out", steps=3)
    before = time.time()
    run_plan(resume=tmp_path / "out", quiet=True)  # has ended: nothing is trained again
    assert (tmp_path / "out/1-grpo/summary.json").stat().st_mtime < before
