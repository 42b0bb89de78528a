"""Words of GRPO-Guard."""

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.ratio.grpo_guard import KL_FROM_OLD
from policyopt.objective import objective
from policyopt.registry import get_method
from policyopt.rows import make_batch


def gaussian_steps(given: Mapping[str, Any]) -> dict[str, Any]:
    """A flow model: row i takes T Gaussian steps, which stand where a language model has tokens."""
    mean, old_mean, sample, sigma, sqrt_dt, advantage = (
        torch.tensor(given[name], dtype=torch.float64)
        for name in ("mu", "old_mu", "sample", "sigma", "sqrt_dt", "advantage")
    )
    std, clip = sigma * sqrt_dt, given["params"]["clip"]
    recipe = get_method("grpo-guard")(
        clip, clip, scale=tuple(std.tolist()), step_weight=tuple((1 / sqrt_dt**2).tolist())
    )
    with torch.enable_grad():
        mean.requires_grad_()
        # What a flow model would say of its steps, the mean over dimensions: log-ratio at the sample, and KL.
        log_ratio = ((sample - old_mean) ** 2 - (sample - mean) ** 2).mean(-1) / (2 * std**2)
        kl = ((mean - old_mean) ** 2).mean(-1) / (2 * std**2)
        mask = torch.ones_like(log_ratio).detach()
        batch = make_batch(
            mask=mask, advantage=advantage.reshape(len(mask), -1).expand_as(mask), logp=log_ratio, old_logp=0 * mask
        ).with_statistics({KL_FROM_OLD.key: kl})
        loss = objective(recipe, batch)
        gradient = torch.autograd.grad(loss, mean)[0]
    return {
        "log_ratio": log_ratio.detach(),
        "bias": kl.detach(),
        "ratio": recipe.ratio(batch).exp().detach(),
        "loss": loss.detach(),
        "dloss_dmu": gradient,
    }


CASES = {"loss": gaussian_steps}
