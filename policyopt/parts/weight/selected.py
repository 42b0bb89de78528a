"""Weights on selected tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import NonNegative, Weight, Wrapper, part
from policyopt.parts.select.tokens import AboveQuantile, Selector
from policyopt.rows import Batch


@part
class SelectedWeight(Wrapper, Weight):
    """One factor on the tokens that a selector picks, another on the rest. The divisor of the loss counts all tokens."""

    tokens: Selector = AboveQuantile()
    """Which tokens."""
    inside: NonNegative = 1.0
    """Factor on those that are picked."""
    outside: NonNegative = 0.0
    """Factor on the others."""

    around: ClassVar[str] = "tokens"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.where(self.tokens(batch), self.inside, self.outside).to(log_ratio)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"selected": self.tokens(batch).to(log_ratio)}
