"""The judges on a table of answers, and how an answer is found and read."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.judging.answers import find_answer, spoken
from policyopt.judging.judges import check_judge, make_judge
from policyopt.judging.mathematics import OutOfTime, limited
from policyopt.judging.values import read_value
from tests.judging.table import TABLE


def verdict(judge: str, answer: str, response: str, **options: object) -> Verdict:
    return make_judge(JudgeSpec(judge, options))(Example("e", user("q"), answer), response)


@pytest.mark.parametrize(("judge", "answer", "response", "right"), TABLE)
def test_the_table(judge, answer, response, right) -> None:
    start = time.process_time()
    found = verdict(judge, answer, response)
    assert (found.correct, found.failed) == (right, False), found
    assert time.process_time() - start < 6


def test_the_table_has_both_outcomes_of_everything() -> None:
    assert len(TABLE) == len(set(TABLE)) >= 150
    wrong = Counter(judge for judge, _, _, right in TABLE if not right)
    assert wrong.total() >= 0.4 * len(TABLE)
    assert wrong.keys() >= {"number", "math", "choice", "exact"}


@pytest.mark.parametrize(
    ("think", "response", "said"),
    [
        ("think", "<think>a</think>b", "b"),
        ("think", "a</think>b", "b"),
        ("think", "b", "b"),
        ("think", "b<think>a", ""),
        ("reasoning", "<reasoning>a</reasoning>b", "b"),
        ("reasoning", "<think>a</think>b", "<think>a</think>b"),
        ("[THINK] [/THINK]", "[THINK]a[/THINK]b", "b"),
        ("[THINK] [/THINK]", "[THINK]a", ""),
        ("</think>", "a", ""),
        ("</think>", "a</think>b", "b"),
    ],
)
def test_what_is_thought_is_not_said(think, response, said) -> None:
    assert spoken(response, think) == said
    check_judge(JudgeSpec("exact", {"think": think}))
    assert verdict("exact", "b", response, think=think).correct == (said == "b")


def test_tag_of_thoughts_is_checked() -> None:
    with pytest.raises(UserError, match="option think is '', expected a tag"):
        check_judge(JudgeSpec("number", {"think": ""}))


@given(st.text(alphabet="0123456789.,-+/*^= ${}()\\%xabc\u00bd\u00b2", max_size=60))
def test_any_text_has_a_value_or_none(text) -> None:
    value = read_value(text)
    assert value is None or any(c.isdigit() or c in "\u00bd\u00b2" for c in text)


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([", ", ",", " or ", " - ", "-", ":", ";", " to ", " and ", "..."]),
)
def test_two_numbers_are_no_value(a, b, between) -> None:
    value = read_value(f"{a}{between}{b}")
    grouped = between == "," and 0 < a < 1000 and len(str(b)) == 3
    assert value is None or not value.finished or (grouped and value.number == 1000 * a + b)


@pytest.mark.parametrize("piece", ["<answer>", "\\boxed{", "answer to ", "the answer is ", "\\boxed{1}", "{", "** ", "$ ", "\\(", "####\n", "<think>", "1,", "9^"])  # fmt: skip
def test_hostile_text_takes_linear_time(piece) -> None:
    text = piece * (300_000 // len(piece))
    start = time.process_time()
    for judge, answer in {"number": "2", "choice": "A", "exact": "a"}.items():
        assert not verdict(judge, answer, text).correct
    assert time.process_time() - start < 4


def never_done() -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:
            continue


def test_a_comparison_is_ended_in_time() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(OutOfTime), limited(0.05):
        never_done()
    assert signal.getsignal(signal.SIGVTALRM) == before
    with limited(0.05):
        pass
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass


def test_answer_lines_are_as_many_as_the_reference_has() -> None:
    text = "####\n1 2\n3 4\nand so on"
    assert find_answer("####" + text[4:].replace("\n", " ", 1), lines=2) == "1 2\n3 4"
    assert find_answer(text, lines=2) == "1 2\n3 4"
    assert find_answer(text) is None
