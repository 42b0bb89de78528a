"""The tests of a program, as a row of data has them, and whether an output passes."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policyopt.judging.kinds import short
from policyopt.sandbox import Call

MOST = 1000
"""Tests of a row."""


@dataclass(frozen=True)
class Test:
    """One test: of what a program prints for an input, or of what a call of it gives back."""

    __test__ = False  # for pytest, which collects what is called Test

    expected: Any
    """The text, or the value as JSON has it."""
    input: str = ""
    call: Call | None = None


def read_tests(text: str) -> list[Test]:
    """The tests that a row's answer is, as JSON: a list of ``{"input": TEXT, "expected": TEXT}`` and ``{"call": CALL, "expected": VALUE}``,
    where a call is ``"add(1, b=2)"`` or ``["add", 1, 2]``, or of lines ``"assert add(1, 2) == 3"``.

    Raises ``ValueError`` that names the test for anything else.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    if not isinstance(rows, list) or not rows or len(rows) > MOST:
        raise ValueError(f"is no list of 1 to {MOST} tests")
    return [_test(row, f"test {number}") for number, row in enumerate(rows, 1)]


def _test(row: Any, place: str) -> Test:
    if isinstance(row, str):
        return _asserted(row, place)
    if not isinstance(row, Mapping) or "expected" not in row or ("input" in row) == ("call" in row):
        raise ValueError(
            f"{place} is {short(json.dumps(row))}, expected an object with expected and either input or call"
        )
    if "input" in row:
        if not isinstance(row["input"], str) or not isinstance(row["expected"], str):
            raise ValueError(f"{place}: input and expected are texts, of stdin and stdout")
        return Test(row["expected"], input=row["input"])
    call = row["call"]
    if isinstance(call, str):
        return Test(row["expected"], call=_call(_expression(call, place), place))
    if isinstance(call, list) and call and isinstance(call[0], str):
        return Test(row["expected"], call=Call(call[0], call[1:]))
    raise ValueError(f'{place}: call is {short(json.dumps(call))}, expected a text as f(1, 2) or a list as ["f", 1, 2]')


def _asserted(line: str, place: str) -> Test:
    """``assert add(1, 2) == 3``, of which the program is shown the left side alone."""
    try:
        [found] = ast.parse(line.strip()).body
        assert isinstance(found, ast.Assert) and isinstance(found.test, ast.Compare)
        [same], [right] = found.test.ops, found.test.comparators
        assert isinstance(same, ast.Eq)
        return Test(_literal(right), call=_call(found.test.left, place))
    except (AssertionError, ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(
            f"{place} is {short(line)}, expected a line as: assert f(1, 2) == 3, of literals alone"
        ) from None


def _expression(text: str, place: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{place}: call is {short(text)}, which cannot be read") from None


def _call(node: ast.expr, place: str) -> Call:
    if isinstance(node, ast.Call) and all(keyword.arg for keyword in node.keywords):
        name = ast.unparse(node.func).replace("()", "")
        if all(part.isidentifier() for part in name.split(".")):
            named = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
            return Call(name, [_literal(x) for x in node.args], named)
    raise ValueError(
        f"{place}: expected the call of a function with literals, as f(1, b=2), not {short(ast.unparse(node))}"
    )


def _literal(node: ast.expr) -> Any:
    """A literal as JSON would bring it back. Raises ``ValueError`` for what JSON cannot say."""
    try:
        return json.loads(json.dumps(ast.literal_eval(node)))
    except TypeError:
        raise ValueError(f"{short(ast.unparse(node))} is nothing that JSON can say") from None


def same_output(given: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether a program has printed what it should: the same lines, blanks at their ends and empty lines at the end aside; with a
    tolerance the same words, numbers up to it (relative or absolute)."""
    one, other = (text.rstrip().splitlines() for text in (given, expected))
    if len(one) == len(other) and all(a.rstrip() == b.rstrip() for a, b in zip(one, other, strict=True)):
        return True
    words, wanted = given.split(), expected.split()
    return tolerance > 0 and len(words) == len(wanted) and all(
        a == b or _near(_number(a), _number(b), tolerance) for a, b in zip(words, wanted, strict=True)
    )  # fmt: skip


def same_value(given: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether two values of JSON are equal: numbers by value, true and false apart from them, lists in order, objects by key."""
    if isinstance(expected, bool) or isinstance(given, bool):
        return given is expected
    if isinstance(expected, int | float) and isinstance(given, int | float):
        return given == expected or _near(given, expected, tolerance)
    if type(given) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(given) == len(expected) and all(
            same_value(a, b, tolerance) for a, b in zip(given, expected, strict=True)
        )
    if isinstance(expected, dict):
        return given.keys() == expected.keys() and all(same_value(given[k], x, tolerance) for k, x in expected.items())
    return bool(given == expected)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _near(a: float | None, b: float | None, tolerance: float) -> bool:
    try:
        return a is not None and b is not None and tolerance > 0 and math.isclose(
            a, b, rel_tol=tolerance, abs_tol=tolerance
        )  # fmt: skip
    except OverflowError:  # a whole number that no float can hold
        return False
