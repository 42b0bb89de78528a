"""Responses that are written over several steps, a window at a time."""

from __future__ import annotations

import asyncio
import math
from typing import ClassVar

from policyopt.part import Count, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


@part
class Windows(Group):
    """A group whose responses are at most one window longer after each step; the policy is updated in between.

    A window is the budget over ``windows``, rounded up. What is not finished then goes on at the next step with the
    policy of that step, before new prompts are taken; each token keeps the log-probability and the version of the policy
    that wrote it. Sources: T-PPO, arXiv:2506.15050 (unfinished responses are trained on as they grow: ``new_from`` says
    from which token on); UloRL, arXiv:2507.19766 (segment rollout: finished ones alone). Our reading of the latter: a
    prompt is trained on once all its responses have ended, because they are compared with each other.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"resume"})

    windows: Count = 1
    """Into how many windows the budget is divided; 1 writes every response in one step."""
    whole: bool = False
    """Train on a prompt when all its responses have ended, not on what has been written so far."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        window = math.ceil(question.budget / self.windows)
        if not question.earlier:
            group = await context.sampler.generate(
                question.tokens, n=self.size, max_tokens=window, temperature=self.temperature, key=question.key
            )
        else:
            group = list(question.earlier)
            await asyncio.gather(*(self._more(question, context, window, i, r) for i, r in enumerate(group)))
        going = [self._open(r, question) for r in group]
        for response, more in zip(group, going, strict=True):
            response.later = any(going) if self.whole else more
            response.use = "wait" if self.whole and any(going) else "train"
        return group

    def _open(self, response: Response, question: Question) -> bool:
        return not response.finished and len(response.tokens) < question.budget

    async def _more(self, question: Question, context: Context, window: int, number: int, response: Response) -> None:
        """One window more of a response that has not ended."""
        if not self._open(response, question):
            return
        response.new_from, response.verdict = len(response.tokens), None
        await context.sampler.generate(
            question.tokens, max_tokens=min(window, question.budget - len(response.tokens)), temperature=self.temperature,
            key=(*question.key, number, response.new_from), resume=response,
        )  # fmt: skip
