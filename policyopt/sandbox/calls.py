"""Functions of a model's program, called in the sandbox.

The program gets calls and gives back values, as JSON, one line for each. What a value has to be never enters the sandbox: it is compared
outside, as plain data, by the caller. So there is no verdict in there that could be forged, and no secret that could be read: a program
that takes over the channel, by looking through frames, replacing ``json`` or ``print`` or writing to the pipe itself, can do nothing
with it but answer. An answer that it did not give is wrong, however the process ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyopt.sandbox.limits import Limits, Result
from policyopt.sandbox.python import Python
from policyopt.sandbox.running import run

HARNESS = """\
import builtins, json, os, sys, traceback
builtins.exit = builtins.quit = sys.exit
calls = [json.loads(line) for line in sys.stdin.buffer]
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
nothing = os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0)
os.dup2(nothing, 1)

def answer(number, found):
    answers.write(json.dumps([number, found]) + "\\n")
    answers.flush()

space = {"__name__": "solution"}
try:
    with open("solution.py", encoding="utf-8", errors="surrogateescape") as file:
        exec(compile(file.read(), "solution.py", "exec"), space)
except BaseException as error:
    answer(-1, {"error": traceback.format_exception_only(type(error), error)[-1].strip()[:300]})
    sys.exit(1)
for number, name, arguments, named in calls:
    try:
        value = space
        for i, part in enumerate(name.split(".")):
            value = value[part] if i == 0 else getattr(value() if isinstance(value, type) else value, part)
        answer(number, {"value": value(*arguments, **named)})
    except BaseException as error:
        answer(number, {"error": traceback.format_exception_only(type(error), error)[-1].strip()[:300]})
"""
"""Loads the program, whose own words on stdout are dropped, and answers call after call."""


@dataclass(frozen=True)
class Call:
    """One call: ``Call("add", (3, 4))``; ``Solution.add`` makes an object of the class first."""

    function: str
    arguments: Sequence[Any] = ()
    """What JSON can say."""
    named: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """What came back."""

    value: Any = None
    error: str = ""
    """Why there is no value; the program's own words, or how its process ended."""


def called(code: str, calls: Sequence[Call], interpreter: Python, limits: Limits, total: float) -> list[Reply]:
    """What the functions of a program give back, call by call, in order.

    Calls share a process until it ends. Where it ends or is out of time at a call, that call has failed if it had all the time
    (``limits.wall``) to itself, and the others go on in a new process, within ``total`` seconds for all of them.

    Raises as :func:`~policyopt.sandbox.running.run`.
    """
    replies: list[Reply | None] = [None] * len(calls)
    first, end = 0, time.monotonic() + total
    while first < len(calls):
        left = end - time.monotonic()
        if left <= 0:
            replies[first:] = [Reply(error=f"no time left, {total:g} s for all tests")] * (len(calls) - first)
            break
        bounds = Limits(**{**vars(limits), "wall": min(limits.wall, left)})
        lines = [
            json.dumps([i, c.function, [*c.arguments], dict(c.named or {})]) for i, c in enumerate(calls) if i >= first
        ]
        result = run(
            [*interpreter.command, "harness.py"], {"harness.py": HARNESS, "solution.py": code}, bounds, "\n".join(lines),
            reads=interpreter.reads,
        )  # fmt: skip
        found = _read(result.stdout, first, len(calls))
        if -1 in found:  # the program itself does not load, and will not the next time
            replies[first:] = [found[-1]] * (len(calls) - first)
            break
        reached = first
        while reached in found:
            replies[reached] = found[reached]
            reached += 1
        if reached < len(calls) and (reached == first or result.status != "time"):
            replies[reached] = Reply(error=ended(result))
            reached += 1
        first = reached
    return [reply or Reply(error="no answer") for reply in replies]


def _read(text: str, first: int, count: int) -> dict[int, Reply]:
    """The replies that stand in what a program wrote; what is none, or a second one, is passed over."""
    found: dict[int, Reply] = {}
    for line in text.splitlines():
        try:
            number, said = json.loads(line)
            known = isinstance(number, int) and (number == -1 or first <= number < count) and number not in found
            if known and isinstance(said, dict):
                failed = number == -1 or "value" not in said
                found[number] = Reply(error=str(said["error"])[:300]) if failed else Reply(value=said["value"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found


def ended(result: Result) -> str:
    """How a program ended, in words that are quoted where they are its own."""
    words = {
        "time": "took too long", "memory": "ran out of memory", "output": "wrote too much", "processes": "started too many processes",
        "signal": f"was ended by signal {-(result.code or 0)}", "exit": f"ended with exit code {result.code}", "ok": "ended early",
    }  # fmt: skip
    last = result.stderr.strip().splitlines()[-1:] if result.status in ("exit", "signal") else []
    return words[result.status] + (f": {last[0][:120]!r}" if last else "")
