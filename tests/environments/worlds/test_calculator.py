"""The calculator: a tool that works products out."""

from __future__ import annotations

import random

import pytest

from policyopt.data.worlds import began
from policyopt.environments.worlds.calculator import Calculator, calc, call
from tests.environments.worlds.acting import acted, heard, said, total


@pytest.mark.parametrize(
    ("expression", "value"), [("12*34", 408), ("1+2*3-4", 3), ("7", 7), (" 3 * 3 ", 9), ("2-3-4", -5)]
)
def test_values(expression: str, value: int) -> None:
    assert calc(expression) == value


@pytest.mark.parametrize("expression", ["", "*", "1*", "1**2", "1/2", "__import__", "9" * 7, "1+" * 40 + "1", "(1)"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"expected|it ends|calc|whole"):
        calc(expression)


def test_who_calls_the_tool_reads_the_answer() -> None:
    world = began(Calculator(), 3)
    first = said(world, call(world.expression))
    assert heard(first) == world.answer()
    last = said(world, f"#### {heard(first)}")
    assert (last.done, last.correct, last.reward) == (True, True, 1.0)


def test_a_wrong_answer_and_a_wrong_call() -> None:
    world = began(Calculator(), 3)
    found = acted(world, [call("1/0"), '{"name":"eval","arguments":{}}', "#### 5"])
    assert [heard(o)[:7] for o in found[:2]] == ["error: "] * 2
    assert (total(found, "tool_errors"), total(found), found[-1].correct) == (2, 0.0, False)


def test_the_estimate_in_a_hurry_is_the_product_of_the_tens() -> None:
    world = began(Calculator(), 3)
    world.expression = "37*24"
    assert world.hasty(random.Random(0)) == "#### 600"


def test_states_tell_results_apart() -> None:
    world = began(Calculator(), 3)
    before = world.state()
    said(world, call("2*3"))
    assert world.state() != before
