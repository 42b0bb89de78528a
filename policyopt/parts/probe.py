"""Probes: measurements of parameters and of evaluation samples that end in the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import make_batch
from policyopt.parts.advantage import Normalise
from policyopt.parts.base import Count, NonNegative, Positive, Probe, part
from policyopt.parts.tilt import best_of, best_of_kl, expected_best, kl, optimal_set, soft_policy, strength_at, tilt

# Of parameters -------------------------------------------------------------------------------------------------------


def updated(before: Tensor, after: Tensor, tolerance: float) -> Tensor:
    """Which weights moved by more than ``tolerance``, boolean."""
    return (after - before).abs() > tolerance


def sparsity(moved: Tensor) -> Tensor:
    """The share of weights that did not move; 1 of none."""
    return 1 - moved.double().sum() / max(1, moved.numel())


def overlap(a: Tensor, b: Tensor) -> Tensor:
    r"""The share of the weights in the mask ``a`` that are in ``b`` too, :math:`|a \cap b|/|a|`.

    One-sided, and :func:`density` of ``b`` by chance; NaN where ``a`` is empty.
    """
    return (a & b).double().sum() / a.double().sum()


def density(mask: Tensor) -> Tensor:
    """The share of the weights that are in the mask."""
    return 1 - sparsity(mask)


def subnetwork_gradient(gradient: Tensor, moved: Tensor) -> Tensor:
    """The gradient with which only the weights in the mask ``moved`` are trained: 0 elsewhere, whatever stood there."""
    return torch.where(moved, gradient, torch.zeros_like(gradient))


def update_rank(before: Tensor, after: Tensor) -> float:
    """Numerical rank of the change of a matrix, over the largest that it can have."""
    change = (after - before).float()
    return float(torch.linalg.matrix_rank(change)) / min(change.shape)


@part
class UpdateSparsity(Probe):
    r"""Which share of the parameters has not moved since the start, :math:`1 - \frac1n\sum_j 1[|\theta_j - \theta^0_j| > \epsilon]`.

    Logs ``sparsity/all`` and one number for each kind of tensor (``sparsity/q_proj``: the last but one piece of its
    name), with ``rank`` also ``sparsity/rank``, the mean relative rank of the updates of matrices. The precision is part
    of the claim: in float32 nearly every weight moves a little. Source: arXiv:2505.11711 (bfloat16, 1e-5).
    """

    tolerance: NonNegative = 1e-5
    """epsilon: a weight has moved if it differs by more."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """What both are rounded to before they are compared."""
    rank: bool = False
    """Also measure the rank of the updates, which costs a decomposition of every matrix."""

    def parameters(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, float]:
        kinds: dict[str, list[Tensor]] = {}
        ranks: list[float] = []
        for name, before in start.items():
            moved = updated(self._rounded(before), self._rounded(now[name]), self.tolerance).flatten()
            for kind in ("all", ([name, *name.split(".")])[-2]):
                kinds.setdefault(kind, []).append(moved)
            if self.rank and before.dim() == 2:
                ranks.append(update_rank(before, now[name]))
        found = {f"sparsity/{kind}": float(sparsity(torch.cat(moved))) for kind, moved in kinds.items()}
        return found | ({"sparsity/rank": sum(ranks) / len(ranks)} if ranks else {})

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16 if self.precision == "bfloat16" else torch.float32).float()


# Of evaluation samples -----------------------------------------------------------------------------------------------


@part
class BestOf(Probe):
    r"""What best-of-N makes of the policy, beside the most that any policy as far away in KL could get.

    Logs for N = 1, 2, 4, ... ``best_of/reward@N``, the expected reward of the best of N responses (without bias);
    ``best_of/kl@N``, the bound :math:`\log N - (N-1)/N` on its KL to the policy; ``tilt/reward@N``, the reward of the tilt of
    the responses that lies as far from them as their best of N; and the policy's own place, ``front/reward`` against
    ``front/kl``, its KL from the start per response. Sources: arXiv:2404.01730; best-of-N KL: arXiv:2401.01879.
    """

    most: Count = 16
    """The largest N; there are at most as many as samples per prompt."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        reward = reward.double()
        found = {"front/reward": float(reward.mean()), "front/kl": float(log_ratio.mean())}
        base = torch.full_like(reward[0], 1 / reward.shape[1])
        for n in (2**i for i in range(int(math.log2(min(self.most, reward.shape[1]))) + 1)):
            found[f"best_of/reward@{n}"] = float(expected_best(reward, n).mean())
            found[f"best_of/kl@{n}"] = best_of_kl(n)
            found[f"tilt/reward@{n}"] = sum(front_reward(base, r, n) for r in reward) / len(reward)
        return found


