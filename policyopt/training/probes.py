"""What probes measure at an evaluation."""

from __future__ import annotations

from typing import Any

from policyopt.engine.protocol import Engine
from policyopt.part import Probe
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.training.console import MEASURED
from policyopt.training.evaluate import Scores
from policyopt.training.rows import to_batch


def draws(recipe: Recipe) -> bool:
    """Whether a recipe's probes measure sampled responses, which every evaluation then has."""
    return any(type(p).samples is not Probe.samples or type(p).model is not Probe.model for p in recipe.probes)


def measured(recipe: Recipe, engine: Engine, scores: Scores, budget: int) -> dict[str, Any]:
    """What a recipe's probes measure, and under :data:`~policyopt.training.console.MEASURED` their names, in order."""
    found: dict[str, float] = {}
    batch = sampled(engine, scores, budget) if scores.sampled and recipe.probes else None
    for probe in recipe.probes:
        found |= probe.parameters(engine.parameters(), engine.start)
        if batch is None:
            continue
        if "ref_logp" in probe.needs:
            scored = engine.annotate(batch, recipe)
            log_ratio = ((scored.old_logp - scored.ref_logp) * scored.mask).sum(1).cpu()
            reward = batch.reward.view(len(scores.sampled), -1).float().cpu()
            found |= probe.samples(reward, log_ratio.view_as(reward))
        if engine.policy is not None:
            found |= probe.model(engine.policy, batch)
    return found | {MEASURED: list(found)} if found else {}


def sampled(engine: Engine, scores: Scores, budget: int) -> Batch:
    """The sampled responses of an evaluation, those of a prompt together as a group."""
    rows = [
        (prompt, response, verdict, i)
        for i, (prompt, group, said) in enumerate(scores.sampled)
        for response, verdict in zip(group, said, strict=True)
    ]
    prompts, responses, verdicts, groups = map(list, zip(*rows, strict=True))
    return to_batch(prompts, responses, verdicts, groups, budget, engine.dtype).to(engine.device)
