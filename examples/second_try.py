"""A rollout program of your own: a prompt that the whole group fails at is tried again at a higher temperature.

Run it with ``python examples/second_try.py``. What a program needs is on this page: it asks the sampler, it may ask the judge between
draws, it counts what the log should show, and it returns responses.
"""

from __future__ import annotations

import policyopt as po
from policyopt.part import Positive, part
from policyopt.sources.draw import Group
from policyopt.sources.program import Prompt, Response, Sampler


@part
class SecondTry(Group):
    """A group; where all of it is wrong, as many more responses at the temperature ``hot``."""

    hot: Positive = 1.3

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        first = await super().draw(prompt, sampler)
        if any(verdict.correct for verdict in await prompt.score(first)):
            return first
        prompt.count(tried_again=1)  # rollout/tried_again in metrics.jsonl
        return first + await sampler.generate(
            prompt.tokens, n=self.size, max_tokens=prompt.budget, temperature=self.hot, key=(*prompt.key, 1)
        )


if __name__ == "__main__":
    recipe = po.methods.grpo(kl_coef=0.0, group_size=4).replace(source=SecondTry(size=4))
    result = po.train(recipe, model="embedded", task="countdown", steps=20)
    print(result.summary["before"]["accuracy"], "->", result.summary["after"]["accuracy"])
