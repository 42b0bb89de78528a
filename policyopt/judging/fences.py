"""The program that a response holds. What the text is, is of no account: it is found by its fences, line by line."""

from __future__ import annotations

from collections.abc import Sequence

from policyopt.judging.answers import THINK, spoken

LONGEST = 100_000
"""Characters of a program that is looked at."""


def last_fenced(response: str, think: str = THINK) -> str | None:
    """What the last block between lines of three backquotes holds; ``None`` where there is none. A block that is still open is
    no block."""
    found: str | None = None
    inside: list[str] | None = None
    for line in spoken(response, think).splitlines():
        if line.lstrip().startswith("```"):
            if inside is None:
                inside = []
            else:
                found, inside = "\n".join(inside) + "\n", None
        elif inside is not None:
            inside.append(line)
    return None if inside is not None else found


def program_of(response: str, think: str = THINK, has: Sequence[str] = ()) -> tuple[str | None, bool]:
    """The program of a response, and whether it stands in a block of its own: the last block, or all that is said where nothing
    is fenced. ``None``: a block that is still open, nothing at all, what is too long, or what lacks one of the words ``has``."""
    text = spoken(response, think)
    fenced = "```" in text
    code = last_fenced(response, think) if fenced else text
    if code is None or not code.strip() or len(code) > LONGEST or not all(word in code for word in has):
        return None, fenced
    return code, fenced
