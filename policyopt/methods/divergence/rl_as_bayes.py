"""KL-regularised RL as Bayesian inference."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Positive, Probe, Unit, part
from policyopt.parts import KLPenalty
from policyopt.parts.ratio.sequence import sequence_log_ratio
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class PosteriorWeight(Advantage):
    r"""How much likelier each response is under the posterior than under the policy that sampled it.

    .. math:: A_i = \frac{\pi^*(y_i)}{\pi_{old}(y_i)} - b,\qquad \pi^*(y) \propto \pi_{ref}(y)\,e^{R(y)/\beta}

    With the score-function loss it descends :math:`KL(\pi^*\|\pi_\theta)`, which covers all of the posterior where a KL
    penalty in the reward descends :math:`KL(\pi_\theta\|\pi^*)`. The normaliser is the mean over the responses to the same
    prompt, so the weights of a group have mean 1. b is 0, or 1 where they are ``centred``: the same gradient in the mean
    where the policy is the one that sampled, and none at all once it is the posterior. Sources: arXiv:2205.11275, section 4
    (distributional control; b = 0); the authors' toolkit (naver/disco), whose b is the mean of the last 1,024 weights.
    """

    beta: Positive = 0.1
    """beta: reward worth one nat."""
    centred: bool = False
    """Subtract the mean of the weights, 1."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        u = sequence_log_ratio(batch.old_logp, batch.ref_logp, batch.mask)
        log_weight = batch.total_reward() / self.beta - u
        weight = (log_weight - group_max(log_weight, batch.group)).exp()
        mean = group_mean(weight, batch.group)
        return (weight / mean - float(self.centred))[:, None] * batch.mask


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
        reward, log_ratio = reward.double(), log_ratio.double()
        policy = torch.full_like(reward, 1 / reward.shape[1])  # the samples, as a distribution on themselves
        log_base = policy.log() - log_ratio
        evidence = log_evidence(log_base, reward, self.beta)
        objective = regularised_value(policy, log_base, reward, self.beta)
        ess = 1 / ((log_base + reward / self.beta).softmax(1) ** 2).sum(1) / reward.shape[1]
        return {
            "posterior/objective": float(objective.mean()),
            "posterior/log_evidence": float(evidence.mean()),
            "posterior/gap": float((evidence - objective / self.beta).mean()),
            "posterior/ess": float(ess.mean()),
        }


def regularised_value(policy: Tensor, log_base: Tensor, reward: Tensor, beta: float) -> Tensor:
    r"""The objective :math:`E_\pi[r] - \beta\,KL(\pi\|p)`, [...], of distributions [..., n]; ``log_base`` is
    :math:`\log p`. Over beta it is a lower bound on the log-evidence."""
    divergence = torch.xlogy(policy, policy) - torch.where(policy > 0, policy * log_base, 0.0)
    return (policy * reward - beta * divergence).sum(-1)


def log_evidence(log_base: Tensor, reward: Tensor, beta: float) -> Tensor:
    r""":math:`\log Z = \log\sum_y p(y)\,e^{r(y)/\beta}`, [...]; beta times it is the largest possible objective."""
    return (log_base + reward / beta).logsumexp(-1)


@method(
    parent=reinforce,
    arxiv="2205.11275",
    code="naver/disco",
    confidence="secondary",
    claim=Claim(
        "Reward alone makes the policy collapse on few answers; with the KL it keeps as many as the posterior has.",
        "many-answers",
        (Effect("distinct", "higher", 0.1), Effect("accuracy", "higher", -0.05)),
        theirs={"group-size": 4},
    ),
)
def rl_as_bayes(
    beta: float = 0.1,
    direction: Literal["reverse", "forward"] = "reverse",
    centred: bool = False,
    momentum: float = 0.9,
    group_size: int = 4,
) -> Recipe:
    r"""Train towards the posterior whose prior is the start policy and whose evidence is the exponentiated reward.

    .. math:: J(\pi) = E_\pi[R] - \beta\,KL(\pi\|\pi_0) = \beta\log Z - \beta\,KL(\pi\|\pi^*),\qquad
              \pi^*(y) = \pi_0(y)\,e^{R(y)/\beta} / Z

    ``reverse`` is REINFORCE with the reward :math:`R - \beta\log(\pi/\pi_0)`, the ratio held constant: variational
    inference, which seeks a mode. ``forward`` weighs each response by :math:`\pi^*/\pi_\theta`, with Z from its group: it
    descends :math:`KL(\pi^*\|\pi_\theta)`, which covers the posterior and is no reward maximisation; with ``centred`` less 1,
    a baseline as in the authors' toolkit (naver/disco). The moving average of ``momentum`` is the baseline of ``reverse``
    alone. Both log the distance to the posterior (``posterior/gap``) at evaluations. The paper argues and has no defaults:
    all here are ours.
    """
    probes = (PosteriorGap(beta=beta),)
    if direction == "forward":
        return reinforce(baseline="none", group_size=group_size).replace(
            advantage=PosteriorWeight(beta=beta, centred=centred), probes=probes
        )
    return reinforce(momentum=momentum, group_size=group_size).replace(shape=(KLPenalty(coef=beta),), probes=probes)
