"""Judges that are Python callables: sent to the worker, recorded honestly, asked for again."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

import policyopt as po
from policyopt.carried import Carried
from policyopt.data import JudgePool
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, user
from policyopt.judging.given import packed
from policyopt.judging.judges import judge_spec
from policyopt.judging.names import written
from policyopt.training.config import TrainConfig
from tests.commands import lines, write_sums

ROW = Example("d.jsonl:3", user("What?"), "42")
FACTOR = 2.0


def of_this_file(response: str) -> float:
    return FACTOR * len(response)


def judged(judge: Any, response: str = "abc") -> Any:
    with JudgePool(judge_spec(judge, None)) as pool:
        return pool([(ROW, response)])[0]


def test_a_function_that_a_fresh_interpreter_finds_goes_by_its_name() -> None:
    assert written(json.dumps) == "json:dumps"
    assert type(written(of_this_file)) is str and written(of_this_file) == f"{__name__}:of_this_file"


def test_a_closure_a_lambda_and_an_object_go_as_they_are() -> None:
    bonus = 5.0
    judges = {
        "closure": lambda response: len(response) + bonus,
        "partial": functools.partial(lambda response, by: by * len(response), by=0.5),
    }
    found = judged(judges)
    assert found.parts == {"closure": 8.0, "partial": 1.5} and found.score == 9.5


def test_two_lambdas_are_told_apart() -> None:
    names = written({"a": lambda response: 1, "b": lambda response: 2, "c": ("number", 0.5)})
    assert isinstance(names, tuple)
    assert names[1].startswith("b=<function ") and names[1].endswith(", number 2>:1.0")
    assert judged({"a": lambda response: 1, "b": lambda response: 2}).parts == {"a": 1, "b": 2}
    assert written(names) == names and all(isinstance(n, Carried) for n in names[:2])


def test_what_no_other_process_can_have_is_refused_before_one_starts() -> None:
    lock = threading.Lock()
    with pytest.raises(UserError, match=r"cannot be sent to the judge's process .*lock.*; define it in a file"):
        packed(judge_spec(lambda response: 1 if lock else 0, None))


def test_a_wrong_signature_is_refused() -> None:
    with pytest.raises(UserError, match=r"test_given.py, line \d+: <lambda>\(prompt\) cannot be called as"):
        judge_spec(lambda prompt: 1, None)


def test_a_raise_in_it_is_a_failed_verdict() -> None:
    def broken(response: str) -> float:
        raise RuntimeError("mine")

    found = judged(broken)
    assert found.failed and "RuntimeError: mine" in found.reason


def test_it_cannot_hang_the_run() -> None:
    def hangs(response: str) -> float:
        while response:
            pass
        return 1.0

    with JudgePool(judge_spec(hangs, None), timeout=0.3) as pool:
        assert [v.failed for v in pool([(ROW, "x"), (ROW, "")])] == [True, False]


def test_configurations_hold_their_own(tmp_path: Path) -> None:
    configs = [TrainConfig(recipe=po.methods.grpo(), judge=lambda response, by=by: by) for by in (1, 2)]
    assert configs[0].to_dict() == configs[1].to_dict(), "a name says nothing of what is in it"
    assert [judged(c.judge).score for c in configs] == [1, 2]
    assert "!!" not in configs[0].to_yaml()


def test_a_run_records_it_and_asks_for_it_again(tiny_model: Path, tmp_path: Path) -> None:
    data = write_sums(tmp_path / "sums.jsonl")
    scale = 3.0
    run: Any = {
        "model": str(tiny_model), "task": str(data), "batch": 8, "max_tokens": 4, "device": "cpu", "quiet": True,
        "eval": {"samples": 0, "prompts": 2}, "out": tmp_path / "run",
    }  # fmt: skip

    def mine(response: str) -> float:
        return scale * len(response)

    result = po.train(po.methods.grpo(group_size=4), judge=mine, steps=1, **run)
    recorded = yaml.safe_load((result.out / "config.yaml").read_text())["judge"]
    assert recorded.startswith("<function ") and "mine of tests.judging.test_given>" in recorded
    assert max(row["score"] for row in lines(result.out / "samples.jsonl")) >= 3
    with pytest.raises(UserError, match="was a function of a Python session, which is not here: give it again"):
        po.train(po.methods.grpo(group_size=4), judge=recorded, steps=2, resume=result.out, **run)
    again = po.train(po.methods.grpo(group_size=4), judge=mine, steps=2, resume=result.out, **run)
    assert again.summary["steps"] == 2


def test_a_script_is_not_run_again_by_its_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "with open('runs.txt', 'a') as f: f.write('run\\n')\n"
        "from policyopt.data import Example, JudgePool\n"
        "from policyopt.judging.judges import judge_spec\n"
        "def mine(response): return len(response)\n"
        "spec = judge_spec(mine, None)\n"
        "with JudgePool(spec) as pool: [v] = pool([(Example('e', ({'role': 'user', 'content': ''},), ''), 'abc')])\n"
        "print(spec.name, v.score)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "<function mine of script.py> 3.0\n", done.stderr
    assert (tmp_path / "runs.txt").read_text() == "run\n"


def test_a_name_from_a_file_carries_nothing() -> None:
    with pytest.raises(UserError, match=r"give it again, as judge=..., or put it into a file"):
        JudgePool(JudgeSpec("<function mine of notebook>"))
