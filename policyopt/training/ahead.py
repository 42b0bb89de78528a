"""Batches for later steps: which may be drawn while an earlier one is trained on."""

from __future__ import annotations

from collections.abc import Callable

from policyopt.recipe import Recipe
from policyopt.training.collect import Drawn

Waiting = Drawn | Callable[[], Drawn]
"""A batch, or what waits for it."""


def independent(recipe: Recipe) -> bool:
    """Whether drawing a batch reads nothing that training on another one changes, so that both may go on at the same time
    and nobody can tell: no memory of prompts, no log-probabilities, statistics or second looks of the policy itself, no reference that moves,
    no values of a critic between draws."""
    source = recipe.source
    policy = "rollout_logp" in recipe.needs or recipe.fixed or any(x.role == "policy" for x in recipe.looks)
    moving = recipe.reference.moves and "reference" in recipe.roles
    return "sampler" in source.services and not (recipe.memory or policy or moving or "critic" in source.uses)


def settled(batch: Waiting) -> Drawn:
    """The batch, once it is there."""
    return batch if isinstance(batch, Drawn) else batch()


def lag(drawn: Drawn, version: int) -> dict[str, float]:
    """How many updates the policy has seen since it wrote the tokens of a batch: the mean over tokens, and the most. What
    :func:`~policyopt.training.services.written` noted is taken out."""
    wrote, tokens = drawn.stats.pop("versions", 0.0), drawn.stats.pop("versioned", 0.0)
    if drawn.batch is None or not tokens:
        return {}
    return {
        "staleness/mean": version - wrote / tokens,
        "staleness/max": float(version - int(drawn.batch.version.min())),
    }
