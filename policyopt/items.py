"""What a task is made of: questions, the judge's specification, and its verdicts. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

Message = dict[str, str]
"""One chat message: ``{"role": "user", "content": "12+7-16=?"}``."""


TEXTS = ("completion", "chosen", "rejected", "labelled")
"""Texts that an example may bring beside its prompt, each by itself."""
BROUGHT = (*TEXTS, "responses")
"""What a source may read of an example beside its prompt: these texts, and several responses with their scores."""


@dataclass(frozen=True)
class Example:
    """One question."""

    id: str
    """Stable and unique in its task: ``"chain_sum-123"``, ``"data.jsonl:17"``."""
    prompt: tuple[Message, ...]
    """Chat messages; plain text is one user message."""
    answer: str
    """The reference answer."""
    solution: str | None = None
    """A worked solution (chain of thought, then the answer line), where the task has a writer."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the judge needs beyond the answer, such as further columns of a dataset by name; JSON-able."""
    completion: str | None = None
    """A text to learn from, as it is."""
    chosen: str | None = None
    """Of two texts the one that somebody preferred."""
    rejected: str | None = None
    """The other one."""
    labelled: str | None = None
    """A text that somebody called good or bad."""
    label: bool | None = None
    """Whether they called it good; there wherever ``labelled`` is."""
    responses: tuple[str, ...] = ()
    """Several texts that somebody has scored, at least two; empty where there are none."""
    scores: tuple[float, ...] = ()
    """Their scores, finite."""
    hasty: str | None = None
    """What somebody in a hurry writes in the place of the solution, often wrong; ``None``: its last line."""
    source: str = ""
    """Which part of a mixture it is from; empty where there is one source."""
    rivals: tuple[str, ...] = ()
    """What opponents answer, the same opponent at the same place in every question of a task: evaluations say how well the best of
    them does against the policy."""
    chat: bool = False
    """The prompt was given as messages, not as text; functions made for other libraries tell the two apart."""

    @property
    def numbers(self) -> dict[str, float]:
        """The finite numbers of ``meta`` by name, those that a table holds as text too: ``{"chosen_score": 8.5}``."""
        found = {}
        for name, value in self.meta.items():
            with suppress(TypeError, ValueError, OverflowError):  # what is no number
                found[name] = float(value) if isinstance(value, int | float | str) else math.nan
        return {name: x for name, x in found.items() if math.isfinite(x)}


