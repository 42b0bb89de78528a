r"""Where the answer stands in a response.

The answer line of this library is the mark of GSM8K (arXiv:2110.14168): a line that starts with ``####``, then the
answer, at the end of the response::

    12+7=19
    19-16=3
    #### 3

Pretrained models have habits of their own, so ``<answer>3</answer>`` and ``\boxed{3}`` are read too. The last mark
in the response counts: a model gains nothing by writing several answers.
"""

from __future__ import annotations

import re
from collections import deque

MARK = "####"

_LINE = re.compile(r"^[ \t]*####", re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BOX = r"\boxed{"


def answer_line(answer: str) -> str:
    """The last line of a worked solution."""
    return f"{MARK} {answer}"


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of ``pattern``, without keeping the others."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def find_answer(response: str) -> str | None:
    """What stands after the last mark of ``response``, stripped; ``None`` without a mark or with nothing after it."""
    found: list[tuple[int, str]] = []
    if line := last_match(_LINE, response):
        found.append((line.start(), response[line.end() :]))
    if tag := last_match(_TAG, response):
        found.append((tag.start(), tag[1]))
    box = response.rfind(_BOX)
    if box >= 0 and (inside := _braced(response, box + len(_BOX))) is not None:
        found.append((box, inside))
    if not found:
        return None
    return max(found)[1].strip() or None


def in_blocks(response: str, tag: str) -> bool:
    """Whether the response has one block ``<tag>...</tag>`` and, after it, one block ``<answer>...</answer>``; what
    stands outside of them is of no account."""
    marks = [f"<{tag}>", f"</{tag}>", "<answer>", "</answer>"]
    places = [response.find(mark) for mark in marks]
    return all(response.count(mark) == 1 for mark in marks) and places == sorted(places)


def _braced(text: str, start: int) -> str | None:
    """The text from ``start`` to the brace that closes it."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start:i]
    return None
