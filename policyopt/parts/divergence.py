"""Divergences that sampled tokens alone do not give: of whole next-token distributions, and of whole responses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import group_max, group_sum
from policyopt.parts.base import (
    Advantage,
    Fraction,
    NonNegative,
    Positive,
    Ratio,
    Regularizer,
    Shape,
    Statistic,
    Surrogate,
    Unit,
    part,
)
from policyopt.parts.regularize import Target

# Of next-token distributions -----------------------------------------------------------------------------------------


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, [M], from log-probabilities [M, V]."""
    return (p.exp() * (p - q)).sum(-1)


@part
class JSD(Statistic):
    r"""The generalised Jensen-Shannon divergence of the policy Q from a target P, in nats.

    .. math:: D_\beta = \beta\,KL(P\|M) + (1-\beta)\,KL(Q\|M),\qquad M = \beta P + (1-\beta) Q

    At the ends D would vanish; there it means the forward KL(P || Q) (beta 0, covers) and the reverse KL(Q || P) (beta 1,
    seeks), which are the limits of :math:`D/\beta` and :math:`D/(1-\beta)`. Source: GKD, arXiv:2306.13649, section 2.
    """

    beta: Fraction = 0.5
    """Weight of the target in the mixture M."""
    temperature: Positive = 1.0
    """Divides both logits, on top of the temperature that the row was sampled at."""
    target: Target = "teacher"
    """Whose distribution P is."""

    @property
    def roles(self) -> frozenset[str]:  # type: ignore[override]
        """The target."""
        return frozenset({self.target})

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        q, p = ((x / self.temperature).log_softmax(-1) for x in (logits, others[self.target]))
        if self.beta in (0, 1):
            return kl_divergence(q, p) if self.beta else kl_divergence(p, q)
        m = torch.logaddexp(p + math.log(self.beta), q + math.log(1 - self.beta))
        return self.beta * kl_divergence(p, m) + (1 - self.beta) * kl_divergence(q, m)


@part
class ExtrapolatedKL(Statistic):
    r"""The reverse KL to a target that goes on from one model to another, over how far it goes, in nats.

    .. math:: \frac1w KL(\pi_\theta\|\mathrm{softmax}(z^*)),\qquad z^* = z_{base} + w\,(z_T - z_{ref}),\qquad
              w = \alpha\,\|\mathrm{softmax}(z_T) - \mathrm{softmax}(z_{ref})\|_1 + w_0

    T is the teacher. With alpha 0, base ``reference`` and a DPO model as teacher it is, token by token, RLHF with the
    reward that the DPO model implies: :math:`w_0 = \beta_1/\beta_2`. Source: AlignDistil, arXiv:2503.02832, theorem 1,
    and the authors' code (songmzhang/AlignDistil), where the distance is not halved.
    """

    alpha: NonNegative = 10.0
    """How much further the target goes where the two models differ more."""
    floor: Positive = 1e-3
    """w_0, the least that it goes."""
    base: Target = "teacher"
    """Where it starts."""

    roles: ClassVar[frozenset[str]] = frozenset({"reference", "teacher"})

    def weight(self, others: Mapping[str, Tensor]) -> Tensor:
        """w, [M]; it lies between ``floor`` and ``floor + 2 alpha``."""
        p, q = (others[role].softmax(-1) for role in ("teacher", "reference"))
        return self.alpha * (p - q).abs().sum(-1) + self.floor

    def extrapolated(self, others: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities of the target, [M, V]."""
        step = others["teacher"] - others["reference"]
        return (others[self.base] + self.weight(others)[:, None] * step).log_softmax(-1)

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return kl_divergence(logits.log_softmax(-1), self.extrapolated(others)) / self.weight(others)


@part
class DistributionLoss(Regularizer):
    """A loss per token that is read off the policy's whole next-token distribution."""

    of: Statistic = JSD()
    """The loss before its coefficient."""
    coef: NonNegative = 1.0
    """What it is multiplied by; a controller may move it."""

    @property
    def live(self) -> tuple[Statistic, ...]:
        return (self.of,)

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * batch.stat(self.of)

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"distribution_loss": batch.stat(self.of)}


# Of responses --------------------------------------------------------------------------------------------------------

Divergence = Literal["kl", "chi2", "sqrt-chi2"]


