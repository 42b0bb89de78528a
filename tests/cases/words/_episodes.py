"""Episodes of cases as a batch: one token for each turn, and one of the environment between two turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policyopt.rows import Batch, make_batch, pad
from policyopt.sources.episodes import number_of
from policyopt.turns import turns_there


def episodes(told: Sequence[Mapping[str, Any]]) -> Batch:
    """A row for each trajectory ``{"group", "state": [...], "step_reward": [...]}``."""
    turns = [len(one["step_reward"]) for one in told]
    rewards = [list(map(float, one["step_reward"])) for one in told]
    states = [[number_of(str(s)) for s in one.get("state", range(n))] for one, n in zip(told, turns, strict=True)]
    return make_batch(
        mask=pad([[float(t % 2 == 0) for t in range(2 * n - 1)] for n in turns], torch.float64),
        present=pad([[1.0] * (2 * n - 1) for n in turns], torch.float64),
        group=torch.tensor([one.get("group", 0) for one in told]),
        reward=torch.tensor([sum(r) for r in rewards], dtype=torch.float64),
        turn_reward=pad(rewards, torch.float64),
        turn_end=pad([[2 * k for k in range(n)] for n in turns], torch.long, -1),
        turn_state=pad(states, torch.long, -1),
    )


def ragged(batch: Batch, x: Tensor) -> list[list[float]]:
    """Numbers of turns [N, K] without the padding."""
    return [row[there].tolist() for row, there in zip(x, turns_there(batch), strict=True)]
