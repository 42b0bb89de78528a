r"""Where the answer stands in a response; all judges read it here.

The answer line of this library is the mark of GSM8K (arXiv:2110.14168): a line that starts with ``####``, then the
answer, to the end of the line::

    12+7=19
    19-16=3
    #### 3

Pretrained models have habits of their own, so ``<answer>3</answer>``, ``\boxed{3}``, ``\fbox{3}`` and sentences such as
``The answer is 3.`` and ``**Answer:** 3`` are read too. The last mark in the response counts: a model gains nothing by writing
several answers. What a model only thinks (``<think>...</think>``) is no answer.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MARK = "####"
THINK = "think"
"""The tag of a thought where no other is said."""
LONGEST = 100_000
"""Characters at the end of a response in which an answer is looked for."""

_LINE = re.compile(r"^[ \t]*####", re.MULTILINE)
_ANY_MARK = re.compile(r"^[ \t]*####|<answer>|\\(?:boxed|fbox)\s{0,3}\{", re.MULTILINE)
_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)(</answer>|\Z|(?=<answer>))", re.DOTALL)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_BETWEEN = re.compile(r"(?:[\s,;$&]|\\[()\[\]]|\*\*|\b(?:and|or)\b)*")
_PHRASE = re.compile(
    r"\banswer(?:\s+(?:to|for|of)\b[^.:\n]{0,60}?)?[*_]{0,3}\s{0,3}(?::|=|\b(?:is|are)\b(?!\s*n.t\b)(?:\s{0,3}:)?)[*_]{0,3}\s{0,8}",
    re.IGNORECASE,
)
_SAID = re.compile(r"\$\$(?s:.{1,400}?)\$\$|\\\[(?s:.{1,400}?)\\\]|[^\n]*")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|[,;]?\s+(?:because|since|which|where|as|so)\b|\s*<\|")
_HEDGE = re.compile(r"\W*(?:or|no|wait|but|actually|alternatively|maybe|perhaps)\b", re.IGNORECASE)
_FIRST = re.compile(r"\$\$[^$]+\$\$|\\\[(?s:.+?)\\\]|\$[^$\n]+\$|\\\([^\n]+?\\\)|\*\*[^*\n]+\*\*")
_MORE = re.compile(r"[\d$\\*]|\b(?:or|and|not)\b", re.IGNORECASE)
_LEADS = re.compile(r"\b(?:or|and|nor|not|to|between)\W*\Z", re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_MATH = re.compile(
    r"\$\$([^$]{1,1000})\$\$|(?<![\\$])\$((?:\\.|[^$\\\n]){1,1000})\$|\\\(([^\n]{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]",
    re.DOTALL,
)


@dataclass(frozen=True)
class Found:
    """An answer as it is written, and how it is marked."""

    text: str
    marked: bool
    """Behind ``####``, in ``<answer>`` or in a box; a sentence that names the answer is none of these."""


