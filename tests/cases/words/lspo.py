"""What cases call things in LSPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.games.lspo import lspo, regret_matching
from policyopt.objective import credit
from policyopt.rows import make_batch


def _other(given: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy of regrets; or the pairs of candidates of one prompt, whose clusters have regrets."""
    regret = torch.tensor(given["regret"], dtype=torch.float64)
    if "cluster" not in given:
        return {"strategy": regret_matching(regret)}
    reward = regret[given["cluster"]]
    recipe = lspo()
    batch = credit(
        recipe,
        make_batch(
            mask=torch.ones_like(reward)[:, None], reward=reward, group=torch.zeros(len(reward), dtype=torch.long)
        ),
    )
    surrogate: Any = recipe.surrogate
    return {"pairs": torch.stack(surrogate.choose(batch), 1)}


CASES = {"other": _other}
