"""VESPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Level, NonNegative, Positive, Ratio, Unit, Weight, part
from policyopt.parts import Normalise, TokenMean, TokenRatio
from policyopt.parts.surrogate.sign import choose
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import BOUND, Batch, masked


@part
class GammaWeight(Weight):
    r"""The shape of a gamma density in the ratio: 1 on-policy, largest at :math:`k/\lambda`, small on both sides.

    .. math:: w = sg\big[W^k e^{\lambda(1 - W)}\big],\qquad (k,\lambda) = (k_+,\lambda_+)\ (A \ge 0),\ (k_-,\lambda_-)\ (A < 0)

    With k = 1 and lambda = 0 it is W itself. Source: VESPO, arXiv:2602.10693, and the authors' code (FloyedShen/VESPO),
    where W is the ratio of whole responses, held to [1e-8, e^20].
    """

    k_pos: NonNegative = 2.0
    """k where the advantage is not negative."""
    lambda_pos: NonNegative = 3.0
    """lambda where the advantage is not negative."""
    k_neg: NonNegative = 3.0
    """k where the advantage is negative."""
    lambda_neg: NonNegative = 2.0
    """lambda where the advantage is negative."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        log_w = log_ratio.detach().clamp(math.log(1e-8), BOUND)
        good = batch.advantage >= 0
        k = choose(good, self.k_pos, self.k_neg, log_w)
        lam = choose(good, self.lambda_pos, self.lambda_neg, log_w)
        return (lam + k * log_w - lam * log_w.exp()).exp()

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"gate/weight": self(log_ratio, batch)}


@part
class TrajectoryRatio(Ratio):
    r"""One importance ratio per response: the product of its token ratios, whatever its length.

    .. math:: \log W_i = \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}
              + \sum_t \min\Big(\log\frac{\pi_{old}(y_{i,t})}{\mu_{old}(y_{i,t})}, \log C\Big)

    Repeated over the tokens of row i, [N, T]. The second sum, trainer over sampler at the weights that drew the batch,
    stands there with ``mismatch_cap`` = C alone; without it this is the :class:`~policyopt.parts.RowScore` against the old
    policy, a sum, but for the bound on each token: the authors' code holds its log-ratio to 20. Source: VESPO, arXiv:2602.10693, and the authors' code
    (FloyedShen/VESPO).
    """

    mismatch_cap: Positive | None = None
    """C; None leaves the mismatch out."""

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    @property
    def needs(self) -> frozenset[str]:
        """The sampler's log-probabilities where they are corrected for."""
        return frozenset() if self.mismatch_cap is None else frozenset({"rollout_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch).clamp(-20, 20)
        if self.mismatch_cap is not None:
            log_ratio = log_ratio + (batch.old_logp - batch.rollout_logp).clamp(max=math.log(self.mismatch_cap))
        return masked(log_ratio, batch.mask).sum(-1, keepdim=True).expand_as(log_ratio)


@method(
    parent=reinforce,
    arxiv="2602.10693",
    code="FloyedShen/VESPO",
    confidence="code",
    claim=Claim(
        "The ratio of whole responses, tamed by a smooth kernel, stays stable on stale data where GRPO does not.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        against="grpo",
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def vespo(
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
    mismatch_cap: float | None = None,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Variational Sequence-Level Soft Policy Optimization: the importance ratio of the whole response, tamed by a
    kernel in the shape of a gamma density.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} sg[\phi(W_i)]\,A_i\log\pi_\theta(y_{i,t}),\qquad
              \phi(W) = W^k e^{\lambda(1-W)},\quad W_i = \prod_t r_{i,t}

    k and lambda differ for good and bad responses. On-policy phi is 1 (REINFORCE with the advantage of the group); it
    falls to 0 for W to 0 and to infinity. With ``mismatch_cap`` W holds trainer over sampler too, each token's ratio cut
    at the cap. Defaults from the authors' scripts (their docstring has 2, 1.5, 4, 2.5).
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group"),
        ratio=TrajectoryRatio(mismatch_cap=mismatch_cap),
        weight=(GammaWeight(k_pos=k_pos, lambda_pos=lambda_pos, k_neg=k_neg, lambda_neg=lambda_neg),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
