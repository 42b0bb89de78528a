"""Which judge a run has, and what it says where nothing is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import policyopt as po
from policyopt.errors import UserError
from policyopt.items import JudgeSpec
from policyopt.methods.group.grpo import grpo
from policyopt.training.advice import Advice, no_right_answer
from policyopt.training.config import TrainConfig, config_from_yaml
from tests.commands import write_rows, write_sums

RECORDS = [
    {"prompt": f"q{i}", "response": "x" * 500 + f" end {i}", "reason": reason, "correct": False, "score": 0.0}
    for i, reason in enumerate(
        ["'3' is wrong, '4' is right", "'5' is wrong, '6' is right", "no answer found", "judge failed"]
    )
]


def advice(judge: str = "number", **more: object) -> tuple[Advice, list[str]]:
    said: list[str] = []
    more = {"judge": judge} if judge.endswith(":f") else more
    config = TrainConfig(recipe=grpo(), model="my model", task="chain_sum", **more)
    return Advice(config, JudgeSpec(judge), said.append), said


def test_it_shows_three_responses_of_different_reasons_and_a_command() -> None:
    said = no_right_answer("none", RECORDS, JudgeSpec("number"), advice(max_tokens=64)[0].config)
    assert [line.split()[0] for line in said.splitlines()[1:10]] == ["asked", "said", "judge"] * 3
    assert "q0" in said and "no answer found" in said and "judge failed" in said and "q1" not in said
    assert "end 0" in said and "x" * 200 not in said
    assert said.splitlines()[-1].strip() == (
        "policyopt sample --model 'my model' --task chain_sum --max-tokens 64 --judge math"
    )
    own = no_right_answer("none", RECORDS, JudgeSpec("my.py:f"), advice("my.py:f")[0].config)
    assert own.endswith("--task chain_sum --judge my.py:f") and "mend it before you train" in own


def test_it_is_said_once_and_only_where_nothing_is_worth_anything() -> None:
    some, said = advice()
    some.evaluated([*RECORDS, {"correct": True, "score": 1.0}])
    some.evaluated([*RECORDS, {"correct": False, "score": 0.5}])
    assert not said
    for step in (1, 2):
        some.stepped(step, RECORDS)
    assert not said
    some.stepped(3, RECORDS)
    assert len(said) == 1 and said[0].startswith("no response of the first 3 steps is right. Look at 3 of them")
    for step in (4, 5, 6):
        some.stepped(step, RECORDS)
    assert len(said) == 1
    early, said = advice()
    early.evaluated(RECORDS)
    assert said[0].startswith("none of 4 held-out answers is right")
    for step in (1, 2, 3):
        early.stepped(step, RECORDS)
    assert len(said) == 1
    mixed, said = advice()
    for step, records in enumerate([RECORDS, [{"correct": True, "score": 1.0}], RECORDS, RECORDS], 1):
        mixed.stepped(step, records)
    assert not said


def test_a_run_says_which_judge_it_has_and_why(tiny_model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    sums = write_sums(tmp_path / "sums.jsonl")
    settings = {"model": tiny_model, "task": sums, "batch": 8, "max_tokens": 8, "eval": {"prompts": 3, "samples": 0}}
    recipe = po.methods.grpo(group_size=4)
    result = po.train(recipe, steps=1, **settings)
    said = capsys.readouterr().out
    assert "judge number (all 12 answers are numbers)" in said
    assert ("none of 3 held-out answers is right" in said) == (result.summary["before"]["accuracy"] == 0)
    chosen = {"judge": "number", "judge_reason": "all 12 answers are numbers"}
    written = yaml.safe_load((result.out / "config.yaml").read_text())
    assert written["resolved"] == chosen
    assert written["judge"] is None, "what was asked for stays: an honest resume is the same line"
    assert chosen.items() <= json.loads((result.out / "summary.json").read_text()).items()
    assert "<dd>number: all 12 answers are numbers</dd>" in (result.out / "report.html").read_text()
    assert config_from_yaml(result.out / "config.yaml").judge is None
    again = po.train(recipe, steps=2, resume=result.out, quiet=True, **settings)
    assert chosen.items() <= again.summary.items()
    write_rows(Path(sums), ({"prompt": f"{i}+{i}=?", "answer": "many"} for i in range(12)))
    with pytest.raises(UserError, match=r"has the judge number, and the answers of .* now ask for exact"):
        po.train(recipe, steps=3, resume=result.out, quiet=True, **settings)
