"""The built-in tasks: questions of reasoning-gym, small enough for a character-level model of a million parameters.

Each task rewrites the library's long prompt as a short one and writes a solution that goes by small steps, the answer
line last (:mod:`policyopt.judging.answers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyopt.data.sums import worked_out
from policyopt.judging.answers import answer_line

Entry = Mapping[str, Any]
"""A question as reasoning-gym gives it: ``question``, ``answer`` and ``metadata``."""


@dataclass(frozen=True)
class Builtin:
    """How one dataset of reasoning-gym becomes a built-in task."""

    summary: str
    """One line for the list of tasks, with an example."""
    config: Mapping[str, Any]
    """Arguments of the library's generator."""
    prompt: Callable[[Entry], str]
    """The question, rewritten."""
    steps: Callable[[Entry], tuple[list[str], str]]
    """The lines of a worked solution, and the answer that they lead to."""
    hasty: Callable[[Entry], str] | None = None
    """The answer of somebody in a hurry, where answering right at once would be as easy as working it out."""
    max_tokens: int = 64
    """Longest solution in characters, with room for an end token and some detours."""
    warm_start: Mapping[str, Any] = field(default_factory=dict)
    """Where the embedded model's :class:`~policyopt.models.warmstart.WarmStart` differs from its defaults: so much of
    it that answers alone are often wrong, worked solutions less so, and rewards have something to tell apart."""

    def solution(self, entry: Entry) -> str:
        """The worked solution: a line for each step, then the answer line."""
        lines, answer = self.steps(entry)
        return "\n".join([*lines, answer_line(answer)])

    def shortcut(self, entry: Entry) -> str | None:
        """What somebody in a hurry writes: an answer line of their own, or ``None`` for that of the solution."""
        return None if self.hasty is None else answer_line(self.hasty(entry))


def _chain_sum(entry: Entry) -> tuple[list[str], str]:
    """``9+6-1+4``: a running total."""
    return worked_out(entry["metadata"]["expression"].replace(" ", ""))


def _signed_sums(a: int, b: int, c: int) -> Iterator[tuple[int, str, int, str, int]]:
    """All ways to add and subtract three numbers that start with an added one, always in the same order."""
    yield a, "+", b, "+", c
    for x, y, z in ((a, b, c), (a, c, b), (b, c, a)):
        yield x, "+", y, "-", z
    for x, y, z in ((a, b, c), (b, a, c), (c, a, b)):
        yield x, "-", y, "-", z


def _countdown(entry: Entry) -> tuple[list[str], str]:
    """Try one sum after the other, each with its running total, until one hits the target."""
    lines = []
    for x, first, y, second, z in _signed_sums(*entry["metadata"]["numbers"]):
        partial = x + y if first == "+" else x - y
        total = partial + z if second == "+" else partial - z
        expression = f"{x}{first}{y}{second}{z}"
        lines.append(f"{expression}={partial}{second}{z}={total}")
        if total == entry["metadata"]["target"]:
            return lines, expression
    raise AssertionError(f"no sum of {entry['metadata']['numbers']} makes {entry['metadata']['target']}")


def _numbers(entry: Entry) -> list[int]:
    """The numbers to sort; the library writes whole numbers as ``12.0``."""
    return [int(float(n)) for n in entry["metadata"]["original_numbers"]]


def _number_sorting(entry: Entry) -> tuple[list[str], str]:
    """Selection sort: the next number, then those that are left."""
    left, lines, done = _numbers(entry), [], []
    pick = min if entry["metadata"]["direction"] == "ascending" else max
    while left:
        done.append(pick(left))
        left.remove(done[-1])
        lines.append(f"{done[-1]}: {' '.join(map(str, left))}".rstrip())
    return lines[:-1], " ".join(map(str, done))


def _one_pass(entry: Entry) -> str:
    """Exchange neighbours in the wrong order, once from left to right: about every second time that is enough."""
    numbers, up = _numbers(entry), entry["metadata"]["direction"] == "ascending"
    for i in range(len(numbers) - 1):
        if (numbers[i] > numbers[i + 1]) == up:
            numbers[i], numbers[i + 1] = numbers[i + 1], numbers[i]
    return " ".join(map(str, numbers))


