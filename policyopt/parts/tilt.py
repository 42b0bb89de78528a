r"""Tilted distributions on a finite set of outcomes: posteriors, soft optima, best-of-N, and what they cost in KL.

Maximising :math:`E_\pi[r] - \beta\,KL(\pi\|p)` over all distributions has one solution, the tilt
:math:`p(y)\,e^{r(y)/\beta} / Z`: a posterior with the prior p and the evidence :math:`e^{r/\beta}` (arXiv:2205.11275), and the
largest expected reward at its distance from p (arXiv:2404.01730). With a uniform p it is :math:`\mathrm{softmax}(r/\beta)`.

Distributions and rewards are tensors [..., n] over n outcomes; KL in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), [...]; 0 where p is 0."""
    return torch.xlogy(p, p / torch.where(p > 0, q, 1.0)).sum(-1)


def tilt(base: Tensor, reward: Tensor, strength: float) -> Tensor:
    r"""The tilt of ``base`` by ``strength`` :math:`\lambda`, proportional to :math:`p(y)\,e^{\lambda r(y)}`; at 0 it is ``base``."""
    return (base.log() + strength * reward).softmax(-1)


def soft_policy(value: Tensor, alpha: float) -> Tensor:
    r"""The optimum of :math:`E_\pi[Q] + \alpha H(\pi)`, :math:`\mathrm{softmax}(Q/\alpha)`.

    Another Q' moves it by at most :math:`\|Q - Q'\|_\infty/\alpha` in L1, and it gives away at most
    :math:`\alpha\log n` of the largest value.
    """
    return tilt(torch.ones_like(value), value, 1 / alpha)


def stability_bound(change: Tensor, alpha: float) -> Tensor:
    """How far, in L1, the soft policy can move at most when its values change by ``change`` [..., n]."""
    return change.abs().amax(-1) / alpha


def optimal_set(value: Tensor, tie: float = 1e-9) -> Tensor:
    """Which outcomes are best up to ``tie``, boolean [..., n]: without regularisation every policy on them is
    optimal."""
    return value >= value.amax(-1, keepdim=True) - tie


def effective_reward(weights: Tensor, rewards: Tensor) -> Tensor:
    """One reward from K of them, [..., n]: weights [..., K], rewards [K, n]."""
    return weights @ rewards


def regularised_value(policy: Tensor, base: Tensor, reward: Tensor, beta: float) -> Tensor:
    r"""The objective :math:`E_\pi[r] - \beta\,KL(\pi\|p)`, [...]; over beta, a lower bound on the log-evidence."""
    return (policy * reward).sum(-1) - beta * kl(policy, base)


def log_evidence(base: Tensor, reward: Tensor, beta: float) -> Tensor:
    r""":math:`\log Z = \log\sum_y p(y)\,e^{r(y)/\beta}`, [...]; beta times it is the largest possible objective."""
    return (base.log() + reward / beta).logsumexp(-1)


# Best of N -----------------------------------------------------------------------------------------------------------


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
