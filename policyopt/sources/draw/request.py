"""Asking the policy for something else than an answer: a critique, another wording of the question."""

from __future__ import annotations

from policyopt.sources.program import Context, Question


async def reply(
    question: Question, context: Context, request: str, *, tokens: int, temperature: float, key: tuple[int, ...]
) -> str | None:
    """What the policy writes, in at most so many tokens, when it is asked ``request`` in the place of the question;
    ``None`` where its context leaves no room for that."""
    asked = context.asked(request)
    if asked is None:
        return None
    most = min(tokens, context.room - len(asked) + question.budget)
    [response] = await context.sampler.generate(asked, max_tokens=most, temperature=temperature, key=key)
    return context.decode(response.tokens).strip()
