"""Plans, read: what a stage gets from those before it, and what is refused before anything begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policyopt.errors import UserError
from policyopt.stages.plan import Plan, nested, plan_from, read_plan

SFT = {"method": "sft", "task": "pairs:chain_sum"}
ANSWERING = {**SFT, "answers": {"prompts": 64, "samples": 4}}


def plan(*stages: dict[str, Any], **shared: Any) -> Plan:
    return plan_from({"task": "chain_sum", **shared, "stages": [*stages]})


def test_a_stage_begins_with_the_model_of_the_one_before() -> None:
    found = plan(ANSWERING, {"method": "dpo", "rows": "pairs"}, {"method": "grpo", "model": "embedded"}, steps=7)
    sft, dpo, grpo = found.stages
    assert [s.name for s in found.stages] == ["sft", "dpo", "grpo"]
    assert (sft.config.model, dpo.config.model, grpo.config.model) == ("embedded", "stage:sft", "embedded")
    assert {s.config.steps for s in found.stages} == {7}
    assert dpo.rows is not None and dpo.rows.of == "sft"
    assert dpo.config.task == "pairs:chain_sum"  # what was answered
    assert dpo.needs == ["sft", "sft"]


def test_the_rate_is_that_of_the_model_that_the_plan_begins_with() -> None:
    """A folder would have that of a large model."""
    found = plan(SFT, {"method": "grpo"}, {"name": "more", "method": "grpo", "optim.lr": "3e-5"})
    assert [s.config.optim.lr for s in found.stages] == [1e-4, 1e-4, 3e-5]


def test_hyper_parameters_parts_and_groups() -> None:
    found = plan({"method": "grpo", "group-size": 4, "kl_coef": 0.0, "optim": {"lr": 1e-3}, "eval.every": 0})
    (stage,) = found.stages
    assert stage.config.recipe.source.size == 4
    assert stage.config.optim.lr == 1e-3
    assert (stage.config.eval.every, stage.config.eval.prompts) == (0, 256)
    changed = plan({"method": "grpo", "recipe": {"surrogate": {"high": 0.5}}})
    assert changed.stages[0].config.recipe.to_dict()["surrogate"]["high"] == 0.5


def test_the_line_goes_before_the_file() -> None:
    found = plan_from({"steps": 9, "stages": [{**SFT, "steps": 8}]}, over={"steps": 2, "optim.lr": 1e-5})
    assert (found.stages[0].config.steps, found.stages[0].config.optim.lr) == (2, 1e-5)
    again = plan_from(yaml.safe_load(found.to_yaml()))
    assert again.stages == found.stages


def test_merges() -> None:
    found = plan(
        SFT,
        {"method": "grpo"},
        {"name": "m", "merge": ["sft", "grpo"]},
        {"name": "d", "merge": {"of": ["start", "grpo"], "keep": 0.25}},
    )
    average, changes = found.stages[2:]
    assert average.merge is not None and average.merge.way == "average"
    assert changes.merge is not None and changes.merge.way == "changes"
    assert average.config.task == "pairs:chain_sum"


def test_files_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a plan goes on from another directory too."""
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "{i}", "answer": "b"}}\n' for i in range(12)))
    (tmp_path / "p.yaml").write_text("task: rows.jsonl\njudge: exact\nstages:\n- method: grpo\n")
    monkeypatch.chdir(tmp_path)
    found = read_plan(Path("p.yaml"))
    assert found.name == "p"
    assert found.data["task"] == str(tmp_path / "rows.jsonl")


def test_nested() -> None:
    assert nested({"optim.lr": 1, "optim": {"warmup": 2}, "max-tokens": 3}) == {
        "optim": {"lr": 1, "warmup": 2},
        "max_tokens": 3,
    }
    assert nested({"recipe": {"a.b": 1}}) == {"recipe": {"a.b": 1}}


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no stages": ([], "stages: expected a list"),
    "no method": ([{"name": "a"}], r"stage 1 \(a\): method: expected the name"),
    "unknown method": ([{"method": "gpro"}], "no method is called 'gpro'"),
    "unknown field": ([{"method": "grpo", "stepz": 3}], r"stage 1 \(grpo\): no field is called 'stepz'; nearest: steps"),
    "another method's field": ([{"method": "grpo", "beta": 3}], r"no field is called 'beta'"),
    "no such part": ([{"method": "grpo", "recipe": {"surrogate": {"part": "Nothing"}}}], "Nothing"),
    "two of a name": ([SFT, SFT], "two stages of this name"),
    "a name for a folder": ([{**SFT, "name": "../x"}], "expected letters, digits"),
    "out": ([{**SFT, "out": "x"}], "out: the folder of a stage"),
    "rows of none": ([{"method": "dpo", "rows": "pairs"}], "there is no stage before it"),
    "rows that are not made": ([SFT, {"method": "dpo", "rows": "pairs"}], r"stage 2 \(dpo\): rows: pairs are made of the answers of sft, which gives none: add `answers"),
    "rows of another form": ([ANSWERING, {"method": "dpo", "rows": "demonstrations"}], "dpo reads chosen and rejected, which demonstrations do not bring: take rows: pairs"),
    "rows for one that draws": ([ANSWERING, {"method": "grpo", "rows": "pairs"}], "grpo draws its own responses and reads no rows"),
    "rows and a task": ([ANSWERING, {"method": "dpo", "rows": "pairs", "task": "chain_sum"}], "task: the rows are answers to the questions of sft"),
    "rows of nobody": ([ANSWERING, {"method": "dpo", "rows": {"form": "pairs", "of": "stf"}}], "no stage before it is called 'stf'; nearest: sft"),
    "no such form": ([ANSWERING, {"method": "dpo", "rows": "pair"}], "'pairs', 'demonstrations', 'scored' or 'labelled'"),
    "no such field of rows": ([ANSWERING, {"method": "dpo", "rows": {"form": "pairs", "from": "sft"}}], "rows: no field is called 'from'"),
    "answers of no number": ([{**SFT, "answers": {"prompts": 0}}], "prompts"),
    "answers of a world": ([{"method": "grpo", "task": "maze", "answers": {}}], "maze.* is an environment"),
    "no texts": ([{"method": "dpo"}], r"reads chosen and rejected"),
    "a model of nobody": ([SFT, {"method": "grpo", "model": "stage:sfd"}], "no stage before it is called 'sfd'; nearest: sft"),
    "a later model": ([{"method": "grpo", "model": "stage:sft"}, SFT], "it is the first one"),
    "a role that nobody reads": ([SFT, {"method": "grpo", "roles": {"judge": "stage:sft"}}], "reads no model in the role 'judge'"),
    "a merge of one": ([SFT, {"merge": ["sft"]}], "takes two models or more"),
    "a merge of nobody": ([SFT, {"merge": ["sft", "x"]}], "no stage before it is called 'x'"),
    "a merge that trains": ([SFT, {"merge": ["start", "sft"], "steps": 3}], "steps: a merge trains nothing"),
    "an average with a scale": ([SFT, {"merge": {"of": ["start", "sft"], "how": "average", "scale": 1.0}}], "keep and scale are about changes"),
    "a server": ([{"method": "grpo", "engine": "tinker"}], "engine: a stage hands its model on by a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    stages, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        plan_from({"task": "chain_sum", "stages": stages})


def test_shared_fields_may_be_wrong_too() -> None:
    with pytest.raises(UserError, match=r"stage 1 \(grpo\): no field is called 'stage'"):
        plan_from({"stage": 3, "stages": [{"method": "grpo"}]})
