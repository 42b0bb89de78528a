"""StableReinforce."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Finite, Positive, Ratio, Shape, Unit, Wrapper, part
from policyopt.parts import Correctness, KLPenalty, Normalise, PPOClip, SeqMeanTokenMean, TokenRatio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Group


@part
class SigmaFilter(Wrapper, Advantage):
    r"""An advantage standardised over all tokens of the batch, with its outliers set to zero.

    .. math:: z = (A - \mu)/\sigma,\qquad A' = z\,[|z| \le k]

    Population standard deviation; what remains is not standardised again. Below 11 tokens nothing can lie beyond 3
    sigma. Source: StableReinforce, arXiv:2505.02835, section 3 (the authors' code compares z with the mean of A plus
    and minus 3).
    """

    of: Advantage = Normalise(centre="none", scale="none", gamma=1.0)
    """The advantage before it."""
    sigma: Positive = 3.0
    """k."""

    around: ClassVar[str] = "of"
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        return self.filtered(self.of(batch), batch.mask)

    def filtered(self, advantage: Tensor, mask: Tensor) -> Tensor:
        """A' of an advantage, both [N, T]."""
        advantage = masked(advantage, mask)
        z = whiten(advantage, weight=mask, least=1e-8)
        return torch.where(z.abs() <= self.sigma, z, 0.0) * mask


@part
class ClampedTokenRatio(Ratio):
    r"""The token ratio with its logarithm clamped before it is exponentiated.

    .. math:: \log r_{i,t} = \mathrm{clip}\big(\log\pi_\theta(y_{i,t}) - \log\pi_{old}(y_{i,t}),\, \log d_{min}, \log d_{max}\big)

    A token beyond has no gradient, and its ratio stays finite. Source: StableReinforce, arXiv:2505.02835, and the
    authors' code (yfzhang114/r1_reward).
    """

    ratio_min: Positive = 1e-3
    """d_min."""
    ratio_max: Positive = 1e3
    """d_max."""

    def __call__(self, batch: Batch) -> Tensor:
        return TokenRatio()(batch).clamp(math.log(self.ratio_min), math.log(self.ratio_max))


@part
class Consistency(Shape):
    r"""A bonus for right answers that follow from the reasoning before them, :math:`R \leftarrow R + c\,[right]\,k`.

    k is the column ``consistency``: 1 where a judge finds that they agree, 0 where it does not (-1 in the released
    code). Without such a judge nothing changes. Source: StableReinforce, arXiv:2505.02835, section 3.
    """

    coef: Finite = 0.5
    """c."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Batch:
        if batch.consistency is None:
            return batch
        return batch.replace(
            reward=batch.reward + self.coef * (batch.correct > 0.5).to(batch.reward) * batch.consistency
        )


@method(
    parent=reinforce,
    arxiv="2505.02835",
    code="yfzhang114/r1_reward",
    confidence="code",
    claim=Claim(
        "Clamped log-ratios and no outliers among the advantages: off policy it does not fall as Reinforce++ does.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", -0.01)),
        against="reinforce-plus-plus",
        both={"group-size": 4},
        ours={"format-weight": 0.0},
    ),
)
def stablereinforce(
    low: float | None = 0.2,
    high: float | None = 0.2,
    ratio_min: float = 1e-3,
    ratio_max: float = 1e3,
    sigma: float = 3.0,
    consistency_weight: float = 0.5,
    format_weight: float = 0.5,
    kl_coef: float = 1e-3,
    group_size: int = 1,
) -> Recipe:
    r"""REINFORCE with PPO's clip that does not blow up: log-ratios clamped, outliers of the advantage dropped.

    .. math:: r = \exp\,\mathrm{clip}\Big(\log\frac{\pi_\theta}{\pi_{old}}, \log d_{min}, \log d_{max}\Big),\qquad
              z = \frac{A - \mu}{\sigma_A},\qquad A' = z\,[|z|\le k],\qquad
              L = \frac1N\sum_i\frac1{|y_i|}\sum_t\max(-rA', -\mathrm{clip}(r, 1\pm\epsilon)A')

    A is the reward to go with a KL penalty on every token, standardised over all tokens of the batch; k = ``sigma``.
    The reward is :math:`[right](1 + w_c\,c) + w_f\,[formatted]`, where c (1, 0 or -1) is a judge's word on whether the
    answer follows from the reasoning; without such a judge it is 0. The clamp leaves a bad token with an exploding
    ratio a finite loss and no gradient. Source: arXiv:2505.02835, section 3; defaults from the authors' script. Our
    reading: the three-sigma rule of the paper (the code compares the standardised value with the raw mean plus and
    minus 3).
    """
    penalty: tuple[Shape, ...] = (KLPenalty(coef=kl_coef),) if kl_coef else ()
    return reinforce(baseline="none").replace(
        source=Group(size=group_size),
        shape=(
            Correctness(right=1.0, wrong=0.0, formatted=format_weight),
            Consistency(coef=consistency_weight),
            *penalty,
        ),
        advantage=SigmaFilter(sigma=sigma),
        ratio=ClampedTokenRatio(ratio_min=ratio_min, ratio_max=ratio_max),
        surrogate=PPOClip(low=low, high=high),
        aggregate=SeqMeanTokenMean(),
    )
