"""The tasks ``pairs:TASK`` and ``pairs-length:TASK``: the questions of a task with texts to learn preferences from.

Each question brings a pair, a text with a label, four responses with scores, and the worked solution as a completion, so that
every source of given texts can train on them; the answer is there too, so that what the policy says itself can be judged.
What the texts of a question are is drawn by chance from its words alone. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial

from policyopt.data.builtin import BUILTIN
from policyopt.data.changed import Changed
from policyopt.data.verbose import PADDING
from policyopt.errors import UserError, nearest
from policyopt.items import BROUGHT, Example, Task
from policyopt.judging.answers import answer_line

PAIRS, LENGTH_PAIRS = "pairs", "pairs-length"
WHOLE = ("chain_sum", "simple_equations")
"""The built-in tasks whose answers are whole numbers, so that there is one that is nearly right."""
IDLE = PADDING[0]
"""A line that says nothing. Texts of ``pairs-length`` differ in how many of them stand before the answer."""
LINES = 8
"""How many there are at most."""
BULK = 0.18
"""How often the text with many more of them is preferred to one with next to none; else one with a line less is."""


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to learn from, and what somebody thinks of it, from 0 to 1."""

    words: str
    score: float


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is made of a question."""

    chosen: Text
    rejected: Text
    others: tuple[Text, Text]
    solution: str
    """How the embedded model is taught to answer."""


def written(example: Example, chance: random.Random, *, right: bool, worked: bool = True, idle: int = 0) -> str:
    """The worked solution with so many lines that say nothing before its answer, or the answer alone; one that is not right has the
    last step and the answer off by one."""
    assert example.solution is not None
    *steps, last = example.solution.splitlines()
    if not right:
        wrong = str(int(example.answer) + chance.choice((-1, 1)))
        last = answer_line(wrong)
        steps = [*steps[:-1], *(step.removesuffix(example.answer) + wrong for step in steps[-1:])]
    return "\n".join([*steps * worked, *[IDLE] * idle, last])


def by_answer(example: Example, chance: random.Random) -> Texts:
    """Right before wrong, and worked out before answered at once. The rejected text is either of the wrong ones."""
    scores = {(True, True): 1.0, (True, False): 0.75, (False, True): 0.25, (False, False): 0.0}
    good, plain, *wrong = (
        Text(written(example, chance, right=right, worked=worked), score) for (right, worked), score in scores.items()
    )
    rejected, other = chance.sample(wrong, 2)
    return Texts(good, rejected, (plain, other), good.words)


def by_length(example: Example, chance: random.Random) -> Texts:
    """Of two right texts mostly the one that has a line less of what says nothing, and now and then one that has many more."""

    def words(idle: int, right: bool = True) -> str:
        return written(example, chance, right=right, idle=idle)

    def some() -> int:
        return next(n for n in range(LINES + 1) if n == LINES or chance.random() < 0.5)

    few = chance.randrange(3)
    better, worse = (few, few + 1) if chance.random() >= BULK else (LINES - few // 2, few // 2)
    others = (Text(words(some()), 0.5), Text(words(some(), right=False), 0.0))
    return Texts(Text(words(better), 1.0), Text(words(worse), 0.75), others, words(some()))


def with_texts(
    example: Example, name: str, make: Callable[[Example, random.Random], Texts], flip: float = 0.0
) -> Example:
    """A question with texts that follow from its words; a share ``flip`` of all such questions has what is preferred turned
    around: the sides of the pair, the label, the order of the scores. The completion stays the better text."""
    asked = example.prompt[-1]["content"]
    made = make(example, random.Random(f"{name} {asked}"))
    told = random.Random(f"{name} {asked} told")
    turned, shown = told.random() < flip, told.random() < 0.5

    def score(text: Text) -> float:
        return 1 - text.score if turned else text.score

    best, poor = made.chosen, made.rejected
    chosen, rejected = (poor, best) if turned else (best, poor)
    responses = (best, poor, *made.others)
    return dataclasses.replace(
        example,
        solution=made.solution,
        completion=best.words,
        chosen=chosen.words,
        rejected=rejected.words,
        labelled=(best if shown else poor).words,
        label=shown != turned,
        responses=tuple(text.words for text in responses),
        scores=tuple(map(score, responses)),
        meta={**example.meta, "chosen_score": score(chosen), "rejected_score": score(rejected), "flipped": turned},
    )


# Tasks ---------------------------------------------------------------------------------------------------------------


def summaries() -> dict[str, str]:
    """The tasks of this kind: name and one line of description."""
    return {
        **{
            f"{PAIRS}:{x}": f"{x} with pairs: right before off by one ({PAIRS}:{x}:flip=0.3 turns a share around)"
            for x in WHOLE
        },
        **{
            f"{LENGTH_PAIRS}:{x}": f"{x} with pairs: mostly the slightly shorter of two right texts is preferred, or else a much longer one"
            for x in WHOLE
        },
    }


def paired_task(family: str, option: str, *, seed: int, heldout: int) -> Task:
    """The task ``FAMILY:NAME`` or ``FAMILY:NAME:flip=RATE``. Preferences of held-out questions are never turned around.

    Raises :class:`~policyopt.errors.UserError` for a name that is no built-in task with whole numbers for answers, and for a rate that is no share.
    """
    from policyopt.data.reasoning import reasoning_task

    inner, _, setting = option.partition(":")
    if inner not in WHOLE:
        raise UserError(
            f"task {family}:{option}: expected {' or '.join(WHOLE)} after the colon; {nearest(inner, WHOLE)}"
        )
    rate = _rate(f"task {family}:{option}", setting)
    name, task = f"{family}:{inner}", reasoning_task(inner, seed=seed, heldout=heldout, builtin=BUILTIN[inner])
    if family == LENGTH_PAIRS:
        warm = {**task.warm_start, "terse": 0.0}
        task = dataclasses.replace(task, max_tokens=task.max_tokens + (len(IDLE) + 1) * LINES, warm_start=warm)
    texts = partial(with_texts, name=name, make=by_answer if family == PAIRS else by_length)
    return dataclasses.replace(
        task, name=name, texts=frozenset(BROUGHT), train=Changed(task.train, partial(texts, flip=rate)),
        heldout=tuple(map(texts, task.heldout)),
    )  # fmt: skip


def _rate(task: str, setting: str) -> float:
    """The share of preferences that are turned around: ``"flip=0.3"``, or nothing for 0."""
    given = setting.removeprefix("flip=") if setting.startswith("flip=") else ""
    try:
        rate = float(given) if setting else 0.0
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1:
        raise UserError(f"{task}: expected a share from 0 to 1 at the end, for example :flip=0.3")
    return rate
