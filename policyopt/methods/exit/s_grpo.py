"""S-GRPO."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Shape, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import EarlyExits


@part
class SerialReward(Shape):
    r"""Each right answer along a thought earns a fraction of the right one before it, :math:`R_i = d^{N_i-1}`.

    N_i counts the right answers up to and with exit i of the same thought; wrong ones earn 0 and do not count. Exits are
    in the order of ``origin``, and the whole response, 0, is the last one. Source: S-GRPO, arXiv:2505.07686.
    """

    decay: Fraction = 0.5
    """d."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Batch:
        right = batch.correct > 0.5
        origin = torch.zeros_like(batch.group) if batch.origin is None else batch.origin
        place = torch.where(origin == 0, math.inf, origin.to(batch.reward))
        before = (batch.group[:, None] == batch.group) & (place < place[:, None])
        if batch.thought is not None:
            before &= batch.thought[:, None] == batch.thought
        count = (before & right).sum(-1)
        reward = torch.where(right, self.decay ** count.to(batch.reward), 0.0)
        return batch.replace(reward=reward)


@method(
    parent=grpo,
    arxiv="2505.07686",
    confidence="secondary",
    claim=Claim(
        "Paid for the earliest right answer along a thought, the policy stops when it knows: shorter, as often right.",
        "long-winded",
        (Effect("length", "lower", 5.0), Effect("accuracy", "higher", -0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def s_grpo(
    decay: float = 0.5,
    exits: int = 7,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
) -> Recipe:
    r"""A serial group: one thought, answers forced at several of its places, and the earlier a right one the better.

    .. math:: R_i = 1[\text{right}]\,d^{N_i-1},\qquad A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon}

    N_i counts the right answers up to and with exit i; the whole response is the last. The words that close a thought
    are read, never trained on. Source: arXiv:2505.07686, after third parties. Our reading: every row is a response of its
    own, so the beginning of a thought is trained in each; std as in GRPO, no KL; 7 exits, so that a
    group has 8 rows, where the authors have 8.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs).replace(
        source=EarlyExits(size=exits + 1, exits=exits), shape=(SerialReward(decay=decay),)
    )
