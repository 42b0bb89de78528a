"""Rewards for length."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.part import Finite, Positive, Shape, part
from policyopt.rows import Batch


@part
class LengthReward(Shape):
    r"""A reward for length: a curve from one value up to where it starts to another at a reference length.

    .. math:: R_i \leftarrow R_i + c\,\big(v_0 + (v_1 - v_0)\,f(x_i)\big),\qquad x_i = \max\Big(\frac{|y_i| - sL}{L - sL}, 0\Big),\qquad f(x) = x
              \;\text{ or }\; \tfrac12(1 - \cos\pi x)

    (v_0, v_1) differ for right and wrong answers; (0, 0) leaves them alone. Sources: cosine reward: Open-RS,
    arXiv:2503.16219, and the authors' code (knoveleng/open-rs), where it goes on past L; triangle around a budget
    (linear, ``back``): RMT, arXiv:2509.24375; late and linear: DAPO, arXiv:2503.14476.
    """

    coef: Finite = 1.0
    """c."""
    curve: Literal["linear", "cosine"] = "linear"
    """f."""
    reference: Positive | None = None
    """L in tokens; None takes the budget of the run (``batch.budget``)."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """s, the share of L up to which the value is v_0."""
    past: Literal["hold", "back", "on"] = "hold"
    """Beyond L: v_1 stays; the way back to v_0, which is reached as far beyond and stays; or f goes on as it is."""
    right: tuple[Finite, Finite] = (1.0, 0.5)
    """(v_0, v_1) of a right answer."""
    wrong: tuple[Finite, Finite] = (0.0, 0.0)
    """(v_0, v_1) of a wrong answer."""

    @property
    def needs(self) -> frozenset[str]:
        """Correctness where it makes a difference."""
        return frozenset() if self.right == self.wrong else frozenset({"correct"})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=batch.reward + self.coef * self.value(batch))

    def value(self, batch: Batch) -> Tensor:
        """The reward of each row before its coefficient, [N]."""
        limit = batch.budget.to(batch.reward) if self.reference is None else self.reference
        start = self.start * limit
        x = ((batch.length().to(batch.reward) - start) / (limit - start)).clamp(min=0)
        if self.past != "on":
            x = x.clamp(max=1) if self.past == "hold" else (1 - (1 - x).abs()).clamp(min=0)
        done = x if self.curve == "linear" else (1 - torch.cos(math.pi * x)) / 2
        if self.right == self.wrong:
            return self.right[0] + (self.right[1] - self.right[0]) * done
        first, last = (torch.where(batch.correct > 0.5, *pair) for pair in zip(self.right, self.wrong, strict=True))
        return first + (last - first) * done
