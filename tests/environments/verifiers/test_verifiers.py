"""An environment of verifiers plays unchanged against the policy's endpoint: the real package, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from policyopt.environments.verifiers import nested, opened
from policyopt.errors import UserError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found() -> Any:
    folder = os.environ.get("POLICYOPT_VERIFIERS")
    if not folder:
        pytest.skip("set POLICYOPT_VERIFIERS to a folder that tests/environments/verifiers/setup.sh has made")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(HERE)])}
    line = [f"{folder}/bin/python", str(HERE / "playing.py"), "{}"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=240)
    assert "FOUND " in done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout.partition("FOUND ")[2])


@pytest.mark.heavy
def test_a_rollout_asks_the_policy_and_is_worth_what_its_rewards_say(found: Any) -> None:
    right, wrong = (
        {"letters": 5.0, "reward_right": 1.0, "reward": 2.0},
        {"letters": 1.0, "reward_right": 0.0, "reward": 0.0},
    )
    assert found["played"] == [wrong, right, right, right, right], "by index, round again, and by seed"
    paths, talks = zip(*found["asked"], strict=True)
    assert set(paths) == {"/KEY/v1/chat/completions"}, "the address tells the episode"
    assert sorted(map(len, talks)) == [1] * 5 + [3] * 5


@pytest.mark.heavy
def test_the_same_by_an_environment_server(found: Any) -> None:
    assert [p["reward"] for p in found["served"]] == [0.0, 2.0]
    assert found["nobody"] == "ConnectionError: no environment server of verifiers answers at tcp://127.0.0.1:9"


@pytest.mark.heavy
def test_what_is_refused(found: Any) -> None:
    assert found["tasks"] == 3
    assert (
        "--env verifiers:no-such-taskset: ModuleNotFoundError: taskset 'no-such-taskset' not found" in found["unknown"]
    )
    assert "taskset.most: expected a whole number, not 'many'" in found["wrong"]
    assert (
        "the harness 'bash' runs what the model writes" in found["code"]
        and "agent.runtime.type=docker" in found["code"]
    )
    assert found["down"].startswith("RuntimeError: ProviderError"), "the episode fails, the run goes on"


def test_options_by_path() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    with pytest.raises(UserError, match=r"--env-options a.b: a is a value there already"):
        nested({"a": 1, "a.b": 2})


def test_without_the_package() -> None:
    try:
        import verifiers.v1  # noqa: F401
    except ImportError:
        with pytest.raises(
            UserError, match=r"--env verifiers:words needs the package verifiers .*policyopt\[verifiers\]"
        ):
            opened("words", {})
