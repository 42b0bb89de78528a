"""Environments on real OpenEnv servers, which run in an environment of their own."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from policyopt.environments.names import maker
from policyopt.environments.openenv import OpenEnvWorld, told
from policyopt.environments.world import Environment
from policyopt.errors import UserError
from tests.environments.playing import call, example, heard, plain_text, play
from tests.environments.servers import free_port, served

SERVER = Path(__file__).parent / "server.py"


@contextlib.contextmanager
def server(kind: str, tmp_path: Path, sessions: int = 8) -> Iterator[str]:
    folder = os.environ.get("POLICYOPT_OPENENV")
    if not folder:
        pytest.skip("set POLICYOPT_OPENENV to a folder that tests/environments/openenv/setup.sh has made")
    port = free_port()
    line = [f"{folder}/bin/python", str(SERVER), kind, str(port), str(sessions)]
    with served(line, port, tmp_path / f"{kind}.txt", {**os.environ, "PYTHONPATH": ""}):
        yield f"http://127.0.0.1:{port}"


def opened(url: str, **options: Any) -> Callable[[], Environment]:
    return maker(f"openenv:{url}", options, lambda _: None)


@pytest.mark.heavy
def test_an_action_that_is_one_text_is_the_whole_turn(tmp_path: Path) -> None:
    number = random.Random(5).randint(0, 9)
    with server("guess", tmp_path) as url:
        make = opened(url)
        won, lost, odd = play(
            make, ("hm", str((number + 1) % 10), str(number)), ("-",) * 3, ("crash", str(number)), turns=3
        )
        assert heard(won) == ["no number", "lower" if number < 9 else "higher"]
        assert (won.verdict.score, won.finished, won.columns["turn_reward"]) == (1.1, True, [0.0, 0.1, 1.0])
        assert (lost.verdict.score, lost.finished, lost.verdict.correct) == (0.0, False, False)
        assert heard(odd) == ["error: the world has crashed"] and odd.verdict.score == 1.0, "what goes wrong is read"
        assert "go\nGuess a number from 0 to 9." in plain_text().tokenizer.decode(won.context)
        [row] = play(opened(url, most=0), ("0",), row=example(most=3))
        assert "from 0 to 0" in plain_text().tokenizer.decode(row.context) and row.verdict.score == 1.0
        [row] = play(opened(url.replace("http", "ws") + "/"), ("1",), row=example(most=3))
        assert "from 0 to 3" in plain_text().tokenizer.decode(row.context), "columns of the row go to reset"


@pytest.mark.heavy
def test_any_other_action_is_a_tool(tmp_path: Path) -> None:
    lines = (call("act", steps=2), call("act", steps="x"), call("act", steps=1, left=True), call("act", steps=2), "end")
    with server("line", tmp_path) as url:
        [row] = play(opened(url), lines)
        assert heard(row)[0] == "at 2" and heard(row)[2] == "at 1" and row.finished
        assert heard(row)[1].startswith("error: Invalid message: steps: Input should be a valid integer")
        assert (row.verdict.score, row.columns["turn_reward"]) == (1.0, [0, 0, 0, 1])
        assert row.verdict.parts == {"tool_calls": 4, "tool_errors": 1}
        assert '"name":"act","description":"A move on the line."' in plain_text().tokenizer.decode(row.context)


@pytest.mark.heavy
def test_tools_of_the_server_keep_the_state_of_the_session(tmp_path: Path) -> None:
    lines = (
        call("tick", by=2),
        call("tick", by="x"),
        call("fail", why="oh no"),
        call("nope"),
        call("tick", by=3),
        "end",
    )
    with server("tools", tmp_path) as url:
        one, other = play(opened(url), lines, lines, judged=True)
        assert heard(one) == heard(other)
        said = heard(one)
        assert said[0] == "count 2" and said[4] == "count 5" and said[3].startswith("error: no tool is called 'nope'")
        assert said[1].startswith("error: ") and "oh no" in said[2] and said[2].startswith("error: ")
        assert one.verdict is None and one.finished


@pytest.mark.heavy
def test_a_server_with_few_sessions(tmp_path: Path) -> None:
    with server("guess", tmp_path, sessions=1) as url:
        rows = play(opened(url), *[("1", "2")] * 6, at_once=1, turns=2)
        assert all(not r.verdict.failed for r in rows), "a session that has just ended is waited for"
        with mock.patch("policyopt.environments.openenv._PATIENCE", 1.0):
            make = opened(url)
            with pytest.raises(
                UserError, match=r"ws://127.0.0.1:\d+/ws: .*capacity.*--episodes.at-once.*max_concurrent_envs"
            ):
                play(lambda: _slow(make()), *[("1", "2")] * 3, turns=2)


def _slow(made: Environment) -> Environment:
    """An environment whose steps take long."""
    step = made.step

    async def later(action: Any) -> Any:
        import asyncio

        await asyncio.sleep(4)
        return await step(action)  # type: ignore[misc]

    made.step = later  # type: ignore[method-assign, assignment]
    return made


@pytest.mark.heavy
def test_a_server_that_goes_away_fails_the_episodes_that_are_under_way(tmp_path: Path) -> None:
    with server("guess", tmp_path) as url:
        make = opened(url)
    [row] = play(make, ("1",))
    assert row.verdict.failed and "the environment failed" in row.verdict.reason


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://127.0.0.1:9",
            r"--env openenv:http://127.0.0.1:9: there is no OpenEnv server at http://127.0.0.1:9/schema: .*refused",
        ),
        ("localhost:8000", "--env openenv:localhost:8000: expected the URL of a server"),
    ],
)
def test_what_cannot_be_reached(url: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        opened(url)


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        ({"echo": "hi", "metadata": {"a": 1}, "legal": []}, "hi"),
        ({"board": [1, 0], "turn": 2}, '{"board":[1,0],"turn":2}'),
        ({"tool_name": "t", "result": {"content": [{"type": "text", "text": "a"}, {"type": "image"}]}}, "a\n[image]"),
        ({"tool_name": "t", "error": {"error_type": "timeout", "message": "too slow"}}, "error: too slow"),
        ({"metadata": {}}, ""),
        ("plain", "plain"),
        (None, ""),
    ],
)
def test_what_is_observed_is_told(seen: Any, text: str) -> None:
    assert told({"observation": seen}) == text


@pytest.mark.parametrize(
    ("properties", "required", "text"),
    [
        ({"message": {"type": "string"}, "metadata": {}}, ["message"], "message"),
        ({"message": {"type": "string"}, "loud": {"type": "boolean"}}, ["message"], "message"),
        ({"word": {"type": "string"}, "place": {"type": "integer"}}, ["word", "place"], None),
        ({"way": {"type": "string", "enum": ["left", "right"]}}, ["way"], None),
        ({"a": {"type": "string"}, "b": {"type": "string"}}, [], None),
        ({"tool_name": {"type": "string"}, "arguments": {"type": "object"}}, ["tool_name"], None),
    ],
)
def test_which_actions_are_one_text(properties: dict[str, Any], required: list[str], text: str | None) -> None:
    made = OpenEnvWorld("ws://x/ws", {"properties": properties, "required": required}, {})
    assert made.text == text
    assert bool(made.act) == (text is None and "tool_name" not in properties)


def test_without_the_package() -> None:
    with mock.patch.dict(sys.modules, {"websockets.asyncio.client": None}):
        with pytest.raises(UserError, match=r"needs the package websockets: .*policyopt\[openenv\]"):
            opened("http://127.0.0.1:9")
