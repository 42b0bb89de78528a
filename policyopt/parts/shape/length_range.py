"""A reward for a length inside of a range."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.part import Finite, Label, Shape, part
from policyopt.rows import Batch
from policyopt.schema import member

Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Label
"""A number of tokens, or the name of a component in which the judge gives one for each row."""


@part
class LengthRange(Shape):
    r"""A reward for a length inside of a range, added with a coefficient and kept as the component ``length``.

    .. math:: v_i = \begin{cases} |y_i|/L_{lo} & |y_i| < L_{lo}\\ 1 & L_{lo} \le |y_i| \le L_{up}\\
              \max\big(0, \frac{L_{max} - |y_i|}{L_{max} - L_{up}}\big) & |y_i| > L_{up}\end{cases}

    A bound that is named is a component of the judge, such as a number that the data has for each prompt; where it does not apply to
    a row v is 0. Sources: LongWriter-Zero, arXiv:2506.18841; a single target with :math:`L_{max} = 2L`,
    :math:`\max(0, 1 - ||y_i| - L|/L)`: ACE-RL, arXiv:2509.04903. Our reading: below 0 it is cut off, and lengths are in tokens.
    """

    coef: Finite = 0.0
    """What it counts in the reward; 0 leaves the reward as it is."""
    lower: Bound | None = None
    """L_lo; None: half of the budget of the run."""
    upper: Bound | None = None
    """L_up; None: where ``lower`` is."""
    most: Bound | None = None
    """L_max; None: twice the upper bound."""

    provides: ClassVar[frozenset[str]] = frozenset({"component[length]"})

    @property
    def needs(self) -> frozenset[str]:
        """The bounds that a judge gives."""
        return frozenset(member("component", x) for x in (self.lower, self.upper, self.most) if isinstance(x, str))

    def __post_init__(self) -> None:
        rising = [x for x in (self.lower, self.upper, self.most) if isinstance(x, float)]
        if rising != sorted(rising) or (self.most is not None and self.most == self.upper):
            raise ValueError(
                f"lower, upper and most are {', '.join(f'{x:g}' for x in rising)}: they have to rise, and most to be above upper"
            )

    def __call__(self, batch: Batch) -> Batch:
        value = self.value(batch)
        return batch.replace(reward=batch.reward + self.coef * value, **{"component[length]": value})

    def value(self, batch: Batch) -> Tensor:
        """v, [N]."""
        length = batch.length().to(batch.reward)
        lower = batch.budget.to(length) / 2 if self.lower is None else self._bound(self.lower, batch)
        upper = lower if self.upper is None else self._bound(self.upper, batch)
        most = 2 * upper if self.most is None else self._bound(self.most, batch)
        rising, falling = length / lower.clamp(min=1e-9), (most - length) / (most - upper).clamp(min=1e-9)
        value = torch.where(length < lower, rising, torch.where(length > upper, falling, 1.0)).clamp(min=0)
        return torch.where((lower > 0) & (upper > 0) & (most > upper), value, 0.0)

    def _bound(self, bound: float | str, batch: Batch) -> Tensor:
        return batch.component(bound) if isinstance(bound, str) else torch.full_like(batch.reward, bound)
