"""The endpoint with the clients that people use: ``setup.sh`` makes their environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sources.test_agents import TOKENIZER, own, rows_of

ENVIRONMENT = Path(os.environ.get("POLICYOPT_AGENTS", "/nowhere"))
CLIENTS = Path(__file__).with_name("clients.py")
CALL = '{"name": "calc", "arguments": {"e": "2+2"}}'
FINAL = '{"name": "final_answer", "arguments": {"answer": "4"}}'

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not (ENVIRONMENT / "bin").is_dir(), reason="needs POLICYOPT_AGENTS (tests/environments/agents/setup.sh)"
    ),
]


def agent(name: str, found: list[Any]) -> Callable[[str], float]:
    """An agent that is a process of its own."""

    def run(base_url: str) -> float:
        line = [str(ENVIRONMENT / "bin" / "python"), str(CLIENTS), name, base_url]
        done = subprocess.run(line, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout.splitlines()[-1]))
        return 1.0

    return run


def test_the_openai_package() -> None:
    found: list[Any] = []
    rows = rows_of(agent("openai", found), lambda read: "It is 4" if "<|user|>4<|end|>" in read else CALL, seconds=100)
    assert [r.verdict.reason for r in rows if r.verdict] == ["the agent returned 1"]
    assert found[0]["said"] == "It is 4" and "n is 3" in found[0]["refused"]
    assert own(rows[0]) == f"{CALL}<|end|>It is 4<|end|>"


def test_requests_of_the_asynchronous_client_come_together() -> None:
    found: list[Any] = []
    rows = rows_of(agent("async_openai", found), lambda read: "4", seconds=100)
    assert found[0]["said"] == ["4"] * 3 and len(rows) == 3


def test_an_agent_of_smolagents() -> None:
    found: list[Any] = []
    rows = rows_of(
        agent("smolagents", found), lambda read: FINAL if "Observation" in read.rpartition("2+2=?")[2] else CALL,
        context=100_000, seconds=100,
    )  # fmt: skip
    assert [r.verdict.reason for r in rows if r.verdict] == ["the agent returned 1"] * len(rows)
    assert found[0]["said"] == "4"
    assert [own(r) for r in rows] == [f"{CALL}<|end|>", f"{FINAL}<|end|>"], "it writes its history in words of its own"
    assert "calc" in TOKENIZER.decode(list(rows[1].context))
