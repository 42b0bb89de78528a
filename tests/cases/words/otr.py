"""What the cases of otr call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.distillation.otr import counts, otr
from policyopt.rows import make_batch, masked


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """The loss with the tokens that the case has drawn."""
    p = given["params"]
    mask, logits = (torch.tensor(given[name], dtype=torch.float64) for name in ("mask", "logits"))
    target, drawn = (torch.tensor(given[name]).flatten(0, 1) for name in ("target", "samples"))
    recipe = otr(samples=drawn.shape[-1], kappa=p["kappa"], wrong=p["beta"])
    part = recipe.get("regularizers.DistributionLoss").of
    hits = counts(drawn, logits.flatten(0, 1))
    with torch.enable_grad():
        leaf = logits.clone().requires_grad_()
        token_loss = part.loss(leaf.flatten(0, 1), target, hits / part.samples).view_as(mask)
        loss = (recipe.aggregate(make_batch(mask=mask)) * masked(token_loss, mask)).sum()
        gradient = torch.autograd.grad(loss, leaf)[0]
    return {
        "sampling_probs": part.exploration(logits),
        "hits": hits.gather(-1, target[:, None]).view_as(mask),
        "token_loss": masked(token_loss.detach(), mask),
        "loss": loss.detach(),
        "dloss_dlogits": gradient,
    }


CASES = {"loss": _loss}
