"""Rewards for length."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.part import Finite, NonNegative, Positive, Shape, Unit, part
from policyopt.rows import Batch


@part
class LengthReward(Shape):
    r"""A reward for length: a curve from one value at no tokens to another at a reference length.

    .. math:: R_i \leftarrow R_i + c\,\big(v_0 + (v_1 - v_0)\,f(|y_i|/L)\big),\qquad f(x) = x
              \;\text{ or }\; \tfrac12(1 - \cos\pi x)

    (v_0, v_1) differ for right and wrong answers; (0, 0) leaves them alone. Sources: cosine reward: Open-RS,
    arXiv:2503.16219, and the authors' code (knoveleng/open-rs), where it goes on past L; triangle around a budget
    (linear, ``back``): RMT, arXiv:2509.24375.
    """

    coef: Finite = 1.0
    """c."""
    curve: Literal["linear", "cosine"] = "linear"
    """f."""
    reference: Positive | None = None
    """L in tokens; None takes the budget of the run (``batch.budget``)."""
    past: Literal["hold", "back", "on"] = "hold"
    """Beyond L: v_1 stays; the way back to v_0, which is reached at 2 L and stays; or f goes on as it is."""
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
        x = batch.length().to(batch.reward) / limit
        if self.past != "on":
            x = x.clamp(max=1) if self.past == "hold" else (1 - (1 - x).abs()).clamp(min=0)
        done = x if self.curve == "linear" else (1 - torch.cos(math.pi * x)) / 2
        if self.right == self.wrong:
            return self.right[0] + (self.right[1] - self.right[0]) * done
        first, last = (torch.where(batch.correct > 0.5, *pair) for pair in zip(self.right, self.wrong, strict=True))
        return first + (last - first) * done


@part
class OverlongPenalty(Shape):
    r"""Soft overlong punishment: a penalty that grows linearly from 0 to -1 over the last ``share`` of the token
    budget.

    .. math:: \mathrm{clip}\Big(\frac{(L_{max} - L_c) - |y|}{L_c}, -1, 0\Big),\qquad L_c = share \cdot L_{max}

    Source: DAPO, arXiv:2503.14476, eq. 13, with 4,096 of 20,480 tokens. The budget is the run's (``batch.budget``).
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """L_c over L_max."""
    coef: NonNegative = 1.0
    """Factor on the penalty."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Batch:
        budget = batch.budget.to(batch.reward)
        span = self.share * budget
        penalty = ((budget - span - batch.length().to(batch.reward)) / span).clamp(-1, 0)
        return batch.replace(reward=batch.reward + self.coef * penalty)