def answer_line(answer: str) -> str:
    """The last line of a worked solution."""
    return f"{MARK} {answer}"


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match of ``pattern``, without keeping the others."""
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def lines_of(answer: str) -> int:
    """How many lines a reference answer has; the answer line of a response has as many."""
    return answer.strip().count("\n") + 1


def spoken(response: str, think: str = THINK) -> str:
    """A response without what was only thought: what follows the last closing tag; nothing where a thought is still open.

    Args:
        response: Any text.
        think: The tag (``"think"``), or opening and closing mark with a space between (``"[THINK] [/THINK]"``), or the
            closing mark alone (``"</think>"``) where the prompt has opened the thought: without it there is no answer.
    """
    opening, _, closing = think.rpartition(" ")
    if not opening and "<" not in think and "[" not in think:
        opening, closing = f"<{think}>", f"</{think}>"
    _before, closed, after = response.rpartition(closing)
    if (opening and opening in after) or not (closed or opening):
        return ""
    return after


def locate(response: str, *, lines: int = 1, think: str = THINK) -> Found | None:
    """The answer behind the last mark of ``response``, empty where nothing follows; ``None`` without a mark.

    Args:
        response: Any text. The time is linear in its length.
        lines: Lines that an answer line has (see :func:`lines_of`).
        think: See :func:`spoken`.
    """
    found = _last(spoken(response, think)[-LONGEST:], lines)
    return None if found is None else Found(found[2].strip(), found[3])


def place(response: str, *, lines: int = 1, think: str = THINK) -> tuple[int, int, int] | None:
    """Where the answer stands that :func:`locate` finds: where its mark begins, where it begins itself and where it ends, in
    characters; ``None`` without a mark."""
    text = spoken(response, think)[-LONGEST:]
    found = _last(text, lines)
    if found is None:
        return None
    before, (mark, start, answer, _) = len(response) - len(text), found
    start += len(answer) - len(answer.lstrip())
    return before + mark, before + start, before + start + len(answer.strip())


def before_answer(response: str, *, think: str = THINK) -> str:
    """A response up to where it first marks an answer, or, without a mark, up to the sentence that names one: what was said before any conclusion."""
    mark = _ANY_MARK.search(response)
    if mark is not None:
        return response[: mark.start()]
    found = place(response, think=think)
    return response if found is None else response[: found[0]]


def _last(text: str, lines: int) -> tuple[int, int, str, bool] | None:
    """Of the last mark of a text: where it begins, where the answer does, the answer, and whether that is marked."""
    marks = (_answer_line(text, lines), _tag(text), _box(text), _phrase(text))
    return max((mark for mark in marks if mark), default=None)


def find_answer(response: str, *, lines: int = 1, think: str = THINK) -> str | None:
    """The text of what :func:`locate` finds; ``None`` where it is nothing."""
    found = locate(response, lines=lines, think=think)
    return (found.text or None) if found else None


def marked_answer(text: str) -> str | None:
    """The answer that a worked solution ends with, behind a mark; ``None`` where it has none."""
    found = locate(text, think="</think>" if "</think>" in text else THINK)
    return (found.text or None) if found is not None and found.marked else None


def _answer_line(text: str, lines: int) -> tuple[int, int, str, bool] | None:
    line = last_match(_LINE, text)
    if line is None:
        return None
    after = text[line.end() :]
    if lines > 1:  # may begin below the mark
        after = after.lstrip()
    return line.start(), len(text) - len(after), "\n".join(after.split("\n", lines)[:lines]), True


def _tag(text: str) -> tuple[int, int, str, bool] | None:
    """An ``<answer>`` that is still open has nothing in it yet."""
    tag = last_match(_TAG, text)
    return None if tag is None else (tag.start(), tag.start(1), tag[1] if tag[2] else "", True)


def _box(text: str) -> tuple[int, int, str, bool] | None:
    """The last box. Boxes with nothing between them but "and", "or" and commas are one answer; one that is still open has
    nothing in it yet."""
    run: list[tuple[int, int, int]] = []
    for start, inside, end in _boxes(text):
        joined = run and end >= 0 and run[-1][2] >= 0 and _BETWEEN.fullmatch(text, run[-1][2] + 1, start)
        run = [*run[-8:], (start, inside, end)] if joined else [(start, inside, end)]
    if not run:
        return None
    (first, _, _), (start, inside, end) = run[0], run[-1]
    if end < 0:
        return start, inside, "", True
    if len({text[i:j] for _, i, j in run}) > 1:
        return first, first, text[first : end + 1], True
    return start, inside, text[inside:end], True


def _boxes(text: str) -> Iterator[tuple[int, int, int]]:
    """Start, start of the inside, and end of all outermost boxes; the end is -1 where one is still open."""
    depth, box = 0, (-1, -1)
    for brace in _BRACE.finditer(text):
        token = brace[0]
        if box[0] < 0:
            if token.startswith((r"\b", r"\f")):
                depth, box = 1, (brace.start(), brace.end())
        elif token == "}":
            depth -= 1
            if depth == 0:
                yield *box, brace.start()
                box = (-1, -1)
        elif token[0] != "\\" or token[1] in "bf":
            depth += 1
    if box[0] >= 0:
        yield *box, -1


def _phrase(text: str) -> tuple[int, int, str, bool] | None:
    """A sentence that names the answer, to its end."""
    phrase = last_match(_PHRASE, text)
    if phrase is None:
        return None
    said = _SAID.match(text, phrase.end())[0]  # type: ignore[index]
    start = phrase.end() + len(said) - len(said.lstrip())
    said = said.strip()
    if said.count("**") % 2:  # opened before the sentence
        said = said.removesuffix("**")
    first = _FIRST.match(said)
    if first and not _MORE.search(said, first.end()):
        return phrase.start(), start, first[0], False
    end = _SENTENCE_END.search(said, 1)
    hedged = end is not None and _HEDGE.match(said, end.end())
    return phrase.start(), start, said[: end.start()] if end and not hedged else said, False


def last_bold(text: str) -> Iterator[str]:
    """What stands in bold, the last first; at most sixteen, and none from one of two on (``**42** or **43**``)."""
    text = text[-LONGEST:]
    for bold in reversed(deque(_BOLD.finditer(text), maxlen=16)):
        if _LEADS.search(text, max(0, bold.start() - 12), bold.start()):
            return
        yield bold[1].strip()


def last_formula(text: str) -> str | None:
    """The last formula between dollars or backslash brackets."""
    found = last_match(_MATH, text[-LONGEST // 10 :])
    return next((x.strip() for x in found.groups() if x), None) if found else None


_WRAPPERS = (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("`", "`"), (r"\boxed{", "}"), (r"\fbox{", "}"), (r"\text{", "}"), (r"\textbf{", "}"), (r"\mathrm{", "}"), (r"\mathbf{", "}"))  # fmt: skip


def unwrapped(text: str) -> str:
    """An answer without what only sets it off: dollars, bold, a box, the stop of its sentence."""
    text = text.strip()
    for _ in range(8):
        before = text
        if len(text) > 1 and text[-1] == "." and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing in _WRAPPERS:
            inside = text[len(opening) : len(text) - len(closing)]
            whole = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
            if whole and not inside.endswith("\\") and _closed(inside, opening, closing):
                text = inside.strip()
        if text == before:
            break
    return text


def _closed(inside: str, opening: str, closing: str) -> bool:
    """Whether the first mark is closed by the last one and by none before."""
    if closing != "}":
        return closing not in inside and opening not in inside
    depth = 0
    for char in inside:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


def in_blocks(response: str, tag: str) -> bool:
    """Whether the response has one block ``<tag>...</tag>`` and, after it, one block ``<answer>...</answer>``; what
    stands outside of them is of no account."""
    marks = [f"<{tag}>", f"</{tag}>", "<answer>", "</answer>"]
    places = [response.find(mark) for mark in marks]
    return all(response.count(mark) == 1 for mark in marks) and places == sorted(places)