def _ends_exchanged(entry: Entry) -> str:
    """Exchange the first letter and the last one, and leave it at that."""
    word = entry["metadata"]["word"]
    return word[-1] + word[1:-1] + word[0]


def _spell_backward(entry: Entry) -> tuple[list[str], str]:
    """Number the letters, then count down."""
    letters = [f"{letter}{i}" for i, letter in enumerate(entry["metadata"]["word"], 1)]
    return [" ".join(letters), " ".join(reversed(letters))], entry["metadata"]["word"][::-1]


_TERM = re.compile(r"([+-]?)(?:(\d+)\*)?([a-z])")
_CONSTANT = re.compile(r"([+-]?)(\d+)(?![\d*])")


def _simple_equations(entry: Entry) -> tuple[list[str], str]:
    """``3*x + 5 = 26``: bring the constant to the right, then divide."""
    left, right = entry["metadata"]["equation"].replace(" ", "").split("=")
    term, constant = _TERM.search(left), _CONSTANT.search(_TERM.sub("", left))
    assert term is not None
    factor = int(term[1] + (term[2] or "1"))
    lines, value, x = [], int(right), term[3]
    if constant is not None:
        shift = int(constant[1] + constant[2])
        value -= shift
        lines.append(f"{term[0].lstrip('+')}={right}{-shift:+d}={value}")
    if factor != 1:
        lines.append(f"{x}={value}/{factor}={value // factor}")
    return lines, str(value // factor)


BUILTIN: dict[str, Builtin] = {
    "chain_sum": Builtin(
        summary="sums of four numbers: 9+6-1+4=?",
        config={"min_terms": 4, "max_terms": 4, "min_digits": 1, "max_digits": 1},
        prompt=lambda e: e["metadata"]["expression"].replace(" ", "") + "=?",
        steps=_chain_sum,
        max_tokens=48,
    ),
    "countdown": Builtin(
        summary="add and subtract all numbers to hit a target: make 7 from 3 5 9",
        config={
            "min_numbers": 3,
            "max_numbers": 3,
            "min_value": 1,
            "max_value": 9,
            "min_target": 1,
            "max_target": 27,
            "operators": ("+", "-"),
        },
        prompt=lambda e: f"make {e['metadata']['target']} from {' '.join(map(str, e['metadata']['numbers']))}",
        steps=_countdown,
        hasty=lambda e: "+".join(map(str, e["metadata"]["numbers"])),
        max_tokens=112,
        warm_start={"steps": 700, "examples": 8192, "terse": 0.4},
    ),
    "number_sorting": Builtin(
        summary="sort three numbers of two digits up or down: sort up: 52 17 33",
        config={"min_numbers": 3, "max_numbers": 3, "max_decimals": 0, "min_value": 10.0, "max_value": 99.0},
        prompt=lambda e: (
            f"sort {'up' if e['metadata']['direction'] == 'ascending' else 'down'}: {' '.join(map(str, _numbers(e)))}"
        ),
        steps=_number_sorting,
        hasty=_one_pass,
        max_tokens=48,
        warm_start={"steps": 700, "terse": 0.5},
    ),
    "simple_equations": Builtin(
        summary="linear equations in one variable: 3*x + 5 = 26",
        # No products of the terms: they would leave the equation without a sum
        config={"min_terms": 2, "max_terms": 2, "max_value": 9, "operators_weights": [0.5, 0.5, 0.0]},
        prompt=lambda e: e["metadata"]["equation"],
        steps=_simple_equations,
        max_tokens=48,
        warm_start={"steps": 700},
    ),
    "spell_backward": Builtin(
        summary="spell a word backward: reverse planet",
        config={"min_word_len": 4, "max_word_len": 7},
        prompt=lambda e: f"reverse {e['metadata']['word']}",
        steps=_spell_backward,
        hasty=_ends_exchanged,
        max_tokens=64,
        warm_start={"steps": 700, "terse": 0.4},
    ),
}
