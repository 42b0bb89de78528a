"""Ruler."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from policyopt.errors import UserError, nearest
from policyopt.part import part
from policyopt.registry import tool
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

Window = tuple[float, float]
"""More than the first number of words, at most the second."""


@dataclass(frozen=True)
class Target:
    """A length that can be asked for, and what counts as met."""

    precise: Window
    flexible: Window
    label: Window
    """In which a text is an example of it."""


TARGETS: Mapping[str, Target] = {
    "10": Target((0, 20), (0, 20), (5, 15)),
    "30": Target((20, 40), (20, 40), (25, 35)),
    "50": Target((40, 60), (40, 60), (45, 55)),
    "80": Target((70, 90), (60, 100), (75, 85)),
    "150": Target((130, 170), (100, 200), (135, 155)),
    "300": Target((280, 320), (200, 400), (295, 305)),
    "500": Target((450, 550), (400, 600), (495, 505)),
    "700": Target((630, 770), (600, 800), (695, 705)),
    ">800": Target((800, math.inf), (800, math.inf), (800, math.inf)),
}
"""In words. Source: Ruler, arXiv:2409.18943, and the authors' code (Geaming2002/Ruler), whose label window of 150 is not around it."""

_WORD = re.compile(r"\w+")


def words(text: str) -> int:
    """How many words a text has: runs of letters, digits and ``_``."""
    return sum(1 for _ in _WORD.finditer(text))


def target(name: str) -> Target:
    """What a target means. Raises :class:`~policyopt.errors.UserError` for one that there is not."""
    if name not in TARGETS:
        raise UserError(f"ruler: no target is called {name!r}; {nearest(name, TARGETS)}. They are {', '.join(TARGETS)}")
    return TARGETS[name]


def within(count: float, window: Window) -> bool:
    """Whether a number of words lies in a window."""
    return window[0] < count <= window[1]


def label(count: float) -> str | None:
    """The target that a text of so many words is an example of; ``None`` for most."""
    return next((name for name, t in TARGETS.items() if within(count, t.label)), None)


def precise(response: str, answer: str) -> float:
    """A judge: 1 where the response has as many words as ``answer``, a target, asks for, precisely."""
    return float(within(words(response), target(answer.strip()).precise))


def flexible(response: str, answer: str) -> float:
    """A judge: 1 where the response has about as many words as ``answer``, a target, asks for."""
    return float(within(words(response), target(answer.strip()).flexible))


def matches(targets: Sequence[str], counts: Sequence[float]) -> dict[str, Any]:
    """PM and FM in per cent, with which of the texts match (``pm``, ``fm``), from their targets and their numbers of words."""
    asked = [target(name) for name in targets]
    pm = [int(within(n, t.precise)) for t, n in zip(asked, counts, strict=True)]
    fm = [int(within(n, t.flexible)) for t, n in zip(asked, counts, strict=True)]
    return {"PM": 100 * sum(pm) / max(1, len(pm)), "FM": 100 * sum(fm) / max(1, len(fm)), "pm": pm, "fm": fm}


def token(name: str) -> str:
    """What stands before a response of a length: ``[MLT:80]``."""
    return f"[MLT:{name}]"


@part
class ForcedLength(Group):
    """A group whose responses begin with the words for a target length, which were put there; what follows is the policy's.

    Source: Ruler, arXiv:2409.18943: a special token, which here are the tokens of its words.
    """

    target: str = "80"
    """The length, by its name."""

    asks: ClassVar[frozenset[str]] = frozenset({"forced tokens"})

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target is {self.target!r}: it is one of {', '.join(TARGETS)}")

    async def draw(self, question: Question, context: Context) -> list[Response]:
        return await context.sampler.generate(
            question.tokens, n=self.size, max_tokens=question.budget, temperature=self.temperature, key=question.key,
            forced=context.encode(f"{token(self.target)} "),
        )  # fmt: skip


@tool(
    arxiv="2409.18943",
    code="Geaming2002/Ruler",
    confidence="code",
    use='python: from policyopt.methods.length.ruler import ruler; rows = ruler([{"prompt": "...", "completion": "..."}])',
)
def ruler(rows: Sequence[Mapping[str, Any]], most: int = 20_000) -> list[dict[str, Any]]:
    r"""Put the length of each text before it, so that a model learns what such a mark asks for.

    .. math:: L = -\sum_t \log\pi([MLT{:}k], y)_t,\qquad k: |y| \in \text{the window of } k

    Of rows with ``prompt`` and ``completion`` those stay whose number of words lies near one of nine lengths (10, 30, 50, 80, 150, 300, 500, 700, >800), at most ``most``
    of each, and the completion begins with its mark (``[MLT:80]``), which is learnt with it. Write the rows into a file of JSON lines and train with ``policyopt train sft --task rows.jsonl``. The model then
    writes a mark of its own before it answers, or it is put there: a recipe with :class:`~policyopt.methods.length.ruler.ForcedLength` as ``decode`` or ``source``.

    How often lengths are met is PM and FM (:func:`~policyopt.methods.length.ruler.matches`); as judges both are rewards, on questions whose ``answer`` is the length:
    ``policyopt train grpo --task asked.jsonl --judge policyopt.methods.length.ruler:flexible``.

    Raises :class:`~policyopt.errors.UserError` for a row without one of the two. Source: arXiv:2409.18943 and the authors' code (Geaming2002/Ruler). Our reading: words in the
    place of special tokens, so that no embedding is added.
    """
    out: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for i, row in enumerate(rows):
        if missing := [name for name in ("prompt", "completion") if name not in row]:
            raise UserError(f"ruler: row {i} has no {' and no '.join(missing)}; give texts with both")
        name = label(words(row["completion"]))
        if name is not None and seen[name] < most:
            seen[name] += 1
            out.append({**row, "completion": f"{token(name)} {row['completion']}"})
    return out
