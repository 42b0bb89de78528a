"""Statistics: numbers per token that need the whole next-token distribution, [M] from logits [M, V]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.parts.base import Fraction, Positive, Statistic, part


def tempered_logp(logits: Tensor, target: Tensor, power: float | Tensor) -> Tensor:
    r"""Log-probability [M] of the ids ``target`` [M] under :math:`\pi^{\,p} / \sum_v \pi(v)^p`, from logits [M, V].

    The power p is a number or [M]; 1/p is a temperature. Power 0 is the uniform distribution.
    """
    scaled = logits * (power[:, None] if isinstance(power, Tensor) else power)
    return scaled.gather(-1, target[:, None])[:, 0] - scaled.logsumexp(-1)


@part
class LogProbAt(Statistic):
    r"""Log-probability of the sampled token at another temperature, :math:`\log\,\mathrm{softmax}(z/T)_{y}`.

    T counts from the temperature that the row was sampled at: at 1 it is the log-probability itself.
    """

    temperature: Positive = 1.0
    """T."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return tempered_logp(logits, target, 1 / self.temperature)


@part
class MinPLogProb(Statistic):
    r"""Log-probability of the sampled token after unlikely ones are cut off; minus infinity where it is one of them.

    .. math:: \pi_{px}(v) = \frac{\pi(v)\,1[\pi(v)\ge c]}{\sum_u \pi(u)\,1[\pi(u)\ge c]},\qquad
              c = \kappa\max_u\pi(u)\ \text{or}\ c = \kappa

    Never less than the log-probability itself where the token stays. Source: Lp-Reg, arXiv:2510.03222; min-p sampling,
    arXiv:2407.01082.
    """

    cut: Fraction = 0.02
    """kappa; 0 cuts nothing."""
    relative: bool = True
    """Whether kappa is a share of the largest probability (min-p), or a probability."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        logp = logits.log_softmax(-1)
        floor = (logp.amax(-1) if self.relative else 0.0) + (math.log(self.cut) if self.cut else -math.inf)
        floor = torch.as_tensor(floor).to(logp).expand(len(logp))
        kept = torch.where(logp >= floor[:, None], logp, -math.inf)
        chosen = kept.gather(-1, target[:, None])[:, 0]
        return torch.where(chosen.isinf(), chosen, chosen - kept.logsumexp(-1))


@part
class NucleusEntropy(Statistic):
    r"""Entropy in nats of the distribution cut to its nucleus and renormalised.

    .. math:: H^p = -\sum_{v\in V_p}\tilde\pi(v)\log\tilde\pi(v),\qquad \tilde\pi = \pi / \textstyle\sum_{V_p}\pi

    With probabilities in falling order and c_j their running sum, the nucleus V_p has the tokens with c_j < p
    (``exclusive``: the token that crosses p is out) or those with c_{j-1} < p (``inclusive``: it is in, the usual
    top-p). Which tokens are in is held constant in the gradient. A position whose first token reaches p has entropy 0.
    Source: SIREN, arXiv:2509.25133; exclusive is the authors' code, which sorts the 10,000 largest logits only, a
    shortcut that is left out here.
    """

    p: Fraction = 0.8
    """Mass of the nucleus."""
    edge: Literal["exclusive", "inclusive"] = "exclusive"
    """What happens to the token that crosses p."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        ordered = logits.sort(-1, descending=True).values
        with torch.no_grad():
            probability = ordered.softmax(-1)
            mass = probability.cumsum(-1) - (probability if self.edge == "inclusive" else 0.0)
            inside = mass < self.p
            inside[:, 0] = True  # alone it has entropy 0, as an empty nucleus has
        kept = torch.where(inside, ordered, -math.inf)
        weight = kept.softmax(-1)
        return kept.logsumexp(-1) - (weight * torch.where(inside, ordered, 0.0)).sum(-1)


@part
class RewardTempered(Statistic):
    r"""Log-probability of the sampled token under a reference that is flatter where the reward is low.

    .. math:: \hat\pi_{ref}(v) \propto \pi_{ref}(v)^{\phi(R_i)},\qquad
              \phi(R) = \phi_{min} + (1-\phi_{min})\,\mathrm{clip}(R, 0, 1)

    R_i is the reward of the row when the batch is scored. Source: RAPO, arXiv:2510.03865 (from third-party summaries).
    Our reading: phi is only said to rise into [0, 1]; the power is taken token by token, where it has a normaliser.
    """

    floor: Fraction = 0.5
    """phi_min: the power at reward 0; 1 leaves the reference as it is, 0 makes it uniform."""

    roles: ClassVar[frozenset[str]] = frozenset({"reference"})
    columns: ClassVar[tuple[str, ...]] = ("reward",)

    def power(self, reward: Tensor) -> Tensor:
        """phi of a reward, same shape."""
        return self.floor + (1 - self.floor) * reward.clamp(0, 1)

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return tempered_logp(others["reference"], target, self.power(others["reward"]).to(logits))
