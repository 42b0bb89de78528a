r"""Whether two answers are mathematically equal: values by themselves, expressions as math-verify sees them.

Math-verify reads a wrong answer as right in places: words as products of letters, dates as differences, an open interval as a
set. What it is asked is therefore only what has the same shape as the reference, within limits of size and time.
"""

from __future__ import annotations

import functools
import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from policyopt.judging.answers import unwrapped
from policyopt.judging.values import Value, read_value, same_value

LONGEST = 1000
"""Characters of an expression that is looked at."""
SECONDS = 2.0
"""Processor time that one comparison may take; after that the answer is wrong."""

_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|operatorname|mbox)\s*\{([^{}]*)\}")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr?|!|,|;|:|quad|qquad| )(?![A-Za-z])|~")
_FUNCTIONS = "and|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp|sqrt|lim|max|min|gcd|lcm|mod|pi|oo|infty|det|dx|dy|dt"
_WORDS = re.compile(rf"(?<![A-Za-z\\])(?!(?:{_FUNCTIONS})(?![A-Za-z]))[A-Za-z]{{3,}}")
_DATE = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}|\d{1,2}:\d{2}(?::\d{2})?(?:\s*[ap]\.?m\.?)?|[\d.,]+\s*(?:[-:\u2013]|to)\s*[\d.,]+",
    re.IGNORECASE,
)
"""Dates, times, ranges and ratios."""
_LATEX_NAME = re.compile(r"\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+")
_RELATION = re.compile(r"[<>≤≥]|\\(?:le|ge|lt|gt|leq|geq|in)(?![A-Za-z])")
_NAMED = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([^()=]*\))?\s*=")
_OPEN, _CLOSED = "([{", ")]}"
_TOO_MUCH = (RecursionError, MemoryError, ValueError, ArithmeticError)