def sequence_log_ratio(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio of each whole response, [N], in nats."""
    return masked(logp - ref_logp, mask).sum(-1)


def tamed_expm1(u: Tensor, limit: float) -> Tensor:
    """exp(u) - 1, continued as a straight line beyond ``limit``, so that it stays finite."""
    bent = u.clamp(max=limit)
    return bent.exp() * (1 + u - bent) - 1


@part
class SequenceDivergence(Regularizer):
    r"""A divergence of whole responses from the reference, one number per mini-batch.

    .. math:: u_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t}),\qquad
              \widehat{KL} = \frac1N\sum_i[u_i + E(-u_i)],\qquad \widehat{\chi^2} = \frac1N\sum_i[E(u_i) + E(-u_i)]

    :math:`E(u) = e^u - 1`, a straight line beyond ``limit``; :math:`E(-u)` has mean 0 under the policy and reduces the
    variance. The loss is ``coef`` times the estimate or, for ``sqrt-chi2``, :math:`\sqrt{\max(\widehat{\chi^2}, f)}` with
    the floor f. All tokens of a response get the same gradient. Source: arXiv:2403.03185 and the authors' code
    (cassidylaidlaw/orpo). As there, the gradient goes through u alone, not through the distribution that was sampled.
    """

    coef: NonNegative = 8e-4
    """lambda."""
    kind: Divergence = "sqrt-chi2"
    """Which divergence."""
    limit: Positive = 10.0
    """Log-ratio beyond which exponentials become straight lines."""
    floor: NonNegative = 1e-4
    """f; below it the square root has no gradient."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "batch"

    def estimate(self, batch: Batch, kind: Literal["kl", "chi2"]) -> Tensor:
        """The divergence of the mini-batch, a number."""
        u = sequence_log_ratio(batch.logp, batch.ref_logp, batch.mask)
        rise = u if kind == "kl" else tamed_expm1(u, self.limit)
        return (rise + tamed_expm1(-u, self.limit)).sum() / max(1, len(u))

    def __call__(self, batch: Batch) -> Tensor:
        if self.kind != "sqrt-chi2":
            return self.coef * self.estimate(batch, self.kind)
        return self.coef * self.estimate(batch, "chi2").clamp(min=self.floor).sqrt()


def occupancy_distance(log_ratio: Tensor, kind: Divergence, trim: float) -> Tensor:
    r"""What each sample adds to a divergence, [N], from its log-ratio d of occupancies [N].

    KL: d. chi2: :math:`e^d - 1`. sqrt-chi2: :math:`(e^d - 1)/\sqrt m`, m the :func:`trimmed_mean` of :math:`e^d - 1`, where
    it is above 0. Source: arXiv:2403.03185 and the authors' code.
    """
    if kind == "kl":
        return log_ratio
    distance = log_ratio.exp() - 1
    scale = trimmed_mean(distance, trim)
    return distance / scale.sqrt() if kind == "sqrt-chi2" and scale > 0 else distance


def trimmed_mean(x: Tensor, trim: float) -> Tensor:
    """Mean of ``x`` [N] without the ``trim`` share (rounded down) of its smallest and of its largest values; 0 of
    nothing."""
    cut = int(trim * len(x))
    kept = x.sort().values[cut : len(x) - cut]
    return kept.mean() if len(kept) else x.new_zeros(())


@part
class OccupancyPenalty(Shape):
    r"""A divergence of whole responses as a reward: :math:`R_i \leftarrow R_i - \lambda\,\mathrm{distance}(u_i)`.

    u_i is the log-ratio of the response under the policy that sampled and the reference, which is what a discriminator
    of the two would learn where a state is a prompt and an action a response. See :func:`occupancy_distance`. Source:
    arXiv:2403.03185, where the discriminator is trained, and the ratio is that of states and actions.
    """

    coef: NonNegative = 8e-4
    """lambda."""
    kind: Divergence = "sqrt-chi2"
    """Which divergence."""
    trim: Fraction = 0.01
    """Share of the samples that is left out at each end before the scale of sqrt-chi2 is taken."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Batch:
        u = sequence_log_ratio(batch.old_logp, batch.ref_logp, batch.mask)
        return batch.replace(reward=batch.reward + self.bonus(u))

    def bonus(self, log_ratio: Tensor) -> Tensor:
        """What is added to the rewards, [N]."""
        return -self.coef * occupancy_distance(log_ratio, self.kind, self.trim)


@part
class PosteriorWeight(Advantage):
    r"""How much likelier each response is under the posterior than under the policy that sampled it.

    .. math:: A_i = \frac{\pi^*(y_i)}{\pi_{old}(y_i)},\qquad \pi^*(y) \propto \pi_{ref}(y)\,e^{R(y)/\beta}

    With the score-function loss it descends :math:`KL(\pi^*\|\pi_\theta)`, which covers all of the posterior where a KL
    penalty in the reward descends :math:`KL(\pi_\theta\|\pi^*)`. The normaliser is the mean over the responses to the same
    prompt, so the weights of a group have mean 1. Source: arXiv:2205.11275, section 4 (distributional control).
    """

    beta: Positive = 0.1
    """beta: reward worth one nat."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        u = sequence_log_ratio(batch.old_logp, batch.ref_logp, batch.mask)
        log_weight = batch.total_reward() / self.beta - u
        weight = (log_weight - group_max(log_weight, batch.group)).exp()
        mean = group_sum(weight, batch.group) / group_sum(torch.ones_like(weight), batch.group)
        return (weight / mean)[:, None] * batch.mask


# What stands in the slots of a recipe whose whole loss is a divergence -----------------------------------------------


@part
class NoRatio(Ratio):
    """The ratio 1, for losses that do not compare the policy with the one that wrote the tokens."""

    def __call__(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.mask)


@part
class NoSurrogate(Surrogate):
    """No policy gradient: the regularisers are the whole loss."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.zeros_like(log_ratio)
