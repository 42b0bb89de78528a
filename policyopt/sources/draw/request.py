"""Asking the policy for something else than an answer: a critique, another wording of the question."""

from __future__ import annotations

from policyopt.sources.program import Prompt, Sampler


async def reply(
    prompt: Prompt, sampler: Sampler, request: str, *, tokens: int, temperature: float, key: tuple[int, ...]
) -> str | None:
    """What the policy writes, in at most so many tokens, when it is asked ``request`` in the place of the question;
    ``None`` where its context leaves no room for that."""
    assert prompt.decode is not None, "this prompt comes without a tokenizer"
    context = prompt.asked(request)
    if context is None:
        return None
    most = min(tokens, prompt.room - len(context) + prompt.budget)
    [response] = await sampler.generate(context, max_tokens=most, temperature=temperature, key=key)
    return prompt.decode(response.tokens).strip()
