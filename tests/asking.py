"""Questions for rollout programs, each with the context that serves it."""

from __future__ import annotations

from typing import Any

from policyopt.sources.program import Context, Question

Asked = tuple[Question, Context]


def ask(
    sampler: Any,
    tokens: tuple[int, ...],
    budget: int,
    key: tuple[int, ...],
    judge: Any = None,
    solution: tuple[int, ...] = (),
    **how: Any,
) -> Asked:
    """A question of some tokens and its context; ``how`` gives further fields of either."""
    data = {name: how.pop(name) for name in ("text", "answer", "earlier") if name in how}
    return Question(tokens, budget, key, solution, **data), Context(sampler, verdicts=judge, **how)
