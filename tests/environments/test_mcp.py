"""Tools of real servers of the Model Context Protocol, over HTTP and over standard input and output."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from policyopt.environments.calls import Call
from policyopt.environments.names import maker
from policyopt.environments.world import Action, Environment
from policyopt.errors import UserError
from tests.environments.playing import call, heard, plain_text, play, visit
from tests.environments.servers import free_port, served

pytest.importorskip("mcp.server.mcpserver", reason="needs mcp 2 (pip install 'policyopt[mcp]')")
SERVER = str(Path(__file__).parent / "mcp_server.py")
ENV = f"PYTHONPATH={shlex.quote(':'.join(p for p in sys.path if p))}"
COMMAND = f"mcp:env {ENV} {sys.executable} {SERVER}"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    with served([sys.executable, SERVER, str(port)], port, tmp_path_factory.mktemp("mcp") / "log.txt"):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="module")
def over_http(address: str) -> Callable[[], Environment]:
    return maker(f"mcp:{address}", {}, lambda _: None)


@pytest.fixture(scope="module")
def over_pipes() -> Callable[[], Environment]:
    return maker(COMMAND, {"COLOUR": "green"}, lambda _: None)


def doing(*calls: tuple[str, dict[str, Any]]) -> Action:
    return Action("", [Call(name, arguments) for name, arguments in calls])


def test_an_episode_with_the_tools_of_a_server(over_http: Callable[[], Environment]) -> None:
    lines = (call("add", a=2, b=3), call("add", a="x"), call("nope"), "the answer is 5")
    [row] = play(over_http, lines, judged=True)
    said = heard(row)
    assert said[0] == "5"
    assert said[1].startswith("error: ") and "a" in said[1] and "integer" in said[1], (
        "what the server says of the arguments"
    )
    assert said[2] == "error: no tool is called 'nope'; nearest: add, tick, secret, wait, leave"
    assert row.finished and row.verdict is None, "the judge says what it was worth"
    told = plain_text().tokenizer.decode(row.context)
    assert '{"name":"add","description":"The sum of two numbers.","parameters":{' in told and '"required":["a"]' in told


def test_calls_of_one_turn(over_http: Callable[[], Environment]) -> None:
    said = visit(over_http(), doing(("add", {"a": 1}), ("add", {"a": 40, "b": 2})))
    assert [m["content"] for m in said[1].messages] == ["2", "42"]


def test_a_tool_that_blocks_is_given_up(over_http: Callable[[], Environment]) -> None:
    begun = time.monotonic()
    stuck, fine = play(over_http, (call("wait", seconds=60), "end"), (call("add", a=1), "end"), timeout=6, judged=True)
    assert time.monotonic() - begun < 40
    assert "the environment failed: wait took longer than 6 s" in stuck.verdict.reason and fine.verdict is None


def test_each_episode_has_a_process_of_its_own(over_pipes: Callable[[], Environment]) -> None:
    one, other = play(over_pipes, *[(call("tick"), call("tick"), call("secret"), "end")] * 2, judged=True)
    assert heard(one) == heard(other) == ["tick 1", "tick 2", "green"]


def test_a_server_that_dies_fails_the_episode_alone(over_pipes: Callable[[], Environment]) -> None:
    died, fine = play(over_pipes, (call("leave"), call("tick"), "end"), (call("tick"), "end"), timeout=20, judged=True)
    assert fine.verdict is None and heard(fine) == ["tick 1"]
    assert died.verdict is None or died.verdict.failed
    assert all("error: " in said for said in heard(died))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mcp:http://127.0.0.1:9/mcp", {}, r"--env mcp:http://127.0.0.1:9/mcp: the server cannot be reached: .*"),
        ("mcp:no-such-command --x", {}, "--env mcp:no-such-command --x: the server cannot be reached: .*No such file"),
        ("mcp:", {}, "--env mcp: expected a URL"),
        ("mcp:http://127.0.0.1:9/mcp", {"a": 1}, "is a server that runs already"),
    ],
)
def test_what_cannot_be_reached(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        maker(name, options, lambda _: None)


def test_without_the_package() -> None:
    with mock.patch.dict(sys.modules, {"mcp": None}):
        with pytest.raises(UserError, match=r"needs the package mcp .*policyopt\[mcp\]"):
            maker("mcp:x", {}, lambda _: None)
