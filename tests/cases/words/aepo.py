"""AEPO: the words of its cases; auxiliary rows come apart from those of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.given import build_batch, build_recipe
from policyopt.methods.entropy.aepo import ReplaceByAuxiliary
from policyopt.objective import credit, selected, shaped, token_gradients
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.rows import join
from policyopt.steering import control

PARAMS: Mapping[str, Any] = {"clip_dual": "dual"}


def _recipe(given: Mapping[str, Any], entropy: float) -> Recipe:
    """The recipe of the step after an entropy was measured."""
    recipe = build_recipe(get_method("aepo"), "loss", given["params"], given, PARAMS)
    return control(recipe, {"entropy": entropy}, {})


def _schedule(given: Mapping[str, Any]) -> Mapping[str, Any]:
    recipes = [_recipe(given, entropy) for entropy in given["entropy"]]
    rules = [recipe.select[0] for recipe in recipes]
    return {
        "temperature": [recipe.get("source.auxiliary_temperature") for recipe in recipes],
        "n_used": [
            rule.used(available)
            for rule, available in zip(rules, given.get("available", ()), strict=False)
            if isinstance(rule, ReplaceByAuxiliary)
        ],
    }


def _loss(given: Mapping[str, Any]) -> Mapping[str, Any]:
    recipe = _recipe(given, given["entropy"])
    main = {name: x for name, x in given.items() if not name.startswith("aux_") and name != "entropy"}
    own = {name.removeprefix("aux_"): x for name, x in given.items() if name.startswith("aux_")}
    labels = list(dict.fromkeys(map(str, [*given["group"], *own["group"]])))
    pieces = []
    for origin, columns in enumerate((main, own)):
        piece = build_batch(columns, given["params"])
        group = torch.tensor([labels.index(str(g)) for g in columns["group"]], dtype=torch.long)
        pieces.append(piece.replace(group=group, origin=torch.full_like(group, origin)))
    n = len(pieces[0].mask)
    batch = credit(recipe, shaped(recipe, join(pieces)))
    keep = selected(recipe, batch)
    loss, gradients = token_gradients(recipe, batch[keep], {"logp": batch.logp[keep]})
    gradient = torch.zeros_like(batch.logp)
    gradient[keep] = gradients["logp"]
    return {
        "advantage": (batch.advantage.sum(-1) / batch.length().clamp(min=1))[:n],
        "aux_selected": (batch.advantage[n:] > 0).any(-1).nonzero()[:, 0],
        "aux_used": keep[n:].nonzero()[:, 0],
        "kept_rows": keep[:n].nonzero()[:, 0],
        "loss": loss,
        "dloss_dlogp": gradient[:n],
        "dloss_daux_logp": gradient[n:],
    }


CASES = {"schedule": _schedule, "loss": _loss}