def front_reward(base: Tensor, reward: Tensor, n: int) -> float:
    """The largest expected reward of any distribution as far from ``base`` [m] in KL as its best of ``n``."""
    distance = float(kl(best_of(base, reward, n), base))
    return float((tilt(base, reward, strength_at(base, reward, distance)) * reward).sum())


@part
class PosteriorGap(Probe):
    r"""How far the policy is from the posterior that KL-regularised RL aims at, :math:`\pi^* \propto \pi_{ref}\,e^{r/\beta}`.

    Logs per prompt, averaged: ``posterior/objective`` :math:`E[r] - \beta\,KL(\pi\|\pi_{ref})`; ``posterior/log_evidence``,
    :math:`\log Z` from the weights :math:`e^{r/\beta - u}` of the samples, u their log-ratio; ``posterior/gap``
    :math:`\log Z - J/\beta`, an estimate of :math:`KL(\pi\|\pi^*)` that is never negative; and ``posterior/ess``, the effective
    share of the samples, 1 at the posterior. Source: arXiv:2205.11275.
    """

    beta: Positive = 0.1
    """beta."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        log_weight = (reward / self.beta - log_ratio).double()
        size = log_weight.shape[1]
        evidence = log_weight.logsumexp(1) - math.log(size)
        gap = evidence - log_weight.mean(1)
        ess = 1 / (log_weight.softmax(1) ** 2).sum(1) / size
        return {
            "posterior/objective": self.beta * float(log_weight.mean()),
            "posterior/log_evidence": float(evidence.mean()),
            "posterior/gap": float(gap.mean()),
            "posterior/ess": float(ess.mean()),
        }


@part
class RewardCliff(Probe):
    r"""How far credit and the soft optimum jump when a tie between the best responses is broken by a tiny reward.

    The first of the best responses to each prompt gets ``epsilon`` more. Logs ``cliff/ties``, the share of prompts with
    several best responses; ``cliff/advantage`` and ``cliff/centred``, the mean change of the group-normalised and of the
    mean-centred advantage; and ``cliff/policy``, the change in L1 of :math:`\mathrm{softmax}(r/\alpha)`, at most
    :math:`\epsilon/\alpha`. Source: after arXiv:2507.20150.
    """

    epsilon: Positive = 1e-3
    """The reward that breaks ties."""
    alpha: Positive = 0.1
    """Temperature of the soft optimum."""
    tie: NonNegative = 1e-9
    """Rewards that differ by no more are equal."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})  # samples are only scored for probes that say so

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        reward = reward.double()
        best = optimal_set(reward, self.tie)
        broken = reward + self.epsilon * (best & (best.cumsum(1) == 1))

        def moved(by: Callable[[Tensor], Tensor]) -> float:
            return float((by(broken) - by(reward)).abs().mean())

        return {
            "cliff/ties": float((best.sum(1) > 1).double().mean()),
            "cliff/advantage": moved(lambda r: advantages(Normalise(), r)),
            "cliff/centred": moved(lambda r: advantages(Normalise(scale="none"), r)),
            "cliff/policy": moved(lambda r: soft_policy(r, self.alpha)) * reward.shape[1],
        }


def advantages(part: Normalise, reward: Tensor) -> Tensor:
    """The advantage of each response, [P, K], from the rewards of K responses to each of P prompts."""
    group = torch.arange(len(reward), device=reward.device).repeat_interleave(reward.shape[1])
    rows = reward.flatten()
    return part(make_batch(mask=torch.ones_like(rows)[:, None], reward=rows, group=group))[:, 0].view_as(reward)
