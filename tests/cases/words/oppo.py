"""What the cases of OPPO call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.preference.oppo import encoder_loss, on_the_sphere, triplet


def _steps(given: Mapping[str, Any]) -> dict[str, Any]:
    """Two batches of codes with labels: 1 where the first is preferred, -1 where the second is, 0 for a tie."""
    params = given["params"]
    with torch.enable_grad():
        first, second, star = (
            torch.tensor(given[name], dtype=torch.float64, requires_grad=True)
            for name in ("z_first", "z_second", "z_star")
        )
        label = torch.tensor(given["label"])
        won = (label > 0)[:, None]
        decided = label != 0
        better, worse = torch.where(won, first, second)[decided], torch.where(won, second, first)[decided]
        apart = triplet(star, better, worse, params["margin"], params["eps"])
        loss = encoder_loss(
            given["reconstruction"], (first, second), star, better, worse,
            margin=params["margin"], eps=params["eps"], pref=params["pref"], norm=params["norm"],
        )  # fmt: skip
        by_first, by_second = torch.autograd.grad(loss, (first, second), retain_graph=True)
        (by_star,) = torch.autograd.grad(apart, star)
    return {
        "triplet": apart.detach(),
        "norm": (on_the_sphere(first) + on_the_sphere(second)).detach(),
        "loss": loss.detach(),
        "dloss_dz_first": by_first,
        "dloss_dz_second": by_second,
        "dtriplet_dz_star": by_star,
    }


CASES = {"preference_loss": _steps}
