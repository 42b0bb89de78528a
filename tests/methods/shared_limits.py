"""What several tests of methods share: what the sources of the methods state: unbiasedness, reductions to the parent, and who gets which gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policyopt.recipe import Recipe
from tests.batches import TinyPolicy

alike = torch.testing.assert_close


# Unbiased or not, by summing over everything that can be drawn -------------------------------------------------------


def mean_reward(tiny: TinyPolicy) -> Tensor:
    return (tiny.log_probability().exp() * tiny.reward).sum()


# Sequences -----------------------------------------------------------------------------------------------------------


def wide(make: Any, **given: Any) -> Recipe:
    """With bounds that clip some of the sequences and not others."""
    return make(low=0.08, high=0.1, **given)
