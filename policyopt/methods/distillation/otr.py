"""OTR."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Count, Finite, Positive, Statistic, part
from policyopt.parts import DistributionLoss, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Demonstrated


@part
class OneToken(Statistic):
    r"""REINFORCE on tokens drawn at each position, rewarded for being the demonstration's.

    .. math:: \ell = -\sum_a f(a)\,R(a)\log\pi_\theta(a),\qquad R(a) = 1\ (a = y),\quad \beta\ (a \ne y)

    f is the share of each token among K draws from :math:`\pi' = \mathrm{softmax}(z/\kappa)`, or :math:`\pi'` itself, without
    gradient. Source: OTR, arXiv:2509.26313, from a third party's account. Our reading: tokens are drawn at kappa and
    scored at temperature 1, without importance weight.
    """

    samples: Count | None = 256
    """K; None takes the expectation over all draws."""
    kappa: Positive = 1.3
    """Temperature that the draws are made at."""
    wrong: Finite = -0.1
    """beta, the reward of any other token."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return self.loss(logits, target, self.frequency(logits, target))

    def loss(self, logits: Tensor, target: Tensor, frequency: Tensor) -> Tensor:
        """The loss, [M], where token a makes up ``frequency`` [M, V] of the draws."""
        hit = torch.zeros_like(frequency, dtype=torch.bool).scatter(-1, target[:, None], True)
        return -(torch.where(hit, 1.0, self.wrong) * frequency * logits.log_softmax(-1)).sum(-1)

    def exploration(self, logits: Tensor) -> Tensor:
        """pi', the distribution that the draws are made from, [..., V]."""
        return (logits / self.kappa).softmax(-1)

    @torch.no_grad()
    def frequency(self, logits: Tensor, target: Tensor) -> Tensor:
        """f, [M, V]."""
        p = self.exploration(logits)
        if self.samples is None:
            return p
        cdf = p.double().cumsum(-1)
        u = uniforms(token_key(logits, target), self.samples).to(cdf)
        drawn = torch.searchsorted(cdf, u * cdf[:, -1:], right=True).clamp(max=p.shape[-1] - 1)
        return counts(drawn, p) / self.samples


def counts(drawn: Tensor, like: Tensor) -> Tensor:
    """How often each token was drawn, [M, V] as ``like``, from ids [M, K]."""
    return torch.zeros_like(like).scatter_add(-1, drawn, torch.ones_like(drawn).to(like))


def token_key(logits: Tensor, target: Tensor) -> Tensor:
    """A number per token, int64 [M], that follows from what the policy thinks of it to 1/16 nat.

    So draws change as the policy does, and depend neither on the rest of the batch nor on float noise.
    """
    logp = logits.log_softmax(-1)
    mine, top = (16 * logp.gather(-1, target[:, None])[:, 0]).floor(), (16 * logp.amax(-1)).floor()
    return (target * 0x1003F + mine.long()) * 0x1003F + top.long()


def uniforms(key: Tensor, n: int) -> Tensor:
    """``n`` uniform numbers in [0, 1) for each 64-bit key, [M, n]: splitmix64, so they depend on nothing else."""
    x = key[:, None] + torch.arange(1, n + 1, device=key.device) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return _shifted(x ^ _shifted(x, 31), 11).double() * 2.0**-53


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills up with zeros, which int64's own does not."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


@method(
    parent=reinforce,
    arxiv="2509.26313",
    confidence="secondary",
    claim=Claim(
        "Weighed by what the policy itself would draw, demonstrations teach more than by supervised fine-tuning.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        theirs={
            "baseline": "none",
            "recipe.source": "Demonstrated",
            "recipe.source.size": 1,
            "recipe.source.share": 1.0,
            "recipe.aggregate": "TokenMean",
        },
    ),
)
def otr(samples: int | None = 256, kappa: float = 1.3, wrong: float = -0.1, group_size: int = 1) -> Recipe:
    r"""One-Token Rollout: supervised fine-tuning as REINFORCE on single tokens, drawn at each place of a demonstration.

    .. math:: L = -\frac{1}{\sum_i|x_i|}\sum_{i,t}\frac1K\sum_j R(a_j)\log\pi_\theta(a_j),\qquad
              a_j \sim \mathrm{softmax}(z_{i,t}/\kappa),\qquad R(a) = 1\ (a = x_{i,t}),\quad \beta\ (a \ne x_{i,t})

    x are worked solutions, beta = ``wrong``, K = ``samples``; None takes the expectation over all draws. With beta 0 it is
    SFT in which a token counts as much as the policy expects it. Nothing is generated and nothing judged. Source:
    arXiv:2509.26313 from a third party's account (K 256, kappa 1.3; beta -0.1 is recalled). Our reading: draws are scored
    at temperature 1, without importance weight. The draws follow from the policy's distribution itself, so any split of
    the batch draws the same.
    """
    return reinforce(baseline="none").replace(
        source=Demonstrated(size=group_size, share=1.0),
        ratio=None,
        surrogate=None,
        aggregate=TokenMean(),
        regularizers=(DistributionLoss(of=OneToken(samples=samples, kappa=kappa, wrong=wrong)),),
    )
