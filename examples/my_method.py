"""A method of your own on one page: a judge that fills a column, an advantage that reads it, a controller that moves it.

policyopt check examples/my_method.py
policyopt explain examples/my_method.py --vs grpo
policyopt train examples/my_method.py --task data.jsonl --judge examples/my_method.py:sure --model MODEL
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

import policyopt as po
from policyopt.groups import group_mean, group_std
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Controller, NonNegative, Positive, Unit, part
from policyopt.recipe import Recipe
from policyopt.rows import Batch

po.column(
    "sureness", sentence="how sure the response sounds, 0 to 1", filled_by="judge", invent=lambda s: s.uniform(s.n)
)


@po.judge(columns=("sureness",))
def sure(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """Right where the answer is in the response; the more it hedges, the less sure it sounds."""
    hedges = sum(response.count(c) for c in "?~")
    right = answer in response
    return {"score": float(right), "correct": right, "parts": {"sureness": 1 / (1 + hedges)}}


@part
class Normalise(Advantage):
    r"""Reward and sureness, each against its mean over the group.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean}(R)}{\mathrm{std}(R) + \epsilon} + c\,(s_i - \mathrm{mean}(s))
    """

    strength: NonNegative = 0.5
    """c."""
    eps: Positive = 1e-6
    """Added to the standard deviation."""

    needs: ClassVar[frozenset[str]] = frozenset({"sureness"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        reward, sureness, group = batch.total_reward(), batch.sureness, batch.group
        normalised = (reward - group_mean(reward, group)) / (group_std(reward, group, 1) + self.eps)
        return (normalised + self.strength * (sureness - group_mean(sureness, group)))[:, None] * batch.mask


@part
class Fade(Controller):
    """Takes a share off the field after every step in which the policy was right more often than before."""

    share: NonNegative = 0.1
    """What is taken off."""

    def start(self) -> dict[str, float]:
        return {"best": 0.0}

    def __call__(self, value: float, metrics: Mapping[str, float], state: dict[str, float]) -> float:
        better = metrics.get("accuracy", 0.0) > state["best"]
        state["best"] = max(metrics.get("accuracy", 0.0), state["best"])
        return value * (1 - self.share) if better else value


@po.method(parent=grpo)
def sure_grpo(strength: float = 0.5, group_size: int = 8) -> Recipe:
    """GRPO that also learns to sound sure, less so the better it gets."""
    moved = Fade(field="advantage.strength")
    return grpo(group_size=group_size).replace(advantage=Normalise(strength=strength), controllers=(moved,))
