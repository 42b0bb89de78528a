"""Whole runs with somebody's agent in the place of the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import policyopt
from policyopt.data import load_task
from policyopt.environments.names import maker
from policyopt.errors import UserError
from policyopt.qualified import lookup
from tests.commands import lines, write_rows

ROOT = Path(__file__).parents[2]

AGENT = '''
"""Asks, sums up what it heard, asks again, and goes on from there: two rows an episode."""
import json
import urllib.request


def ask(base_url, messages):
    body = json.dumps({"messages": messages, "temperature": 0}).encode()
    request = urllib.request.Request(base_url + "/chat/completions", body)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]


def run(base_url, prompt, topic, seed):
    assert topic.startswith("topic")
    first = ask(base_url, prompt)["content"]
    messages = [{"role": "user", "content": f"so far {len(first)}"}]
    messages.append(ask(base_url, messages))
    second = ask(base_url, [*messages, {"role": "user", "content": "and?"}])["content"]
    return {"reward": sum(map(ord, first + second)) % 7 / 6, "letters": len(first)}
'''


def test_a_run_whose_episodes_are_several_rows(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    task = write_rows(
        tmp_path / "data.jsonl", ({"prompt": f"{i}?", "topic": f"topic {i}", "answer": "?"} for i in range(40))
    )
    result = policyopt.train(
        policyopt.methods.grpo(group_size=4), model=str(tiny_model), task=str(task), env=f"agent:{tmp_path / 'agent.py'}:run",
        steps=2, batch=16, max_tokens=40, device="cpu", out=tmp_path / "run", log_samples=100, quiet=True,
        eval={"samples": 2, "k": 2, "prompts": 4},
    )  # fmt: skip
    steps = [row for row in lines(result.out / "metrics.jsonl") if row["step"]]
    assert len(steps) == 2
    for row in steps:
        assert row["responses"] == 32, "two rows for each of 16 episodes"
        assert 0 < row["reward/mean"] < 1 and row["grad_norm"] > 0
        assert row["component/letters"] >= 0
    assert result.summary["after"]["n"] == 4, "an evaluation counts episodes"


def test_what_is_no_agent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Run: pass\n\ndef run(base_url): return 0.0\n\nx = 3\n")
    file = tmp_path / "a.py"

    def said(name: str, **options: Any) -> str:
        with pytest.raises(UserError) as raised:
            maker(name, options, lookup)
        return str(raised.value)

    assert "agent:my_agent.py:run" in said("agent:nothing")
    assert "a class" in said(f"agent:{file}:Run") and "int" in said(f"agent:{file}:x")
    assert "nearest: run" in said(f"agent:{file}:rum")
    assert "turns, temperature" in said(f"agent:{file}:run", turn=3)
    assert "whole number" in said(f"agent:{file}:run", turns=0)
    assert "run or agent" in said(f"agent:{file}:run", temperature=0.5)
    assert maker(f"agent:{file}:run", {"turns": 3, "temperature": "agent"}, lookup)().turns == 3


def test_an_argument_that_no_row_brings_ends_the_run_with_its_name(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("def run(base_url, topics):\n    return 0.0\n")
    task = write_rows(
        tmp_path / "data.jsonl", ({"prompt": f"{i}?", "topic": f"topic {i}", "answer": "?"} for i in range(40))
    )
    with pytest.raises(UserError, match="takes 'topics', which no row of the task brings; nearest: topic"):
        policyopt.train(
            policyopt.methods.grpo(group_size=4), model=str(tiny_model), task=str(task),
            env=f"agent:{tmp_path / 'agent.py'}:run", steps=1, batch=8, max_tokens=8, device="cpu", out=tmp_path / "run", quiet=True,
        )  # fmt: skip


def test_an_agent_may_take_the_questions_of_a_world() -> None:
    agent = f"agent:{ROOT / 'examples' / 'agent.py'}:run"
    task = load_task("calculator", env=agent)
    assert task.environment is not None and task.environment.name == agent
    assert task.train[0].prompt[0]["content"].endswith("=?") and task.lessons
    with pytest.raises(UserError, match="is an environment itself"):
        load_task("calculator", env="my_env.py:Name")


def test_the_example_solves_a_question_with_a_model_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sources.test_agents import rows_of

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "agent", raising=False)
    import agent

    def model(read: str) -> str:
        return "#### 4" if "<|user|>4<|end|>" in read else '{"name": "calc", "arguments": {"e": "2*2"}}'

    [row] = rows_of(agent.run, model)
    assert row.verdict is not None and row.verdict.score == 1.0
    [row] = rows_of(agent.run, lambda read: "#### 5")
    assert row.verdict is not None and row.verdict.score == 0.0
