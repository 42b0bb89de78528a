"""Asymptotics of alignment."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import Count, Probe, part
from policyopt.parts.probe.tilt import optimal_set, tilt
from policyopt.registry import study

# Of evaluation samples -----------------------------------------------------------------------------------------------


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), [...]; 0 where p is 0."""
    return torch.xlogy(p, p / torch.where(p > 0, q, 1.0)).sum(-1)


# Best of N -----------------------------------------------------------------------------------------------------------


@part
class BestOf(Probe):
    r"""What best-of-N makes of the policy, beside the most that any policy as far away in KL could get.

    Logs for N = 1, 2, 4, ... ``best_of/reward@N``, the expected reward of the best of N responses (without bias);
    ``best_of/wins@N``, how often it beats one response, at most :math:`N/(N+1)` (among the samples, ties one half); ``best_of/kl@N``, the bound :math:`\log N - (N-1)/N` on its KL to the policy; ``tilt/reward@N``, the reward of the tilt of
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
            wins = (win_rate(best_of(base, r, n), base, r) for r in reward)
            found[f"best_of/wins@{n}"] = float(sum(wins)) / len(reward)
            found[f"best_of/kl@{n}"] = best_of_kl(n)
            found[f"tilt/reward@{n}"] = sum(front_reward(base, r, n) for r in reward) / len(reward)
        return found


def front_reward(base: Tensor, reward: Tensor, n: int) -> float:
    """The largest expected reward of any distribution as far from ``base`` [m] in KL as its best of ``n``."""
    distance = float(kl(best_of(base, reward, n), base))
    return float((tilt(base, reward, strength_at(base, reward, distance)) * reward).sum())


def best_of(base: Tensor, reward: Tensor, n: int) -> Tensor:
    r"""The distribution [m] of the best of ``n`` draws from ``base`` [m]; which of equal rewards wins is left to chance.

    .. math:: \pi_N(y) = p(y)\,\frac{F(y)^N - F(y^-)^N}{F(y) - F(y^-)} = p(y)\sum_{k<N} F(y)^k F(y^-)^{N-1-k}

    F is the distribution function of the reward.
    """
    order = reward[:, None] >= reward[None, :]
    up_to = (order * base).sum(-1)
    below = up_to - ((reward[:, None] == reward[None, :]) * base).sum(-1)
    k = torch.arange(n, device=base.device)
    return base * (up_to[:, None] ** k * below[:, None].clamp(min=0) ** (n - 1 - k)).sum(-1)


def best_of_kl(n: int) -> float:
    r"""An upper bound on the KL of the best of ``n`` draws to one draw, :math:`\log n - (n-1)/n`; reached where every
    outcome is rare."""
    return math.log(n) - (n - 1) / n


def expected_best(reward: Tensor, n: int) -> Tensor:
    r"""Expected reward of the best of ``n``, [...], without bias from K >= n draws [..., K].

    .. math:: \sum_k r_{(k)}\binom{k-1}{n-1}\Big/\binom Kn,\qquad r_{(1)} \le \dots \le r_{(K)}

    Raises ``ValueError`` where there are fewer than ``n`` draws.
    """
    size = reward.shape[-1]
    if not 1 <= n <= size:
        raise ValueError(f"the best of {n} needs at least {n} draws, there are {size}")
    weight = [math.comb(k, n - 1) / math.comb(size, n) for k in range(size)]
    return (reward.sort(-1).values * reward.new_tensor(weight)).sum(-1)


def win_rate(p: Tensor, q: Tensor, reward: Tensor) -> Tensor:
    """The probability that a draw from ``p`` [..., m] has a higher reward [..., m] than one from ``q`` [..., m]; ties count one half."""
    wins = (1 + (reward[..., :, None] - reward[..., None, :]).sign()) / 2
    return (p[..., :, None] * wins * q[..., None, :]).sum((-2, -1))


def strength_at(base: Tensor, reward: Tensor, distance: float) -> float:
    r"""The strength :math:`\lambda \ge 0` at which the tilt lies ``distance`` nats from ``base`` [n]: by bisection, as the KL
    rises with it.

    Raises ``ValueError`` for a distance that no tilt reaches: it stays below :math:`-\log p(\mathrm{argmax} r)`.
    """
    if distance <= 0:
        return 0.0
    limit = -float(base[optimal_set(reward, 0.0)].sum().log())
    if distance > limit:
        raise ValueError(f"no tilt lies {distance:g} nats away: all mass on the best outcomes is {limit:g} nats away")
    low, high = 0.0, 1.0
    while high < 1e12 and float(kl(tilt(base, reward, high), base)) < distance:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(kl(tilt(base, reward, middle), base)) < distance else (low, middle)
    return (low + high) / 2


@study(
    arxiv="2404.01730", confidence="recalled", use="policyopt train rl-as-bayes --beta 0.1 --with alignment-asymptotics"
)
def alignment_asymptotics(most: int = 16) -> tuple[Probe, ...]:
    r"""How near best-of-N comes to the policy that is optimal under a KL budget.

    .. math:: \phi_\lambda(y) \propto \pi_0(y)\,e^{\lambda R(y)},\qquad
              \pi_N(y) = F(y)^N - F(y^-)^N,\qquad KL(\pi_N\|\pi_0) \le \log N - \frac{N-1}{N}

    :math:`\phi_\lambda` maximises the reward among all policies at its distance from the start, and is what KL-regularised
    REINFORCE with :math:`\beta = 1/\lambda` converges to (the method ``rl-as-bayes``). For long responses best-of-N is
    nearly as good at the same KL. At evaluations the reward of the best of 1, 2, 4, ... up to ``most`` samples is logged
    with its KL, and what the tilt would reach there (:class:`~policyopt.methods.analysis.alignment_asymptotics.BestOf`),
    beside the reward and the KL of the policy that is trained. Source: arXiv:2404.01730, from general knowledge of it; the
    paper trains nothing.
    """
    return (BestOf(most=most),)
