"""Judges that compare an answer with the reference: as text, pattern, number, letter, or mathematics."""

from __future__ import annotations

import functools
import logging
import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from policyopt.items import Example, Verdict
from policyopt.judging.answers import find_answer, last_match

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


# Text


def exact_judge(ignore_case: bool = False) -> Judge:
    """The answer is the same text, white space aside."""

    def plain(text: str) -> str:
        text = " ".join(text.split())
        return text.casefold() if ignore_case else text

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response)
        given = response.strip() if marked is None else marked
        return judged(plain(given) == plain(example.answer), marked is not None, given, example.answer)

    return judge


def regex_judge(pattern: str | None = None) -> Judge:
    """The row's answer is a pattern that the response matches, or ``pattern`` finds the answer."""
    compiled = None if pattern is None else re.compile(pattern)

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response) is not None
        if compiled is None:
            found = re.search(example.answer, response)
            return judged(found is not None, marked, found[0] if found else None, example.answer)
        last = last_match(compiled, response)
        if last is None:
            return Verdict(0.0, False, False, f"no match for {short(compiled.pattern)}")
        if compiled.groups == 0:
            return Verdict(1.0, True, True, f"{short(last[0])} matches")
        given = (last[1] or "").strip()
        return judged(given == example.answer.strip(), True, given, example.answer)

    return judge


# Numbers

# A sign counts unless something stands right before it: the last number of "12-3" is 3
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,4})?(?:/\d+)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST = 1000


def parse_number(text: str) -> Fraction | Decimal | None:
    """The last number in ``text``, exactly; ``None`` without one. Reads ``1,234.5``, ``-3``, ``1e-5`` and ``3/4``."""
    last = last_match(_NUMBER, text.replace("\u2212", "-"))
    if last is None or len(last[0]) > _LONGEST:
        return None
    top, _, bottom = last[0].replace(",", "").partition("/")
    value = Decimal(top)
    if not bottom:
        return value
    return Fraction(value) / int(bottom) if int(bottom) else None


def _float(value: Fraction | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def number_judge(tolerance: float = 0.0) -> Judge:
    """The last number of the answer is equal, up to ``tolerance`` (relative or absolute)."""

    def equal(a: Fraction | Decimal, b: Fraction | Decimal) -> bool:
        if tolerance == 0:
            return a == b if type(a) is type(b) else Fraction(a) == Fraction(b)
        x, y = _float(a), _float(b)
        return math.isfinite(x) and math.isfinite(y) and math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance)

    def judge(example: Example, response: str) -> Verdict:
        marked, wanted = find_answer(response), parse_number(example.answer)
        if wanted is None:
            raise ValueError(f"the reference answer {short(example.answer)} holds no number")
        given = parse_number(response if marked is None else marked)
        if given is None:
            return judged(False, marked is not None, None, example.answer)
        return judged(equal(given, wanted), marked is not None, str(given), example.answer)

    return judge


# Multiple choice


def choice_judge(letters: str = "ABCDE") -> Judge:
    """The letter is the same."""
    one = f"[{letters}]"
    marked_choice = re.compile(rf"(?<!\w)({one})(?!\w)")
    phrase = re.compile(rf"(?i:answer|choice|option)(?i:\s+is)?\s*:?\s*[(*\s]*({one})(?!\w)")
    # A letter as an answer is written: in brackets, before a bracket or a stop, or alone on its line
    loose = re.compile(rf"\(({one})\)|(?<!\w)({one})(?=[).:]|\s*$)", re.MULTILINE)

    def judge(example: Example, response: str) -> Verdict:
        marked = find_answer(response)
        given = None
        if marked is not None:
            first = marked_choice.search(marked)
            given = first[1] if first else None
        else:
            found = last_match(phrase, response) or last_match(loose, response)
            given = next(letter for letter in found.groups() if letter) if found else None
        return judged(given == choice_letter(example.answer), marked is not None, given, example.answer)

    return judge


def choice_letter(answer: str) -> str:
    """The letter of a reference answer such as ``B``, ``(B)`` or ``B.``."""
    return answer.strip().strip("().: ").upper()


# Mathematics


def math_judge() -> Judge:
    """The answer is mathematically equal, as math-verify sees it."""
    import math_verify

    # It warns that no time limit is set: the worker process has one
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    def parse(text: str) -> list[Any]:
        return list(math_verify.parse(text, parsing_timeout=None))

    def read(text: str) -> list[Any]:
        bare = "$" not in text and r"\boxed" not in text and r"\(" not in text and r"\[" not in text
        return parse(rf"\boxed{{{text}}}" if bare else text)

    wanted = functools.lru_cache(maxsize=1024)(read)

    def judge(example: Example, response: str) -> Verdict:
        reference, marked = wanted(example.answer), find_answer(response)
        if not reference:
            raise ValueError(f"math-verify cannot read the reference answer {short(example.answer)}")
        found = read(marked) if marked is not None else parse(response)
        if not found:
            return judged(False, marked is not None, marked, example.answer)
        correct = bool(math_verify.verify(reference, found, timeout_seconds=None))
        return judged(correct, marked is not None, marked if marked is not None else str(found[-1]), example.answer)

    return judge
