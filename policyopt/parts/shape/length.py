"""Rewards for length."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.groups import group_max
from policyopt.part import UNITS, Finite, Part, Positive, Shape, Unit, part
from policyopt.parts.select.rows import RowSelector
from policyopt.rows import Batch


def token_limit(batch: Batch, tokens: float | None) -> Tensor:
    """[N] a number of tokens for each row: the one given, or with None the budget of the run (``batch.budget``)."""
    return batch.budget.to(batch.reward) if tokens is None else torch.full_like(batch.reward, tokens)


class LengthScale(Part):
    """By what lengths are measured. It stands inside :class:`LengthReward`."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The lengths in tokens at which a row's curve begins and ends, each [N]; NaN where the row has none."""
        raise NotImplementedError


@part
class ShortestToLongest(LengthScale):
    """From the shortest response to the same prompt to the longest one, right or wrong; none where all are equally long.

    Sources: Kimi k1.5, arXiv:2501.12599, section 2.3.3; Fast-Math-R1, arXiv:2507.08267.
    """

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        length = batch.length().to(batch.reward)
        longest, shortest = group_max(length, batch.group), -group_max(-length, batch.group)
        return shortest, torch.where(longest > shortest, longest, torch.nan)


@part
class LengthReward(Shape):
    r"""A reward for length: a curve from one value at a first length to another at a second one.

    .. math:: R_i \leftarrow R_i + c\,\big(v_0 + (v_1 - v_0)\,f(x_i)\big),\qquad x_i = \frac{|y_i| - a_i}{b_i - a_i},\qquad f(x) = x
              \;\text{ or }\; \tfrac12(1 - \cos\pi x) \;\text{ or }\; \frac1{1 + e^{-x}}

    (v_0, v_1) differ for right and wrong answers; (0, 0) leaves them alone. (a, b) are a number of tokens with the share of it at
    which the curve begins, or what a :class:`LengthScale` finds; rows without them have no such reward. Sources: cosine reward: Open-RS,
    arXiv:2503.16219, and the authors' code (knoveleng/open-rs), where it goes on past L; triangle around a budget
    (linear, ``back``): RMT, arXiv:2509.24375, and Curriculum GRPO, arXiv:2508.08940; late and linear: DAPO, arXiv:2503.14476;
    between the shortest and the longest of a prompt: Kimi k1.5, arXiv:2501.12599; against the prompt's own record: HAPO, arXiv:2505.11225;
    sigmoid: GRPO-lambda, arXiv:2505.18086.
    """

    coef: Finite = 1.0
    """c."""
    curve: Literal["linear", "cosine", "sigmoid"] = "linear"
    """f; the sigmoid has v_0 long before a, v_1 long after it, and knows no bounds."""
    reference: Positive | LengthScale | None = None
    """b in tokens, or what finds a and b; None takes the budget of the run (``batch.budget``)."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """a as a share of b, where that is a number: up to there the value is v_0."""
    past: Literal["hold", "back", "on"] = "hold"
    """Beyond b: v_1 stays; the way back to v_0, which is reached as far beyond and stays; or f goes on as it is."""
    right: tuple[Finite, Finite] = (1.0, 0.5)
    """(v_0, v_1) of a right answer."""
    wrong: tuple[Finite, Finite] = (0.0, 0.0)
    """(v_0, v_1) of a wrong answer."""
    floor: Finite | None = None
    """A right answer never has less than this."""
    cap: Finite | None = None
    """A wrong answer never has more than this."""
    rows: RowSelector | None = None
    """Which rows it is about; None for all."""

    @property
    def within(self) -> tuple[Part, ...]:
        """The parts that it holds."""
        return tuple(p for p in (self.reference, self.rows) if isinstance(p, Part))

    @property
    def needs(self) -> frozenset[str]:
        """Correctness where it makes a difference, and what the parts within read."""
        judged = self.right != self.wrong or self.floor is not None or self.cap is not None
        return frozenset({"correct"} if judged else ()).union(*(p.needs for p in self.within))

    @property
    def unit(self) -> Unit:
        """The coarsest of the parts within."""
        return max(("token", *(p.unit for p in self.within)), key=UNITS.index)

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=batch.reward + self.coef * self.value(batch))

    def value(self, batch: Batch) -> Tensor:
        """The reward of each row before its coefficient, [N]."""
        first, last = self.ends(batch)
        x = (batch.length().to(batch.reward) - first) / (last - first)
        there = ~x.isnan()
        done = self.course(torch.where(there, x, 0.0))
        found = self.right[0] + (self.right[1] - self.right[0]) * done
        if "correct" in self.needs:
            wrong = self.wrong[0] + (self.wrong[1] - self.wrong[0]) * done
            found = torch.where(batch.correct > 0.5, at_least(found, self.floor), at_most(wrong, self.cap))
        there = there if self.rows is None else there & self.rows(batch)
        return torch.where(there, found, 0.0)

    def ends(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """a and b, each [N]."""
        if isinstance(self.reference, LengthScale):
            return self.reference(batch)
        limit = token_limit(batch, self.reference)
        return self.start * limit, limit

    def course(self, x: Tensor) -> Tensor:
        """f."""
        if self.curve == "sigmoid":
            return x.sigmoid()
        x = x.clamp(min=0)
        if self.past != "on":
            x = x.clamp(max=1) if self.past == "hold" else (1 - (1 - x).abs()).clamp(min=0)
        return x if self.curve == "linear" else (1 - torch.cos(math.pi * x)) / 2


def at_least(x: Tensor, floor: float | None) -> Tensor:
    """``x``, raised to a floor where there is one."""
    return x if floor is None else x.clamp(min=floor)


def at_most(x: Tensor, cap: float | None) -> Tensor:
    """``x``, held below a cap where there is one."""
    return x if cap is None else x.clamp(max=cap)
