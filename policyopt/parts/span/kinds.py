"""Places of a text: between tags, where a pattern or a phrase stands, its answer, its lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Annotated, Any

import regex
from pydantic import AfterValidator, Field

from policyopt.errors import UserError
from policyopt.judging.answers import LONGEST, THINK, place
from policyopt.part import Label, Span, part

SECONDS = 2.0
"""How long a pattern may search one text."""
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def _pattern(text: str) -> str:
    try:
        _compiled(text)
    except regex.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


@lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    return regex.compile(text)


def _phrases(phrases: tuple[str, ...]) -> tuple[str, ...]:
    for phrase in phrases:
        if not _WORD.search(phrase):
            raise ValueError(f"the phrase {phrase!r} has no word: take it out")
    return phrases


@part
class Tag(Span):
    """What stands between ``<NAME>`` and ``</NAME>``, in each such block; of blocks within each other the innermost."""

    name: Label = "answer"
    """NAME."""
    marks: bool = False
    """The two tags too."""
    closed: bool = True
    """A block that is never closed is none; otherwise it ends with the text."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        start: re.Match[str] | None = None
        for mark in re.finditer(f"<(/?){self.name}>", text):
            if not mark[1]:
                start = mark
            elif start is not None:
                found.append((start.start(), mark.end()) if self.marks else (start.end(), mark.start()))
                start = None
        if start is not None and not self.closed:
            found.append((start.start() if self.marks else start.end(), len(text)))
        return found


@part
class Regex(Span):
    """Each match of a regular expression, or of its group of the name ``span`` where it has one.

    Only the last 100,000 characters are searched, for two seconds at most: a pattern that goes back and forth for
    longer ends the run, with a word on the pattern.
    """

    pattern: Annotated[str, AfterValidator(_pattern)] = r"\S+"
    """As :mod:`regex` reads it, which is as :mod:`re` does and more."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        pattern = _compiled(self.pattern)
        group = "span" if "span" in pattern.groupindex else 0
        try:
            matches = [*pattern.finditer(text, max(0, len(text) - LONGEST), timeout=SECONDS)]
        except TimeoutError:
            raise UserError(
                f"{self.handle}: the pattern {self.pattern!r} took more than {SECONDS:g} s on a text of {len(text)} characters: "
                "write it without repetitions inside repetitions, such as (a+)+"
            ) from None
        return [match.span(group) for match in matches if match.end(group) > match.start(group)]


@part
class Phrases(Span):
    """Each place where one of some phrases stands: word for word, in capitals or not, with any blanks between the words."""

    phrases: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_phrases)] = ("let me check",)
    """The phrases. A mark such as a comma counts as a word."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        known = _lexicon(self.phrases)
        places = [(word[0].casefold(), word.start(), word.end()) for word in _WORD.finditer(text)]
        words = [word for word, _, _ in places]
        found = []
        for i, (word, start, _) in enumerate(places):
            longest = max((n for n in known.get(word, ()) if tuple(words[i : i + n]) in known[word][n]), default=0)
            if longest:
                found.append((start, places[i + longest - 1][2]))
        return found


@lru_cache(maxsize=64)
def _lexicon(phrases: Iterable[str]) -> dict[str, dict[int, set[tuple[str, ...]]]]:
    """Phrases as words, by their first word and their length."""
    found: dict[str, dict[int, set[tuple[str, ...]]]] = {}
    for phrase in phrases:
        words = tuple(word.casefold() for word in _WORD.findall(phrase))
        found.setdefault(words[0], {}).setdefault(len(words), set()).add(words)
    return found


@part
class LastAnswer(Span):
    """The answer, where the judges find it: behind ``####``, between ``<answer>`` tags, in a box or named by a sentence; the last
    one counts (:func:`policyopt.judging.answers.locate`)."""

    think: str = THINK
    """The tag of a thought, in which no answer stands."""
    mark: bool = False
    """What marks it too, from where that begins."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        found = place(text, think=self.think)
        return [] if found is None else [(found[0] if self.mark else found[1], found[2])]


@part
class Lines(Span):
    """Some of the lines that are not blank, counted as Python counts: ``Lines(stop=-1)`` is all but the last, ``Lines(-1)`` the
    last, ``Lines(2, 3)`` the third."""

    start: int = 0
    """The first one, from 0; below 0 from the end."""
    stop: int | None = None
    """The one before which they end; None for the end of the text."""

    def __call__(self, text: str) -> list[tuple[int, int]]:
        return [*_lines(text)][self.start : self.stop]


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Where the lines that are not blank begin and end, line breaks left out."""
    start = 0
    for line in text.split("\n"):
        if line.strip():
            yield start, start + len(line)
        start += len(line) + 1
