"""How near a text is to the one that was wanted: for completions of code, where nothing is run."""

from __future__ import annotations

import difflib

from policyopt.items import Example, Verdict
from policyopt.judging.answers import THINK, spoken
from policyopt.judging.fences import last_fenced
from policyopt.judging.kinds import Judge, short

LONGEST = 4000
"""Characters of which a similarity is worked out; its time grows with their product."""


def edit_similarity(given: str, wanted: str) -> float:
    r"""The share of two texts that is in matching blocks, :math:`2M/(|a|+|b|)`, from 0 to 1, white space at both ends aside.

    M is the number of characters in the longest common blocks, found again and again to the left and to the right (Ratcliff and
    Obershelp). The two orders may find different blocks; the larger number counts, so that it is symmetric. It is 1 for equal texts
    alone. Texts of more than :data:`LONGEST` characters are similar where they are equal.
    """
    a, b = given.strip(), wanted.strip()
    if a == b:
        return 1.0
    if max(len(a), len(b)) > LONGEST:
        return 0.0
    return max(difflib.SequenceMatcher(None, x, y, autojunk=False).ratio() for x, y in ((a, b), (b, a)))


def edits_judge(lines: int | None = 1, think: str = THINK) -> Judge:
    """A completion is worth 1 where it is the reference, else its edit similarity to it; ``correct`` means equal.

    Args:
        lines: So many lines of the response count, from its first one that is not empty: the next line is asked for, and a model
            goes on. None: all of it. Of a response with a fenced block, the last block counts.
        think: The tag of a thought, in which no completion is looked for.
    """

    def judge(example: Example, response: str) -> Verdict:
        fenced = last_fenced(response, think)
        text = spoken(response, think) if fenced is None else fenced
        given = text.strip() if lines is None else "\n".join(text.lstrip().splitlines()[:lines]).strip()
        near = edit_similarity(given, example.answer)
        said = f"{short(given)} is {near:.0%} of {short(example.answer)}"
        return Verdict(near, near == 1, fenced is not None, said)

    return judge
