"""References: how the model that the policy is held to follows it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from policyopt.part import Count, Reference, part


@part
class Frozen(Reference):
    """The policy of the start, for ever."""

    moves: ClassVar[bool] = False

    def __call__(self, step: int) -> float:
        return 0.0


@part
class EMA(Reference):
    r"""A moving average of the policy, :math:`\theta_{ref} \leftarrow d\,\theta_{ref} + (1-d)\,\theta` after each step, or after every
    so many. With 10 steps between: GRPO-CARE, arXiv:2506.16141."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """d."""
    every: Count = 1
    """Steps from one average to the next."""

    def __call__(self, step: int) -> float:
        return 0.0 if step % self.every else 1 - self.decay


@part
class Reset(Reference):
    """The policy as it was at the last multiple of ``every`` steps."""

    every: Count = 100
    """Steps between two resets; 1 is the policy before this step."""
    times: Count | None = None
    """How often; None for as long as the run goes on."""

    def __call__(self, step: int) -> float:
        over = self.times is not None and step > self.every * self.times
        return float(step % self.every == 0 and not over)
