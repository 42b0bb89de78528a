"""The page of TON."""

from __future__ import annotations

import asyncio

import pytest

from policyopt.methods.modes.ton import EMPTY, FORM, ThoughtDropout, dropped, ton
from policyopt.methods.preference.sft import sft
from policyopt.parts import Regex
from policyopt.sources.program import Context, Question

WORKED = "<think>two and two</think><answer>4</answer>"


def test_a_thought_has_to_be_written_and_may_be_empty() -> None:
    form, empty = Regex(FORM), Regex(EMPTY)
    texts = (WORKED, "<think></think> <answer>4</answer>", "<think>\n\n</think>\n<answer>4</answer>\n")
    assert [bool(form(text)) for text in texts] == [True] * 3
    assert [bool(empty(text)) for text in texts] == [False, True, True]
    wrong = ("<answer>4</answer>", "<think>a<answer>4</answer>", f"{WORKED} so", f"so {WORKED}", "<think>a</think>4")
    assert not any(form(text) for text in wrong)


def test_a_hostile_text_takes_no_time() -> None:
    assert not Regex(FORM)("<think>" + "</think><answer>" * 3000 + "</answer>" * 3000 + "x")


def test_all_right_answers_in_form_are_worth_the_same() -> None:
    weights = dict(ton().get("shape.WeightedSum.weights"))
    assert weights == {"correct": 1.0, "form": 1.0}, "length and skipping count nothing"


def test_dropout_takes_the_thought_and_nothing_else() -> None:
    assert dropped(WORKED, 0.4, 0.5) == "<think>\n\n</think><answer>4</answer>"
    assert dropped(WORKED, 0.5, 0.5) == WORKED
    assert dropped(WORKED, 0.0, 0.0) == WORKED, "never at 0"
    assert dropped("4", 0.0, 1.0) == "4"
    assert dropped(WORKED, 0.0, 1.0, r"\1") == r"<think>\1</think><answer>4</answer>"


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_the_source_drops_a_share_of_the_thoughts(p: float) -> None:
    program = ThoughtDropout(p=p)
    assert sft().replace(source=program).source == program
    context = Context(
        None, program, encode=lambda text: tuple(map(ord, text)), decode=lambda ids: "".join(map(chr, ids)), end=(0,)
    )  # type: ignore[arg-type]
    empty = 0
    for step in range(100):
        question = Question((1,), 99, (0, step, 0), given={"completion": (*map(ord, WORKED), 0)})
        [row] = asyncio.run(program.draw(question, context))
        [again] = asyncio.run(program.draw(question, context))
        assert row.tokens == again.tokens and row.tokens[-1] == 0
        empty += "\n\n" in "".join(map(chr, row.tokens))
    assert empty == {0.0: 0, 1.0: 100}.get(p, empty) and (p != 0.5 or 30 < empty < 70)
