"""Responses that are generated piece by piece, in windows between which the policy is updated."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import Unit, part
from policyopt.parts.select import Selector


@part
class EarlierTokens(Selector):
    """The tokens of earlier windows: an update has been made on them already.

    Reads ``new_from``, the index [N] of each row's first new token; without it all tokens are new. Muted by a
    ``SelectedWeight``, every token trains the policy once. Source: T-PPO, arXiv:2506.15050 (token filter).
    """

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        if batch.new_from is None:
            return torch.zeros_like(batch.mask, dtype=torch.bool)
        position = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        return batch.mask.bool() & (position < batch.new_from[:, None])