@dataclass(frozen=True)
class Lesson:
    """Something else than a question that a model may be asked, and what somebody helpful replies."""

    prompt: tuple[Message, ...]
    """Chat messages."""
    reply: str
    """What a warm start teaches."""
    given: str = ""
    """Words between the prompt and the reply, which are read and not taught."""
    then: tuple[tuple[str, str], ...] = ()
    """What is read next and what is replied to it, in their order, where the talk goes on; only the replies are taught."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one response."""

    score: float
    """The reward, before any shaping: finite where the response is :attr:`rewarded`, else NaN."""
    correct: bool
    """The answer is right."""
    formatted: bool
    """The answer stands where it was asked for (see :mod:`policyopt.judging.answers`)."""
    reason: str
    """Why, in a few words."""
    failed: bool = False
    """The judge itself raised, ran out of time or memory, or returned nonsense."""
    parts: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    """What each of several judges says, or one judge of each aspect: finite numbers by name. Under the name of a column
    that a judge fills, a number or a list goes into that column. NaN: that judge of several does not apply to the row."""
    applies: bool = True
    """The judge has something to say of this row; a function says that it has not by returning ``None``."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """What the verdict has cost, by what is counted: requests, tokens; for the log."""

    def __post_init__(self) -> None:
        if not self.rewarded:  # no number, so that nobody takes it for a low or a high reward
            object.__setattr__(self, "score", math.nan)

    @property
    def rewarded(self) -> bool:
        """There is a reward. A response without one leaves its group and the update."""
        return self.applies and not self.failed

    @classmethod
    def failure(cls, reason: str, costs: Mapping[str, float] | None = None) -> Verdict:
        """The judge has failed, and why."""
        return cls(math.nan, False, False, reason, failed=True, costs=costs or {})

    @classmethod
    def absent(cls, reason: str = "the judge does not apply to this row") -> Verdict:
        """The judge has nothing to say of the row."""
        return cls(math.nan, False, False, reason, applies=False)


@dataclass(frozen=True)
class Attempt:
    """A response as a judge reads it, and what was said of it."""

    text: str
    verdict: Verdict


def preferred(verdicts: Sequence[Verdict]) -> list[list[float]]:
    """P[i][j], the probability that response i is better than j, from the verdicts that were given on them together: what a
    judge that compares said, else 1, 1/2 or 0 by their scores. 1/2 where i is j, NaN where one of the two has no reward."""
    n, kept = len(verdicts), [i for i, v in enumerate(verdicts) if v.rewarded]
    table = [[math.nan] * n for _ in range(n)]
    for row, i in enumerate(kept):
        said = verdicts[i].parts.get("beats")
        if isinstance(said, Sequence) and len(said) != len(kept):
            raise ValueError(f"{len(said)} responses were compared, and these are {len(kept)}")
        for column, j in enumerate(kept):
            if row == column:
                table[i][j] = 0.5
            elif isinstance(said, Sequence):
                table[i][j] = said[column]
            else:
                table[i][j] = (
                    1 + (verdicts[i].score > verdicts[j].score) - (verdicts[i].score < verdicts[j].score)
                ) / 2
    return table


@dataclass(frozen=True)
class JudgeSpec:
    """A judge by name, with its options; picklable, so that the worker process builds the judge itself."""

    name: str
    """A name of :mod:`policyopt.judging.judges`, ``"package.module:function"`` or ``"file.py:function"``, or that of a
    callable, which it carries (:class:`~policyopt.carried.Carried`)."""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment by name, with its options (:mod:`policyopt.environments.names`)."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Questions to train on, other questions to test on, and who judges the responses."""

    name: str
    train: Sequence[Example]
    """May be lazy and very long; index it, never copy it."""
    heldout: Sequence[Example]
    """Shares no prompt with ``train``."""
    judge: JudgeSpec | None
    """``None`` for a task without answers, which has nothing to judge by."""
    max_tokens: int
    """Suggested response budget, in tokens of the embedded (character-level) tokenizer."""
    warm_start: Mapping[str, Any] = field(default_factory=dict)
    """Where the embedded model's :class:`~policyopt.models.warmstart.WarmStart` differs from its defaults."""
    texts: frozenset[str] = frozenset()
    """What every one of its examples brings, of :data:`BROUGHT`: "completion", "chosen" and "rejected", "labelled",
    "responses"."""
    judge_reason: str = ""
    """Why this judge, in words; empty for a task that brings its own."""
    lessons: Sequence[Lesson] = ()
    """What the embedded model's warm start is shown beside questions and their solutions."""
    environment: EnvironmentSpec | None = None
    """What the policy acts in; ``None`` where it answers once."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often prompts of each source of a mixture come, against the others; empty: every row equally often."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the task was read."""


F = TypeVar("F", bound=Callable[..., Any])


def judge(*, columns: Sequence[str] = ()) -> Callable[[F], F]:
    """Say which columns a judge's function fills, each of them a name among its ``parts``: ``@judge(columns=("confidence",))``.

    A recipe that needs a column which a judge has to fill is refused with a judge that does not name it.
    """

    def named(function: F) -> F:
        function.columns = tuple(columns)  # type: ignore[attr-defined]
        return function

    return named


def user(text: str) -> tuple[Message, ...]:
    """Plain text as a prompt: one user message."""
    return ({"role": "user", "content": text},)
