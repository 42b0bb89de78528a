"""Prompts that come again, for what is remembered of them."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.part import Curriculum, part


@part
class AmongPool(Curriculum):
    """All prompts of the pool alike, so that those of a task that makes new ones without end come again too.

    For methods that read what they remember of a prompt: HAPO, arXiv:2505.11225, whose data are passed five times; PALU, arXiv:2510.10168.
    """

    def weights(self, memory: Tensor) -> Tensor:
        return torch.ones(len(memory))
