"""What a critic learns where a guide has written parts of the responses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.base import Unit, part
from policyopt.parts.source import main_rows
from policyopt.parts.value import ClippedValueLoss


@part
class GuidedValueLoss(ClippedValueLoss):
    r"""The clipped error of the critic, where a guide finishes a response on the guide's tokens alone.

    .. math:: \frac{1}{\sum_{i,t} m_{i,t}}\sum_{i,t} m_{i,t}\,\ell_{i,t},\qquad
              m = 1\text{ on the guide's tokens of a row that has some},\text{ else on all}

    It is then the guide's value that the policy's tokens before are credited with. Rows of auxiliary programs are left
    out. Source: RLGF, arXiv:2306.11816, and the authors' code (Cornell-RL/tril).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"value", "guided"})
    unit: ClassVar[Unit] = "batch"

    def learned(self, batch: Batch) -> Tensor:
        every = super().learned(batch)
        guided = every * (batch.mask - batch.own())
        return torch.where(guided.any(-1, keepdim=True), guided, every) * main_rows(batch)[:, None]

    def __call__(self, batch: Batch) -> Tensor:
        return masked_mean(super().__call__(batch), self.learned(batch))
