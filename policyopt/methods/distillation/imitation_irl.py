"""Imitation as inverse reinforcement learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from policyopt.claims import Claim
from policyopt.methods.preference.sft import sft
from policyopt.part import Fraction, NonNegative, Regularizer, Statistic, Unit, part
from policyopt.parts import SoftValue
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class TemporalDifference(Regularizer):
    r"""A penalty on the square of the reward that logits imply, read as soft Q-values.

    .. math:: \lambda\,\hat r_t^2,\qquad \hat r_t = q_t[y_t] - \gamma V_{t+1} = \log\pi_\theta(y_t) + V_t - \gamma V_{t+1}

    :math:`V_{t+1}` is the value before the next token that counts, 0 after the last one. The gradient goes through both values; without
    it at :math:`V_{t+1}` it would be another method. Source: arXiv:2409.01369, the chi-square form of IQ-Learn, for
    :math:`\phi(x) = x - x^2/(4\alpha)` with :math:`\lambda = 1/(4\alpha)`.
    """

    coef: NonNegative = 0.1
    """lambda."""
    gamma: Fraction = 1.0
    """Discount per token."""
    value: Statistic = SoftValue(beta=1.0)
    """V."""

    unit: ClassVar[Unit] = "row"

    @property
    def live(self) -> tuple[Statistic, ...]:
        return (self.value,)

    def reward(self, batch: Batch) -> Tensor:
        """The implied reward of each token, [N, T], 0 on padding."""
        value = masked(batch.stat(self.value), batch.mask)
        after = nn.functional.pad(value, (0, 1)).gather(1, following(batch.mask))
        return masked(batch.logp + value - self.gamma * after, batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * self.reward(batch) ** 2

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"implied_reward": self.reward(batch)}


def following(mask: Tensor) -> Tensor:
    """The index of the next place after each one where ``mask`` [N, T] is 1, [N, T]; T where there is none."""
    width = mask.shape[1]
    places = torch.where(mask.bool(), torch.arange(width, device=mask.device), width)
    here = places.flip(1).cummin(1).values.flip(1)
    return nn.functional.pad(here[:, 1:], (0, 1), value=width)


@method(
    parent=sft,
    arxiv="2409.01369",
    confidence="secondary",
    claim=Claim(
        "Fine-tuning as inverse reinforcement learning keeps more diversity than supervised fine-tuning at the same scores.",
        beyond="It is about the diversity of texts learnt from demonstrations, and no testbed here brings demonstrations of several kinds.",
    ),
)
def imitation_irl(td_coef: float = 0.1, gamma: float = 1.0) -> Recipe:
    r"""Imitation by inverse RL: supervised fine-tuning, and a temporal-difference penalty on logits read as soft Q-values.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\Big[-\log\pi_\theta(y_{i,t}) + \lambda\big(q_{i,t}[y_{i,t}] - \gamma V_{i,t+1}\big)^2\Big],\qquad
              V = \log\sum_a e^{q[a]}

    q are the logits, lambda = ``td_coef``; what is squared is the reward that they imply, which the log has as ``implied_reward``. The
    chi-square objective of IQ-Learn is this loss, offline and without a sample. With lambda 0 it is SFT; above it the level of
    the logits counts, which the likelihood leaves free. Source: arXiv:2409.01369, from a third party's account. Our reading:
    the value after the last token is 0, the mean runs over all tokens; the paper sweeps lambda, 0.1 is ours. The form with
    samples of the policy's own in the value terms is not here.
    """
    parent = sft()
    penalty = (TemporalDifference(coef=td_coef, gamma=gamma),) if td_coef else ()
    return parent.replace(regularizers=(*parent.regularizers, *penalty))
