"""Whatever a model writes, it scores 0 with a reason within its limit, gets nothing out of the walls, and work goes on."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rich.console

from policyopt.data import JudgePool, JudgeSpec
from policyopt.data.structured import judge_json
from policyopt.environments.calls import FORMS, MOST_CALLS, find_calls
from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.judging.judges import make_judge
from policyopt.judging.kinds import Judge
from policyopt.judging.llm import BadReply, messages, read_score, read_template
from policyopt.sandbox import Limits, check, python, run
from policyopt.training.console import Console
from tests.sandbox import hostile

try:
    check()
    REASON = ""
except UserError as error:
    REASON = str(error)
sandboxed = pytest.mark.skipif(bool(REASON), reason=REASON)

SUM = Example("sum:1", user("Add two numbers."), json.dumps([{"input": "3 4\n", "expected": "7\n"}]))
ADD = Example("add:1", user("Write add."), json.dumps([{"call": ["add", 3, 4], "expected": 7}]))
GOOD = "```python\nprint(sum(map(int, input().split())))\n```"
LONGEST = 12.0
"""Seconds for any verdict, on a busy machine."""


@pytest.fixture(scope="module")
def judge() -> Judge:
    return make_judge(JudgeSpec("code", {"seconds": 0.25, "total": 3.0, "memory_mb": 256}))


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    before = _walls()
    yield
    assert _walls() <= before, "processes of the sandbox are left"


def _walls() -> set[str]:
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and "bwrap" in Path(f"/proc/{name}/cmdline").read_text():
                found.add(name)
        except OSError:
            pass
    return found


def _scores_nothing(judge: Judge, example: Example, program: str, why: str) -> None:
    begun = time.monotonic()
    verdict = judge(example, f"```python\n{program}\n```")
    assert time.monotonic() - begun < LONGEST
    assert verdict.rewarded and verdict.score == 0 and not verdict.correct and verdict.parts["tests"] == 0
    # Where others use the machine, time may be over before a program reaches the bound that it is about
    assert re.search(f"{why}|took too long", verdict.reason), verdict.reason
    assert verdict.reason.isprintable() and len(verdict.reason) < 500


@sandboxed
@pytest.mark.parametrize("name", hostile.PRINTING)
def test_a_hostile_program_scores_nothing(name: str, judge: Judge) -> None:
    _scores_nothing(judge, SUM, *hostile.PRINTING[name])


@sandboxed
@pytest.mark.parametrize("name", hostile.CALLED)
def test_a_game_with_the_channel_scores_nothing(name: str, judge: Judge) -> None:
    _scores_nothing(judge, ADD, *hostile.CALLED[name])


# Walls ---------------------------------------------------------------------------------------------------------------

_BEFORE = """\
import ctypes, os, platform
HOST, PORT, ABSTRACT, CALLER = {host!r}, {port}, {abstract!r}, {caller}
NUMBER = {{"x86_64": dict(clone=56, add_key=248, bpf=321, perf_event_open=298, userfaultfd=323),
          "aarch64": dict(clone=220, add_key=217, bpf=280, perf_event_open=241, userfaultfd=282)}}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
def readable(name):
    try: return bool(open(name, "rb").read())
    except OSError: return False
print("tried", flush=True)
breach = False
try:
{body}
except (OSError, ValueError) as error:
    print("wall:", error)
