"""What the cases of Prefix Grouper call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policyopt.methods.systems.prefix_grouper import prefix_grouper
from policyopt.models.forest import Forest, grow
from policyopt.models.packed import Attention, lay_out


def attended(forest: Forest) -> Tensor:
    """[T, T] 1 where a token (first index) attends to another."""
    found = torch.zeros(len(forest), len(forest), dtype=torch.long)
    for start, length in zip(forest.start, forest.length, strict=True):
        found[start : start + length, start : start + length] = torch.ones(length, length, dtype=torch.long).tril()
    places = torch.arange(len(forest))
    for shared in lay_out(forest).shared:
        for looking, seen in zip(shared.looking(places), shared.seen(places), strict=True):
            found[looking[:, None], seen] = 1
    return found


def _other(given: Mapping[str, Any]) -> dict[str, Any]:
    prompt, lengths = given["prefix_len"], np.array(given["suffix_lens"])
    # Rows of one prompt and of responses that differ from their first tokens on, in the order in which they are packed.
    ids = np.arange(prompt + lengths.max()) + 100 * np.arange(len(lengths))[:, None] * (
        np.arange(prompt + lengths.max()) >= prompt
    )
    forest = grow(ids, prompt + lengths)
    q, k, v = (torch.tensor(given[name], dtype=torch.float64)[:, None] for name in ("q", "k", "v"))
    output: Any = Attention.apply(q, k, v, lay_out(forest), q.shape[-1] ** -0.5)
    cost = prefix_grouper(prompt, float(lengths.mean()), len(lengths))
    return {
        "position_ids": forest.position.tolist(),
        "attention_mask": attended(forest),
        "output": output[:, 0],
        "loss_logit_index": [row[prompt - 1 : prompt + n - 1].tolist() for row, n in zip(forest.place, lengths, strict=True)],
        "attention_flops_ratio": cost.attention,
        "pointwise_flops_ratio": cost.tokens,
    }  # fmt: skip


CASES = {"other": _other}
