"""Which letter an answer to a multiple-choice question names: as it is usually written, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from policyopt.judging.answers import Found, spoken, unwrapped

LETTERS = "ABCDEFGHIJ"
"""The letters of the options where no others are said."""

_LATEX = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textit|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"\\[()\[\]]|[$*_`]|\\(?:left|right)")


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    one = f"[{letters}{letters.lower()}]"
    named = r"(?:(?i:the\s+)?(?i:(?:correct|right|best|final)\s+)?(?i:answer|option|choice|letter)\s*(?i:is|:)?\s*)?"
    right = r"(?:\s+(?i:is)(?i:\s+the)?\s+(?i:correct|right|best|true)(?i:\s+(?:answer|option|choice|one))?)?"
    # The letter and nothing else
    alone = re.compile(rf"{named}(?:\(\s*({one})\s*\)|\[\s*({one})\s*\]|({one})\s*[).:]?){right}\s*[.!]?")
    # The letter, then the words of its option
    with_text = re.compile(rf"{named}(?:\(\s*({one})\s*\)|([{letters}])\s*[).:])\s*[:.\-–]?\s*(\S.*)", re.DOTALL)
    # Any other option, named as one
    other = re.compile(
        rf"\(\s*({one})\s*\)|(?<![\w'])([{letters}])(?=\s*[).:](?:\s|$))|\b(?i:or|and|not|nor)\s+\(?([{letters}])\b"
    )
    phrase = re.compile(
        rf"\b(?i:choose|chose|pick|select|is|be|with|take|answer)\W{{1,3}}(?i:the\s+)?(?i:option|choice)\s+\(?([{letters}])\b\)?"
        r"(?!\s*(?i:or|and|is\s+(?:not|wrong|incorrect|false)|isn))"
    )
    return alone, with_text, other, phrase


def reference_letter(answer: str) -> str:
    """The letter of a reference answer such as ``B``, ``(B)`` or ``B.``."""
    return answer.strip().strip("().: ").upper()


def read_letter(text: str, letters: str = LETTERS, *, sentence: bool = False) -> str | None:
    """The letter that an answer names: ``(B)``, ``b``, ``B.``, ``**B**``, ``\\boxed{\\text{B}}``, ``option B``, ``B) Paris``;
    ``None`` for several, and for words that begin with a letter.

    Args:
        text: The answer.
        letters: Those of the options, capital.
        sentence: The answer is the end of a sentence, where a bare small "a" is an article.
    """
    alone, with_text, other, _ = _patterns(letters)
    plain = _plain(text)
    if found := alone.fullmatch(plain):
        letter = _first(found.groups())
        return None if sentence and plain == "a" else letter
    if found := with_text.fullmatch(plain):
        letter = _first(found.groups()[:2])
        others = {_first(m.groups()) for m in other.finditer(found[3])} - {letter}
        return None if others else letter
    return None


def choice_of(response: str, found: Found | None, letters: str = LETTERS, think: str = "think") -> str | None:
    """The letter that a response names: behind its last mark, or in its last line where that is a letter and nothing else."""
    if found is not None:
        return read_letter(found.text, letters, sentence=not found.marked)
    said = spoken(response, think)
    written = [line for line in said[-5000:].splitlines() if line.strip()]
    if not written:
        return None
    last = written[-1]
    alone, with_text, other, phrase = _patterns(letters)
    plain = _plain(last)
    # A list of options ends with a letter and its words too, so that these count only where they are all there is
    if len(written) == 1 or alone.fullmatch(plain):
        if letter := read_letter(last, letters, sentence=True):
            return letter
    elif with_text.fullmatch(plain):
        return None
    named = {m[1] for m in phrase.finditer(plain)} | {_first(m.groups()) for m in other.finditer(plain)}
    return (
        named.pop()
        if len(named) == 1 and not re.search(r"\b(?i:not|wrong|incorrect|neither|nor)\b|n't", plain)
        else None
    )


def has_options(prompt: str, letters: str) -> bool:
    """Whether a question lists these letters as options: ``A) ...``, ``(A) ...``, ``A. ...``, ``A: ...``."""
    return all(re.search(rf"(?<!\w)\(?{letter}\s*[).:]", prompt) for letter in letters)


def _plain(text: str) -> str:
    return " ".join(_DROPPED.sub("", _LATEX.sub(r"\1", unwrapped(text))).split())


def _first(groups: Sequence[str | None]) -> str:
    return next(g for g in groups if g).upper()
