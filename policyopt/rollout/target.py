"""Text that the policy is to find likely, in rows beside the responses that it is judged by."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.parts.base import Count, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.group import Group
from policyopt.tasks.answers import MARK, answer_line
from policyopt.tasks.words import EXPLAIN, explanation


async def as_target(prompt: Prompt, sampler: Sampler, written: tuple[int, ...], temperature: float) -> Response:
    """A text as a row behind the plain prompt (``source`` 1), with what the policy thinks of it there."""
    response = await sampler.score(prompt.tokens, written, temperature=temperature)
    response.source = 1
    return response


async def references(prompt: Prompt, sampler: Sampler, temperature: float) -> list[Response]:
    """The worked solution as a target, where the prompt has one. It is cut at the budget, and counted."""
    if not prompt.solution:
        return []
    if len(prompt.solution) > prompt.budget:
        prompt.count(solutions_cut=1)
    return [await as_target(prompt, sampler, prompt.solution[: prompt.budget], temperature)]


@part
class WithReference(Group):
    """A group, and the worked solution (``source`` 1), which is judged as the responses are."""

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    solutions: ClassVar[bool] = True

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group, targets = await asyncio.gather(
            super().draw(prompt, sampler), references(prompt, sampler, self.temperature)
        )
        return [*group, *targets]


@part
class SelfExplained(Group):
    """A group, and explanations of the right answer that the policy gives when it is told it (``source`` 1).

    An explanation stands behind the plain question, and so do its log-probabilities. One that comes to another answer,
    or to none, is cut before it and ends with the true one. A prompt without a reference answer, or too long for the
    request, has none. The log counts them, and those that were right as they stood. Source: ExPO, arXiv:2507.02834.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    explanations: Count = 1
    """For each prompt."""
    request: str = EXPLAIN
    """What the policy is asked; ``{question}`` and ``{answer}`` stand for the prompt's own."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.request:
            raise ValueError(f"request is {self.request!r}, which never says the {{answer}} that is to be explained")

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group, targets = await asyncio.gather(super().draw(prompt, sampler), self.explain(prompt, sampler))
        return [*group, *targets]

    async def explain(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        """The explanations of a prompt's answer, as targets."""
        told = explanation(prompt.question, prompt.answer, self.request)
        context = prompt.asked(told) if prompt.answer else None
        if context is None:
            return []
        drawn = await sampler.generate(
            context, n=self.explanations, max_tokens=prompt.budget, temperature=self.temperature, key=(*prompt.key, -3)
        )
        right = [v.correct and r.finished for v, r in zip(await prompt.score(drawn), drawn, strict=True)]
        prompt.count(explanations=len(drawn), explanations_right=sum(right))
        texts = [tuple(r.tokens) if ok else self.corrected(prompt, r) for r, ok in zip(drawn, right, strict=True)]
        return await asyncio.gather(*(as_target(prompt, sampler, text, self.temperature) for text in texts))

    def corrected(self, prompt: Prompt, response: Response) -> tuple[int, ...]:
        """Ids of an explanation with the true answer line in the place of its own; cut so that this fits."""
        assert prompt.encode is not None and prompt.decode is not None, "this prompt comes without a tokenizer"
        before, mark, after = f"\n{prompt.decode(response.tokens)}".rpartition(f"\n{MARK}")
        steps = (before if mark else after)[1:].rstrip("\n")
        end = (*prompt.encode(answer_line(prompt.answer)), *prompt.end)[: prompt.budget]
        return (*prompt.encode(f"{steps}\n" if steps else "")[: prompt.budget - len(end)], *end)
