"""What cases call things in EMPG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.empg import EntropyModulated
from policyopt.parts import Normalise
from policyopt.rows import pad
from policyopt.turns import on_tokens

from ._episodes import episodes, ragged


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    """Turns of one token each, which has the entropy of the turn."""
    params, steps = given["params"], given["step_entropy"]
    batch = episodes([{"step_reward": [0.0] * len(h)} for h in steps])
    row = torch.tensor(given["advantage"], dtype=torch.float64)
    entropy, there = pad(steps, torch.float64), batch.turn_end >= 0
    batch = batch.replace(sampled_entropy=on_tokens(batch, entropy), reward=row)
    made = EntropyModulated(
        of=Normalise(centre="none", scale="none"), kappa=params["k"], future=params["k_future"], zeta=params["zeta"]
    )
    found = made(batch)
    return {
        "scale": ragged(batch, made.scale(entropy, there)),
        "clarity": ragged(batch, made.clarity(entropy, there)),
        "modulated": ragged(batch, made.modulated(row, entropy, there)),
        "advantage": ragged(batch, found.gather(1, batch.turn_end.clamp(min=0))),
    }


CASES = {"advantage": _advantage}
