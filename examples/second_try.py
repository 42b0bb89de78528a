"""A rollout program of your own: a prompt that the whole group fails at is tried again at a higher temperature.

Run it with ``python examples/second_try.py``. What a program needs is on this page: it asks the sampler, it may ask the judge between
draws, it counts what the log should show, and it returns responses.
"""

from __future__ import annotations

from typing import ClassVar

import policyopt as po
from policyopt.part import Positive, part
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response


@part
class SecondTry(Group):
    """A group; where all of it is wrong, as many more responses at the temperature ``hot``."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    hot: Positive = 1.3

    async def draw(self, question: Question, context: Context) -> list[Response]:
        first = await super().draw(question, context)
        if any(verdict.correct for verdict in await context.judge(first)):
            return first
        context.count(tried_again=1)  # rollout/tried_again in metrics.jsonl
        return first + await context.sampler.generate(
            question.tokens, n=self.size, max_tokens=question.budget, temperature=self.hot, key=(*question.key, 1)
        )


if __name__ == "__main__":
    recipe = po.methods.grpo(kl_coef=0.0, group_size=4).replace(source=SecondTry(size=4))
    result = po.train(recipe, model="embedded", task="countdown", steps=20)
    print(result.summary["before"]["accuracy"], "->", result.summary["after"]["accuracy"])
