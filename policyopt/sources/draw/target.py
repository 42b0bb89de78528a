"""Text that the policy is to find likely, in rows beside the responses that it is judged by."""

from __future__ import annotations

from policyopt.sources.program import Prompt, Response, Sampler


async def as_target(prompt: Prompt, sampler: Sampler, written: tuple[int, ...], temperature: float) -> Response:
    """A text as a row behind the plain prompt (``origin`` 1), with what the policy thinks of it there."""
    response = await sampler.score(prompt.tokens, written, temperature=temperature)
    response.origin = 1
    return response


async def references(prompt: Prompt, sampler: Sampler, temperature: float) -> list[Response]:
    """The worked solution as a target, where the prompt has one. It is cut at the budget, and counted."""
    if not prompt.solution:
        return []
    if len(prompt.solution) > prompt.budget:
        prompt.count(solutions_cut=1)
    return [await as_target(prompt, sampler, prompt.solution[: prompt.budget], temperature)]
