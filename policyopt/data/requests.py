"""The testbeds ``requests:TASK``: the questions of a task, for a model that has been asked other things too.

A rollout program that asks the policy to rewrite a question, to explain an answer, to answer again after a critique or
to score candidates needs a policy that knows what is wanted. Lessons show it: each is such a request in the program's
own words (:mod:`policyopt.data.words`), and what somebody helpful replies. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from functools import cached_property

from policyopt.data.builtin import BUILTIN
from policyopt.data.made import Made
from policyopt.data.sums import Order, added_first, reordered, turned
from policyopt.data.words import DIVERSIFY, SIMPLIFY, explanation, judging, refinement, rewriting, verdict_in_words
from policyopt.errors import UserError, nearest
from policyopt.items import Example, Lesson, Task, user
from policyopt.judging.answers import answer_line
from policyopt.judging.judges import make_judge
from policyopt.judging.kinds import Judge

PREFIX = "requests:"
CANDIDATES = 4
"""How many responses a referee is shown."""
HASTY = 0.8
"""Share of the wrong responses in lessons that are an answer line alone, and of the right ones that are worked out."""
RIGHT = 0.25
"""Share of the critiques that are of a right response."""


class Lessons(Made[Lesson]):
    """Lessons made of the training questions of a task when they are asked for, each of a kind that the question allows:
    one that is no sum cannot be put in another order."""

    def __init__(self, task: Task) -> None:
        super().__init__(len(task.train))
        self.task = task
        self.kinds: Sequence[Callable[[Example, random.Random], Lesson | None]] = (
            self.simpler,
            self.other,
            self.explanation,
            self.refinement,
            self.scores,
        )

    def _make(self, index: int) -> Lesson:
        chance = random.Random(f"{self.task.name} lesson {index}")
        tried = (kind(self.task.train[index], chance) for kind in chance.sample(self.kinds, len(self.kinds)))
        return next(lesson for lesson in tried if lesson is not None)

    @cached_property
    def judge(self) -> Judge:
        assert self.task.judge is not None, "built-in tasks bring a judge"
        return make_judge(self.task.judge)

    # Kinds

    def simpler(self, example: Example, chance: random.Random) -> Lesson | None:
        """The question with its terms in the easiest order, or in another one where they have that."""
        return _rewriting(example, SIMPLIFY, added_first, turned)

    def other(self, example: Example, chance: random.Random) -> Lesson | None:
        """The question with its terms in another order."""
        return _rewriting(example, DIVERSIFY, turned, added_first)

    def explanation(self, example: Example, chance: random.Random) -> Lesson:
        """The worked solution, for an answer that is known."""
        steps, last = worked(example)
        return Lesson(user(explanation(asked(example), example.answer)), steps + last)

    def refinement(self, example: Example, chance: random.Random) -> Lesson:
        """The worked solution, after a critique of a response that was mostly wrong."""
        steps, last = worked(example)
        text = self.response(example, chance, right=chance.random() < RIGHT)
        said = verdict_in_words(self.judge(example, text).correct, example.answer)
        return Lesson(user(refinement(asked(example), text, said)), steps + last)

    def scores(self, example: Example, chance: random.Random) -> Lesson:
        """An answer line with what the judge says of each candidate."""
        right = chance.sample([True, False] * CANDIDATES, CANDIDATES)
        texts = [self.response(example, chance, right=x) for x in right]
        scores = " ".join(f"{self.judge(example, text).score:g}" for text in texts)
        return Lesson(example.prompt, answer_line(scores), "".join(judging(texts, str)))

    def response(self, example: Example, chance: random.Random, *, right: bool) -> str:
        """A response to a question. A wrong one ends with a hasty answer or that of another question, and every second
        time its steps are of another question too: whoever copies them does not answer this one."""
        steps, last = worked(example)
        if not right:
            other, answer = worked(self.task.train[chance.randrange(len(self))])
            steps, last = chance.choice([steps, other]), example.hasty or answer
        return steps + last if (chance.random() < HASTY) == right else last


def _rewriting(example: Example, wish: str, *orders: Order) -> Lesson | None:
    text = next(filter(None, (reordered(asked(example), order) for order in orders)), None)
    if text is None:
        return None
    return Lesson(user(rewriting(asked(example), example.answer, wish)), f"```\n{text}\n```")


def asked(example: Example) -> str:
    """The text of a question."""
    return example.prompt[-1]["content"]


def worked(example: Example) -> tuple[str, str]:
    """The worked solution: its steps with their line ends, and its answer line."""
    assert example.solution is not None, f"{example.id} has no worked solution"
    *steps, last = example.solution.splitlines()
    return "".join(f"{step}\n" for step in steps), last


def summaries() -> dict[str, str]:
    """The testbeds of this kind: name and one line of description."""
    return {f"{PREFIX}{x}": f"{x}, for programs that ask the model for other things too" for x in BUILTIN}


def requests_task(name: str, *, seed: int, heldout: int) -> Task:
    """The task ``requests:NAME``. Raises ``UserError`` for a name that is no built-in task with worked solutions."""
    from policyopt.data.reasoning import load_reasoning

    if name not in BUILTIN:
        raise UserError(
            f"task {PREFIX}{name}: expected one of {', '.join(BUILTIN)} after the colon; {nearest(name, BUILTIN)}"
        )
    inner = load_reasoning(name, builtin=True, seed=seed, heldout=heldout)
    # Requests are long: twice the tokens make about as many rows in a step
    return dataclasses.replace(
        inner,
        name=f"{PREFIX}{name}",
        lessons=Lessons(inner),
        warm_start={**inner.warm_start, "tokens": 2200},
    )
