"""Lp-Reg."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Level, NonNegative, Positive, Statistic, Unit, Whole, part
from policyopt.parts import PPOClip, Selector, TokenMean
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class LeastLikely(Selector):
    r"""The :math:`\lfloor q\,n \rfloor` least likely of the n tokens whose advantage has a given sign.

    None where fewer than ``least`` would be picked; tokens as likely as the last one picked are picked too. Source:
    Lp-Reg, arXiv:2510.03222, and the authors' code, which ranks inside a micro-batch. Our reading: the mini-batch.
    """

    fraction: Fraction = 0.01
    """q."""
    sign: Literal["negative", "positive"] = "negative"
    """Sign of the advantage."""
    least: Whole = 2
    """Fewest tokens to pick."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        signed = batch.advantage < 0 if self.sign == "negative" else batch.advantage > 0
        among = batch.mask.bool() & signed
        count = int(self.fraction * int(among.sum()))
        if count < max(1, self.least):
            return torch.zeros_like(among)
        logp = batch.logp.detach()
        return among & (logp <= logp[among].kthvalue(count).values)


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
class ProxyShield(PPOClip):
    r"""PPO's surrogate, but rare tokens that a cleaned copy of the old policy still allows are pulled back to it.

    .. math:: -A\,r + \beta\,(e^{d} - d - 1),\quad d = \log\pi_{px} - \log\pi_\theta \quad\text{on the shielded tokens}

    Shielded are those among the least likely tokens of bad answers (and of good ones, by ``positive``) that the
    policy now finds less likely than the proxy does; what the proxy cuts off as noise is never shielded. They are not
    clipped. The pull is upward, :math:`\partial/\partial\log\pi_\theta = \beta(1 - e^d) < 0`. Source: Lp-Reg,
    arXiv:2510.03222, and the authors' code (CarlanLark/Lp-Reg-dev), from which the condition on d and ``limit`` are;
    the paper asks for a positive proxy.
    """

    coef: NonNegative = 1.0
    """beta."""
    negative: Fraction = 0.01
    """Share of the tokens with negative advantage that may be shielded: the least likely ones."""
    positive: Fraction = 0.0
    """The same for positive advantage."""
    proxy: MinPLogProb = MinPLogProb()
    """The cleaned old policy."""
    limit: Positive = 10.0
    """Largest value of the penalty before beta; a token beyond it has no pull."""

    unit: ClassVar[Unit] = "batch"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return (self.proxy,)

    def unlikely(self, batch: Batch) -> Tensor:
        """The least likely tokens of either sign, boolean [N, T]."""
        return LeastLikely(self.negative)(batch) | LeastLikely(self.positive, "positive")(batch)

    def shielded(self, batch: Batch) -> Tensor:
        """Those of them that the proxy finds likelier than the policy does, boolean [N, T]."""
        return self.unlikely(batch) & (batch.logp.detach() < batch.fixed(self.proxy))

    def counted(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.where(self.shielded(batch), log_ratio.exp(), super().counted(log_ratio, batch))

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        target = torch.where(self.shielded(batch), batch.fixed(self.proxy), batch.logp.detach())
        pull = kl_estimate(batch.logp, target, "k3").clamp(max=self.limit)
        return super().__call__(log_ratio, batch) + self.coef * pull

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {**super().metrics(log_ratio, batch), "shielded": self.shielded(batch).to(log_ratio)}


@method(
    parent=grpo,
    arxiv="2510.03222",
    code="CarlanLark/Lp-Reg-dev",
    confidence="code",
    claim=Claim(
        "Rare tokens that are no noise sustain exploration: protected in wrong answers, they keep the entropy up.",
        "many-answers",
        (Effect("entropy", "higher", 0.01), Effect("accuracy", "higher", -0.01)),
        theirs={"kl-coef": 0.0},
    ),
)
def lp_reg(
    beta: float = 1.0,
    min_p: float = 0.02,
    filter: Literal["minp", "fixed"] = "minp",
    neg_fraction: float = 0.01,
    pos_fraction: float = 0.0,
    low: float | None = 1.0,
    high: float | None = 9.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO that protects rare tokens of wrong answers, unless the policy itself rules them out as noise.

    .. math:: \ell = -A\,r + \beta\,(e^d - d - 1),\ d = \log\pi_{px} - \log\pi_\theta\ \text{on shielded tokens},\qquad
              \ell = \max(-Ar, -A\,\mathrm{clip}(r))\ \text{elsewhere},\qquad L = \overline{\ell}

    pi_px is the old policy without the tokens below ``min_p`` times the largest probability (``fixed``: below min_p).
    Shielded are the ``neg_fraction`` least likely tokens of negative advantage (``pos_fraction`` of positive), as far
    as the policy finds them less likely than pi_px does. Token-mean, no KL to a reference. Defaults from the authors'
    scripts: on-policy, so that the clip of 1 and 9 is off. Our reading: the share is of the mini-batch, where the code
    ranks inside a micro-batch.
    """
    proxy = MinPLogProb(min_p, relative=filter == "minp")
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=ProxyShield(low, high, coef=beta, negative=neg_fraction, positive=pos_fraction, proxy=proxy),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
