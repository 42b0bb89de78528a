"""The clipped surrogate of PPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from policyopt.part import Surrogate, part
from policyopt.parts.surrogate.bounds import Bounded, pessimistic
from policyopt.rows import Batch


@part
class PPOClip(Bounded, Surrogate):
    r"""The pessimistic clipped surrogate.

    .. math:: \max\big(-r A,\; -\mathrm{clip}(r, 1-\epsilon_{low}, 1+\epsilon_{high})\,A\big),\qquad
              A < 0:\; \min(\cdot, -c A)

    The gradient is zero exactly where (A > 0 and r > 1 + high), (A < 0 and r < 1 - low) or (A < 0 and r > c);
    elsewhere it is -A r: without c the gradient of :class:`RatioTimesAdvantage` under the weight :class:`ClipMask`, which
    leaves silent tokens no value; here they keep the value at the bound. Source: PPO, arXiv:1707.06347, eq. 7; two bounds: DAPO, arXiv:2503.14476, eq. 10; c: dual-clip
    PPO, arXiv:1912.09729. Raises ``ValueError`` where c lies inside the bounds.
    """

    dual: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """c, the ratio (no distance from 1) beyond which the loss of a bad token grows no more; None for no ceiling. It is
    verl's ``clip_ratio_c``, which is 3 in every run there, and TRL's ``delta``, which is unset."""

    def __post_init__(self) -> None:
        if self.dual is not None and self.high is not None and self.dual < 1 + self.high:
            raise ValueError(f"dual is {self.dual:g}, inside the bound 1 + high = {1 + self.high:g}: raise dual")

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.counted(log_ratio, batch) * batch.advantage

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        """The ratio with which each token counts, [N, T]."""
        return pessimistic(log_ratio.exp(), batch.advantage, *self.window(log_ratio, batch), self.dual)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        found = super().metrics(log_ratio, batch)
        if self.dual is None:
            return found
        return {
            **found,
            "clip_fraction/dual": ((log_ratio > math.log(self.dual)) & (batch.advantage < 0)).to(log_ratio),
        }
