"""Programs as answers: they run in the sandbox, on tests of which they see the questions alone.

The program is the last fenced block of a response, or all of it where nothing is fenced. Inputs go to its stdin, calls to its functions.
Expected values never enter the sandbox (:mod:`policyopt.sandbox.calls`).
"""

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
NOTHING = "no program found, or one that is too long"
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
    timed: bool = False,
    prints: str = "",
    think: str = THINK,
) -> Judge:
    """The Python program of a response passes the tests of its row (:func:`~policyopt.judging.program_tests.read_tests`).

    The parts are ``tests``, the share of tests that are passed, and ``valid``, 1 where the program came to its end, or gave a value, in all of them.

    Args:
        seconds: For one test, of processor time, rounded up; twice as much and one by the clock.
        total: For all tests of a response; those that had no time left have failed.
        memory_mb: MiB that a program may take.
        partial: The score is the share of tests that are passed, else 1 for all and 0 for fewer.
        packages: Programs may import what is installed beside this library; starting takes longer.
        tolerance: Up to which numbers are the same, relative or absolute.
        timed: The part ``seconds`` says how long the program ran, which is another number every time.
        prints: Words with commas between them; the part ``prints`` says how many of them the outputs of tests with an input have.
        think: The tag of a thought, in which no program is looked for.

    Raises:
        UserError: There is no sandbox here (:func:`policyopt.sandbox.check`), or a limit is out of range.
    """
    sandbox.check()
    # Processor time is what counts; a busy machine makes the wall clock run ahead of it
    limits = sandbox.Limits(cpu=seconds, wall=2 * seconds + 1, memory_mb=memory_mb)
    sandbox.Limits(wall=total)
    wanted = [word for word in prints.split(",") if word]
    names = [PART, "valid", *(["seconds"] if timed else []), *(["prints"] if wanted else [])]

    def judge(example: Example, response: str) -> Verdict:
        tests = _tests(example.answer)
        code, fenced = program_of(response, think)
        if code is None:
            return Verdict(0.0, False, False, NOTHING, parts=dict.fromkeys(names, 0.0))
        found = _Tried(code, limits, sandbox.python(packages), tolerance, total)
        found.run(tests)
        share = found.right / len(tests)
        parts = found.parts(share, wanted)
        score = share if partial else float(share == 1)
        return Verdict(score, share == 1, fenced, found.said(len(tests)), parts={name: parts[name] for name in names})

    judge.patience = total + _SPARE  # type: ignore[attr-defined]
    return fills(judge, *(f"component[{name}]" for name in names))


@functools.lru_cache(maxsize=256)
def _tests(answer: str) -> list[Test]:
    return read_tests(answer)


class _Tried:
    """A program, and what its tests have shown."""

    def __init__(
        self, code: str, limits: sandbox.Limits, interpreter: sandbox.Python, tolerance: float, total: float
    ) -> None:
        self.code, self.limits, self.interpreter, self.tolerance = code, limits, interpreter, tolerance
        self.end, self.seconds = time.monotonic() + total, 0.0
        self.right, self.valid, self.reason, self.output = 0, True, "", ""

    def said(self, tests: int) -> str:
        """The reason of the verdict."""
        return f"{self.right} of {tests} tests passed" + (f"; {self.reason}" if self.reason else "")

    def parts(self, share: float, wanted: list[str]) -> dict[str, float]:
        """All that may be a part of the verdict."""
        prints = sum(word in self.output for word in wanted)
        return {PART: share, "valid": float(self.valid), "seconds": self.seconds, "prints": float(prints)}

    def run(self, tests: list[Test]) -> None:
        """All tests: those of output one by one, then the calls, in as few processes as they take."""
        for test in tests:
            if test.call is None:
                self._printed(test)
        calls = [(test.call, test.expected) for test in tests if test.call is not None]
        if not calls:
            return
        begun, left = time.monotonic(), max(0.0, self.end - time.monotonic())
        replies = sandbox.called(self.code, [call for call, _ in calls], self.interpreter, self.limits, left)
        self.seconds += time.monotonic() - begun
        for (call, expected), reply in zip(calls, replies, strict=True):
            right = not reply.error and same_value(reply.value, expected, self.tolerance)
            why = short(reply.error) if reply.error else f"gave {short(repr(reply.value))}"
            self._passed(right, not reply.error, f"{call.function}: {why}")

    def _printed(self, test: Test) -> None:
        left = self.end - time.monotonic()
        if left <= 0:
            self._passed(False, False, "no time left")
            return
        bounds = sandbox.Limits(**{**vars(self.limits), "wall": min(self.limits.wall, left)})
        command = [*self.interpreter.command, "start.py"]
        files = {"start.py": _START, "main.py": self.code}
        found = sandbox.run(command, files, bounds, test.input, reads=self.interpreter.reads)
        self.seconds += found.seconds
        self.output += found.stdout
        right = found.ok and same_output(found.stdout, test.expected, self.tolerance)
        self._passed(right, found.ok, f"printed {short(found.stdout)}" if found.ok else sandbox.ended(found))

    def _passed(self, right: bool, valid: bool, why: str) -> None:
        self.right += right
        self.valid &= valid
        if not right:
            self.reason = self.reason or why
