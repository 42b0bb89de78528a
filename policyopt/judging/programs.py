"""Programs as answers: they run in the sandbox, on tests of which they see the questions alone."""

from __future__ import annotations

import functools
import time

from policyopt import sandbox
from policyopt.items import Example, Verdict
from policyopt.judging.answers import THINK
from policyopt.judging.calls import fills
from policyopt.judging.fences import program_of
from policyopt.judging.kinds import Judge, short
from policyopt.judging.program_tests import Test, read_tests, same_output, same_value

PART = "tests"
"""What the share of tests that a program has passed is called among the parts of a verdict."""
_SPARE = 30.0
"""Seconds that a verdict may take beyond what its programs may, on a busy machine."""
_START = """\
import builtins, sys
builtins.exit = builtins.quit = sys.exit
sys.argv = ["main.py"]
with open("main.py", encoding="utf-8", errors="surrogateescape") as file:
    code = compile(file.read(), "main.py", "exec")
exec(code, {"__name__": "__main__", "__builtins__": builtins})
"""
"""Starts a program without the packages of the site, which take longer to find than most programs run."""


def code_judge(
    seconds: float = 2.0,
    total: float = 10.0,
    memory_mb: int = 512,
    partial: bool = False,
    packages: bool = False,
    tolerance: float = 0.0,
    think: str = THINK,
) -> Judge:
    """The Python program of a response passes the tests of its row (:func:`~policyopt.judging.program_tests.read_tests`).

    The program is the last fenced block, or the whole response where nothing is fenced. Inputs go to its stdin, calls to its
    functions. Expected values never enter the sandbox (:mod:`policyopt.sandbox.calls`).

    Args:
        seconds: For one test, of processor time, rounded up; twice as much and one by the clock.
        total: For all tests of a response; those that had no time left have failed.
        memory_mb: MiB that a program may take.
        partial: The score is the share of tests that are passed, else 1 for all and 0 for fewer. ``correct`` means all.
        packages: Programs may import what is installed beside this library; starting takes longer.
        tolerance: Up to which numbers are the same, relative or absolute.
        think: The tag of a thought, in which no program is looked for.

    Raises:
        UserError: There is no sandbox here (:func:`policyopt.sandbox.check`), or a limit is out of range.
    """
    sandbox.check()
    # Processor time is what counts; a busy machine makes the wall clock run ahead of it
    limits = sandbox.Limits(cpu=seconds, wall=2 * seconds + 1, memory_mb=memory_mb)
    sandbox.Limits(wall=total)
    passed = functools.partial(_passed, limits=limits, total=total, packages=packages, tolerance=tolerance)

    def judge(example: Example, response: str) -> Verdict:
        tests = _tests(example.answer)
        code, fenced = program_of(response, think)
        if code is None:
            return Verdict(0.0, False, False, "no program found, or one that is too long", parts={PART: 0.0})
        right, reason = passed(code, tests)
        share = right / len(tests)
        said = f"{right} of {len(tests)} tests passed" + (f"; {reason}" if reason else "")
        return Verdict(share if partial else float(share == 1), share == 1, fenced, said, parts={PART: share})

    judge.patience = total + _SPARE  # type: ignore[attr-defined]
    return fills(judge, f"component[{PART}]")


@functools.lru_cache(maxsize=256)
def _tests(answer: str) -> list[Test]:
    return read_tests(answer)


def _passed(
    code: str, tests: list[Test], *, limits: sandbox.Limits, total: float, packages: bool, tolerance: float
) -> tuple[int, str]:
    """How many tests a program passes, and why the first one is not passed."""
    end = time.monotonic() + total
    printing = [test for test in tests if test.call is None]
    calls = [test.call for test in tests if test.call is not None]
    said: list[tuple[bool, str]] = [
        _printed(code, test, limits, end - time.monotonic(), packages, tolerance) for test in printing
    ]
    interpreter = _interpreter(packages)
    if calls:
        replies = sandbox.called(code, calls, interpreter, limits, max(0.0, end - time.monotonic()))
        wanted = [test.expected for test in tests if test.call is not None]
        for call, reply, expected in zip(calls, replies, wanted, strict=True):
            right = not reply.error and same_value(reply.value, expected, tolerance)
            why = short(reply.error) if reply.error else f"gave {short(repr(reply.value))}"
            said.append((right, f"{call.function}: {why}"))
    return sum(right for right, _ in said), next((why for right, why in said if not right), "")


def _printed(
    code: str, test: Test, limits: sandbox.Limits, left: float, packages: bool, tolerance: float
) -> tuple[bool, str]:
    if left <= 0:
        return False, "no time left"
    bounds = sandbox.Limits(**{**vars(limits), "wall": min(limits.wall, left)})
    interpreter = _interpreter(packages)
    files = {"start.py": _START, "main.py": code}
    found = sandbox.run([*interpreter.command, "start.py"], files, bounds, test.input, reads=interpreter.reads)
    if not found.ok:
        return False, sandbox.ended(found)
    return same_output(found.stdout, test.expected, tolerance), f"printed {short(found.stdout)}"


@functools.cache
def _interpreter(packages: bool) -> sandbox.Python:
    return sandbox.python(packages)