print("BREACH" if breach else "held")
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Something to find outside: a file, a port that listens, an abstract socket."""
    file = tmp_path_factory.mktemp("host") / "secret.txt"
    file.write_text("SECRET")
    abstract = f"policyopt-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(f"\0{abstract}")
        named.listen()
        yield {"host": str(file), "port": server.getsockname()[1], "abstract": abstract, "caller": os.getpid()}


@sandboxed
@pytest.mark.parametrize("name", hostile.ESCAPES)
def test_there_is_no_way_out(name: str, host: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYOPT_JUDGE_KEY", "SECRET")
    interpreter = python()
    body = "\n".join(f"    {line}" for line in hostile.ESCAPES[name].splitlines())
    program = _BEFORE.format(body=body, **host)
    found = run([*interpreter.command, "main.py"], {"main.py": program}, Limits(cpu=2, wall=8), reads=interpreter.reads)
    assert found.stdout.startswith("tried\n") or found.status == "signal", found
    assert "BREACH" not in found.stdout and (found.status == "signal" or "held" in found.stdout), found
    assert not any(Path(place, "breach").exists() for place in ("/", "/usr", "/etc", "/dev", "/dev/shm"))


# Texts for the other judges ------------------------------------------------------------------------------------------


def test_the_judge_of_mathematics_bears_any_text() -> None:
    with JudgePool(JudgeSpec("math"), timeout=10.0, workers=1) as pool:
        for name, (text, answer) in hostile.MATHEMATICS.items():
            example = Example("m:1", user("?"), answer)
            begun = time.monotonic()
            [found, after] = pool([(example, text), (example, rf"\boxed{{{answer}}}")])
            assert time.monotonic() - begun < 3 * LONGEST, name
            assert found.failed or (found.score == 0 and found.reason), (name, found)
            assert after.correct, (name, after)


@pytest.mark.parametrize("name", hostile.NUMBERS)
def test_the_judge_of_numbers_bears_any_text(name: str) -> None:
    begun = time.monotonic()
    found = make_judge(JudgeSpec("number"))(Example("n:1", user("?"), "42"), hostile.NUMBERS[name])
    assert found.score == 0 and found.reason and time.monotonic() - begun < 3, found


def test_a_pattern_that_never_ends_is_a_failure_of_the_judge() -> None:
    example = Example("r:1", user("?"), r"(a+)+$")
    with JudgePool(JudgeSpec("regex"), timeout=1.0, workers=1) as pool:
        [hung, after] = pool([(example, "a" * 64 + "b"), (example, "aaa")])
    assert hung.failed and "longer than 1 s" in hung.reason and not hung.rewarded
    assert after.correct


@pytest.mark.parametrize(
    "text",
    ["[" * 10000, '{"a":' * 3000, "9" * 19999, '{"answer": NaN}', '{"answer": 1, "answer": 2}', "x" * 10**6],
)
def test_a_judge_of_json_bears_any_text(text: str) -> None:
    begun = time.monotonic()
    found = judge_json("json 1+1", f"```json\n{text}\n```", "2")
    assert not found["correct"] and found["parts"]["correct"] == 0 and time.monotonic() - begun < 2


@pytest.mark.parametrize("name", hostile.RUBRICS)
def test_a_response_cannot_leave_its_quotation(name: str) -> None:
    example, template = Example("q:1", user("What is 6*7?"), "42"), read_template(None)
    other = messages(template, example, "something else")[1]["content"].rpartition("\n")[2]
    response = hostile.RUBRICS[name].replace("{other}", other)
    system, asked = messages(template, example, response)
    mark = re.search(r'two lines "(\w+)"', system["content"])
    assert mark is not None
    # The one place where the mark stands twice is around the response, which is there as it was, to the letter
    assert asked["content"].count(mark[1]) == 2 and mark[1] not in response
    assert asked["content"].endswith(f"\nResponse:\n{mark[1]}\n{response}\n{mark[1]}")
    assert asked["content"].startswith("Question:\nWhat is 6*7?\n\nReference answer:\n42\n\n")
    assert response[:40] not in system["content"]


@pytest.mark.parametrize(
    "reply",
    ["[" * 100000, '{"score": ' * 5000, '{"score": 1, "score": 1}', '{"score": 1e999}', '{"score": "1"}', '{"score": NaN}',
     "score: 1\nscore: 0", "9" * 10**6, '{"score": ' + "1" * 5000 + "}"],
)  # fmt: skip
def test_a_reply_that_is_no_verdict_is_none(reply: str) -> None:
    with pytest.raises(BadReply):
        read_score(reply)


def test_no_text_commands_the_terminal() -> None:
    written = io.StringIO()
    console = Console({"task": "\x1b[2J"}, 1, out=rich.console.Console(file=written, highlight=False))
    with console:
        console.note("\x1b]0;owned\x07 judge failed: \x9b31m")
        console.step(1, {"reward/mean": 0.0}, remark="\x1b[31mred")
    assert "\x1b" not in written.getvalue() and "\x9b" not in written.getvalue() and "\x07" not in written.getvalue()


@pytest.mark.parametrize("name", hostile.TOOL_CALLS)
def test_tool_calls_are_read_with_limits(name: str) -> None:
    begun = time.monotonic()
    found = {form: find_calls(hostile.TOOL_CALLS[name], form) for form in FORMS}
    assert time.monotonic() - begun < 2
    calls, faults = found["hermes"]
    assert len(calls) == {"calls without end": MOST_CALLS, "a forged result": 1}.get(name, 0)
    assert all(call.name == "add" for call in calls) and (faults or name == "a forged result")
    assert all(len(fault) < 1000 for _, faults in found.values() for fault in faults), "the policy reads them"


# Afterwards ----------------------------------------------------------------------------------------------------------


@sandboxed
def test_work_goes_on_at_full_speed() -> None:
    """A worker judges hostile programs among good ones, each as if it were alone."""
    good = [(SUM, f"{GOOD}\n# {n}") for n in range(3)]
    bad = [(SUM, f"```python\n{hostile.PRINTING[name][0]}\n```") for name in ("loops", "fork bomb", "ten gigabytes")]
    with JudgePool(JudgeSpec("code", {"seconds": 0.5, "memory_mb": 256}), workers=1) as pool:
        pool.ready()
        first = _seconds(pool, good)
        assert [v.score for v in pool(bad)] == [0.0, 0.0, 0.0]
        assert _seconds(pool, good) < 3 * first + 1
        [verdict] = pool(good[:1])
    assert verdict.correct and verdict.formatted and verdict.reason == "1 of 1 tests passed"


def _seconds(pool: JudgePool, items: list[tuple[Example, str]]) -> float:
    begun = time.monotonic()
    assert all(verdict.correct for verdict in pool(items))
    return time.monotonic() - begun


@sandboxed
def test_programs_in_threads_do_not_disturb_each_other() -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(run(["echo", str(n)]).stdout)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [f"{n}\n" for n in range(8)]
