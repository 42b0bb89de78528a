"""Judges that compare an answer with the reference: as text, pattern, number, letter, or mathematics."""

from __future__ import annotations

import re
from collections.abc import Callable

from policyopt.items import Example, Verdict
from policyopt.judging import mathematics
from policyopt.judging.answers import (
    THINK,
    Found,
    last_bold,
    last_formula,
    last_match,
    lines_of,
    locate,
    spoken,
    unwrapped,
)
from policyopt.judging.letters import LETTERS, choice_of, reference_letter
from policyopt.judging.values import Value, last_number, read_value, same_value

Judge = Callable[[Example, str], Verdict]


def short(text: str, limit: int = 80) -> str:
    """``text`` in quotes, cut in the middle where it is long."""
    half = limit // 2
    return repr(text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}")


def judged(correct: bool, formatted: bool, given: str | None, answer: str) -> Verdict:
    """A verdict of right (1) or wrong (0), with the reason in words."""
    if given is None:
        reason = "no answer found"
    else:
        reason = f"{short(given)} is right" if correct else f"{short(given)} is wrong, {short(answer)} is right"
    return Verdict(float(correct), correct, formatted, reason)


def _located(example: Example, response: str, think: str) -> tuple[Found | None, bool]:
    """The answer of a response, and whether it stands behind a mark that a format can ask for."""
    found = locate(response, lines=lines_of(example.answer), think=think)
    return found, found is not None and found.marked and bool(found.text)


# Text


def exact_judge(ignore_case: bool = False, think: str = THINK) -> Judge:
    """The answer is the same text, white space aside."""

    def plain(text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if ignore_case else text

    def judge(example: Example, response: str) -> Verdict:
        found, marked = _located(example, response, think)
        whole = spoken(response, think).strip()
        given, wanted = (whole if found is None else found.text), plain(example.answer)
        right = wanted in (plain(whole), plain(given), plain(unwrapped(given)))
        return judged(right, marked, given or None, example.answer)

    return judge


def regex_judge(pattern: str | None = None, think: str = THINK) -> Judge:
    """The row's answer is a pattern that the response matches, or ``pattern`` finds the answer."""
    compiled = None if pattern is None else re.compile(pattern)

    def judge(example: Example, response: str) -> Verdict:
        _, marked = _located(example, response, think)
        if compiled is None:
            found = re.search(example.answer, spoken(response, think))
            return judged(found is not None, marked, found[0] if found else None, example.answer)
        # A pattern without a group is about the form of the whole response, thoughts included
        last = last_match(compiled, spoken(response, think) if compiled.groups else response)
        if last is None:
            return Verdict(0.0, False, False, f"no match for {short(compiled.pattern)}")
        if compiled.groups == 0:
            return Verdict(1.0, True, True, f"{short(last[0])} matches")
        given = (last[1] or "").strip()
        return judged(given == example.answer.strip(), True, given, example.answer)

    return judge


# Numbers


def number_judge(tolerance: float = 0.0, think: str = THINK) -> Judge:
    """The answer is a number of the same value, up to ``tolerance`` (relative or absolute)."""

    def judge(example: Example, response: str) -> Verdict:
        wanted = mathematics.value_of(example.answer)
        if wanted is None:
            raise ValueError(f"the reference answer {short(example.answer)} is not a number")
        found, marked = _located(example, response, think)
        given = unmarked_number(spoken(response, think)) if found is None else found.text
        if not given:
            return judged(False, marked, None, example.answer)
        value = read_value(given)
        if value is None or not value.finished:
            return Verdict(0.0, False, marked, f"{short(given)} is not one number, {short(example.answer)} is right")
        return judged(same_value(wanted, value, tolerance), marked, given, example.answer)

    return judge


def unmarked_number(text: str) -> str | None:
    """The number that a text without a mark ends with: the last one in bold, else the last one."""

    def value(text: str) -> Value | None:
        return mathematics.value_of(text)

    return next((bold for bold in last_bold(text) if value(bold)), None) or last_number(text)


# Multiple choice


def choice_judge(letters: str = LETTERS, think: str = THINK) -> Judge:
    """The letter is the same."""

    def judge(example: Example, response: str) -> Verdict:
        found, marked = _located(example, response, think)
        given = choice_of(response, found, letters, think)
        if given is None and found is not None and found.text:
            return Verdict(
                0.0, False, marked, f"{short(found.text)} does not name one letter, {short(example.answer)} is right"
            )
        return judged(given == reference_letter(example.answer), marked, given, example.answer)

    return judge


# Mathematics


def math_judge(think: str = THINK) -> Judge:
    """The answer is mathematically equal (see :mod:`policyopt.judging.mathematics`)."""
    mathematics.prepare()

    def judge(example: Example, response: str) -> Verdict:
        if not mathematics.readable(example.answer):
            raise ValueError(f"math-verify cannot read the reference answer {short(example.answer)}")
        found, marked = _located(example, response, think)
        given = unmarked_mathematics(spoken(response, think)) if found is None else found.text
        right = bool(given) and mathematics.same_answer(example.answer, given or "")
        return judged(right, marked, given or None, example.answer)

    return judge


def unmarked_mathematics(text: str) -> str | None:
    """What a text without a mark ends with: its last formula, all of it where it is one, else its last number."""
    if formula := last_formula(text):
        return formula
    alone = text.strip()
    if alone and len(alone) <= 200 and "\n" not in alone and not re.search(r"[A-Za-z]{2,}\s+[A-Za-z]", alone):
        return alone
    return unmarked_number(text)