class OutOfTime(BaseException):
    """A comparison took longer than it may. No ``Exception``, so that no library takes it for an error of its own."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises :class:`OutOfTime` inside when the block takes more processor time; outside the main thread it has no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def end(number: int, frame: FrameType | None) -> None:
        if armed:
            raise OutOfTime

    old = signal.signal(signal.SIGVTALRM, end)
    # Again and again, should a bare "except" catch the first one
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 0.2)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)


@functools.lru_cache(maxsize=1024)
def value_of(text: str) -> Value | None:
    """The value of an answer that is worked out."""
    value = read_value(text)
    return value if value is not None and value.finished else None


def same_answer(wanted: str, given: str) -> bool:
    """Whether two answers are mathematically equal.

    Lists and sets are equal in any order, tuples and intervals in theirs, with the same brackets. Words are compared as text.
    A number is compared exactly; what would still have to be worked out (``2+3``) is not a number.
    """
    if max(len(wanted), len(given)) > LONGEST:
        return _plain(wanted) == _plain(given)
    reference, value = value_of(wanted), value_of(given)
    if reference is not None and value is not None:
        return same_value(reference, value)
    one, other = _plain(wanted), _plain(given)
    if one == other or _as_text(one) or _as_text(other):
        return one.casefold() == other.casefold()
    # x = 5 and 5, y = 2x and 2x; but what x^2 = 4 says is not 4
    if ("=" in one) != ("=" in other) and not _NAMED.match(one if "=" in one else other):
        return False
    (shape, parts), (shape_given, parts_given) = _shape(one), _shape(other)
    if reference is not None or value is not None:
        # One is a number, the other at most an expression with functions in it
        if len(parts) > 1 or len(parts_given) > 1 or (value is None and _arithmetic(other)):
            return False
    elif not (_RELATION.search(one) or _RELATION.search(other)):
        if shape != shape_given or len(parts) != len(parts_given):
            return False
        if len(parts) > 1 and (same := _same_parts(parts, parts_given, ordered=shape not in ("", "{}"))) is not None:
            return same
    return _verified(one, other)


def numbers_in(answer: str) -> int | None:
    """How many numbers a list, set or tuple of numbers has; ``None`` for anything else."""
    parts = _shape(_plain(answer))[1]
    return len(parts) if all(value_of(part) for part in parts) else None


def readable(answer: str) -> bool:
    """Whether an answer can be compared at all: as a value, as text, or by math-verify."""
    return value_of(answer) is not None or _as_text(_plain(answer)) or bool(_parsed(_plain(answer)))


def _plain(text: str) -> str:
    """An answer without layout, with its words bare."""
    text = _COMMAND.sub(r"\1", _LAYOUT.sub("", unwrapped(text)))
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace("−", "-").replace(r"\%", "%")
    return " ".join(unwrapped(text).split())


def _as_text(text: str) -> bool:
    """Whether an answer is words or a date, in which math-verify would see products and differences."""
    letters = _LATEX_NAME.sub(" ", text)
    return _WORDS.search(letters) is not None or _DATE.fullmatch(text) is not None


def _arithmetic(text: str) -> bool:
    """Whether nothing but numbers stands there: it is a number that cannot be read, or one still to be worked out."""
    return re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|cdot|times|div|sqrt|pm)(?![A-Za-z])", "", text)) is None


def _shape(text: str) -> tuple[str, list[str]]:
    r"""The brackets around an answer, and what the commas between divide it into. ``\pm`` makes two of one."""
    text = re.sub(r"\\([{}])", r"\1", text)
    text = text.replace("±", r"\pm")
    if text.count(r"\pm") == 1:
        return "", [text.replace(r"\pm", "+").strip(), text.replace(r"\pm", "-").strip()]
    brackets, depth = "", 0
    if len(text) > 1 and text[0] in _OPEN and text[-1] in _CLOSED and _spans(text):
        brackets, text = text[0] + text[-1], text[1:-1]
    parts, start = [], 0
    for i, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSED)
        if char in ",;" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts = [*parts, text[start:]]
    if not brackets:
        parts = [p for part in parts for p in re.split(r"\b(?:and|or)\b", part) if p.strip()]
    # Brackets of one part are for reading; braces around a list are a set, which is what a bare list is too
    kept = "" if brackets == "{}" else brackets if len(parts) > 1 else ""
    return kept, [p.strip() for p in parts]


def _spans(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSED)
        if depth == 0:
            return i == len(text) - 1
    return False


def _same_parts(wanted: list[str], given: list[str], ordered: bool) -> bool | None:
    """Whether lists of numbers are equal; ``None`` where they are not of numbers alone."""
    a, b = [value_of(x) for x in wanted], [value_of(x) for x in given]
    if None in a or None in b:
        return None
    if ordered:
        return all(same_value(x, y) for x, y in zip(a, b, strict=True) if x and y)
    left = [y for y in b if y]
    for x in a:
        match = next((y for y in left if x and same_value(x, y)), None)
        if match is None:
            return False
        left.remove(match)
    return True


# Math-verify ----------------------------------------------------------------------------------------------------------

_RAISED = re.compile(
    r"\^\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|\([^()]*\)|\\?[A-Za-z]+|-?\d+|.)|\*\*\s*(\([^()]*\)|-?\w+|.)"
)


def _harmless(text: str) -> bool:
    """Whether an expression cannot become a number of millions of digits, which nothing can interrupt."""
    numbers = re.findall(r"\d+", text)
    longest = max(map(len, numbers), default=0)
    growth = 1
    for found in _RAISED.finditer(text):
        exponent = found[1] or found[2]
        digits = re.findall(r"\d+", exponent)
        if sum(map(len, digits)) > 4 or (digits and re.search(r"[\d)}]\s*(?:\^|\*\*)", exponent)):
            return False
        if re.match(r"\s*(?:\^|\*\*)", text[found.end() :]):
            return False
        symbol = found.start() and text[found.start() - 1].isalpha()
        growth *= 1 if symbol else max([1, *map(int, digits)])
    if re.search(r"[)}\]!]\s*!|\d{4,}\s*!", text):
        return False
    counted = re.search(r"\\(?:binom|choose|prod|sum|int)|binomial|factorial", text) is not None
    return growth * longest <= 10**6 and longest <= (3 if counted else 100)


@functools.cache
def prepare() -> None:
    """Load math-verify and let it build its tables, which takes seconds once."""
    import math_verify

    # It warns that it sets no time limit: one is set here, without the signal that the worker process uses
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    one, other = (math_verify.parse(rf"\boxed{{{text}}}", parsing_timeout=None) for text in ("x+1", "1+x"))
    math_verify.verify(one, other, timeout_seconds=None)


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[Any, ...]:
    """What math-verify makes of an expression; empty where it cannot be read, or not within the limits."""
    import math_verify

    if not text or not _harmless(text):
        return ()
    prepare()
    try:
        with limited(SECONDS):
            found = math_verify.parse(rf"\boxed{{{text}}}", parsing_timeout=None)
    except (OutOfTime, *_TOO_MUCH):
        return ()
    # Beside what it reads it gives the text itself, which it would take for equal to the same text alone
    return tuple(x for x in found if not isinstance(x, str))


def _verified(wanted: str, given: str) -> bool:
    import math_verify

    reference, found = _parsed(wanted), _parsed(given)
    if not reference or not found:
        return False
    try:
        with limited(SECONDS):
            return bool(math_verify.verify([*reference], [*found], float_rounding=12, timeout_seconds=None))
    except (OutOfTime, *_TOO_MUCH):
        return False
