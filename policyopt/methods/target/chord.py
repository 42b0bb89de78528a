"""CHORD."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import ByStep
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, NonNegative, Weight, Whole, part
from policyopt.parts import BySource, FromProgram, Likelihood, OwnTokens, TokenMean, TokenScale
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import WithReference


@part
class Uncertainty(TokenScale):
    r"""A token counts as much as the policy is undecided about it, :math:`\phi = p\,(1 - p)` with :math:`p = \pi_\theta(y_{i,t})`.

    At most 1/4, at p = 1/2; 0 for what the policy is sure of, and for what it would never say. Source: CHORD,
    arXiv:2508.11408, and the authors' code (modelscope/Trinity-RFT).
    """

    def __call__(self, batch: Batch) -> Tensor:
        p = batch.logp.detach().exp()
        return p * (1 - p)


@part
class Factor(Weight):
    """One factor on the surrogate of all tokens."""

    value: NonNegative = 1.0
    """The factor; a controller may move it."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.full_like(log_ratio, self.value)


@part
class WarmupCosine(ByStep):
    r"""A field that goes linearly from ``start_value`` to ``peak`` in ``warmup`` steps, and along a cosine to ``valley`` in ``decay`` more.

    Source: CHORD, the authors' code (modelscope/Trinity-RFT).
    """

    start_value: Fraction = 0.0
    """Value at the first step, where there is a warm-up."""
    peak: Fraction = 0.9
    """Value once the warm-up is over."""
    valley: Fraction = 0.05
    """Value at the end."""
    warmup: Whole = 0
    """Steps of the warm-up."""
    decay: Whole = 200
    """Steps of the decay."""

    def value(self, step: float) -> float:
        if step < self.warmup:
            return self.start_value + step / self.warmup * (self.peak - self.start_value)
        if step >= self.warmup + self.decay:
            return self.valley
        along = math.cos(math.pi * (step - self.warmup) / self.decay)
        return self.valley + (self.peak - self.valley) * (1 + along) / 2


@method(
    parent=grpo,
    arxiv="2508.11408",
    code="modelscope/Trinity-RFT",
    confidence="code",
    claim=Claim(
        "Expert solutions beside the policy's own attempts, weighed down where the policy is sure, lead further than attempts alone.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
    ),
)
def chord(
    mu_peak: float = 0.1,
    mu_valley: float = 0.1,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    phi: bool = True,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""CHORD: supervised fine-tuning as a term beside GRPO, its weight on a course and each expert token by how undecided the policy is.

    .. math:: L = (1-\mu_s)\,L_{GRPO} - \frac{\mu_s}{\sum_j|x_j|}\sum_{j,t} sg[\phi_{j,t}]\log\pi_\theta(x_{j,t}),\qquad
              \phi = p\,(1-p),\quad p = \pi_\theta(x_{j,t})

    x are the worked solutions, one beside the group of each prompt that has one; they are no members of the group. mu goes
    linearly from 0 to ``mu_peak`` in ``warmup_steps`` steps, then along a cosine to ``mu_valley`` in ``decay_steps``. The defaults
    are CHORD-phi (mu 0.1 throughout); CHORD-mu is ``mu_peak=0.9, mu_valley=0.05, decay_steps=200, phi=False``. GRPO's
    loss is a mean over tokens, with its clip and without a KL. Mu 0 is GRPO, mu 1 without phi supervised fine-tuning.

    Source: arXiv:2508.11408, and the authors' code (modelscope/Trinity-RFT), whose expert rows come from a data set of their own
    and are a fifth of the batch. Our reading: experts answer the step's own prompts; each term is a mean over the tokens of
    the mini-batch, where the code takes those of a micro-batch; mu is at its start at the first step, which is step 0.
    """
    parent = grpo(low, high, kl_coef=0.0, group_size=group_size)
    first = 0.0 if warmup_steps else mu_peak if decay_steps else mu_valley

    moving = (
        WarmupCosine("regularizers.Likelihood.coef", 0.0, mu_peak, mu_valley, warmup_steps, decay_steps, label="mu"),
        WarmupCosine("weight.Factor.value", 1.0, 1 - mu_peak, 1 - mu_valley, warmup_steps, decay_steps, label="rest"),
    )
    return parent.replace(
        source=WithReference(size=group_size),
        advantage=BySource(inner=require(parent.advantage), rows=FromProgram()),
        aggregate=OwnTokens(inner=TokenMean()),
        weight=(Factor(value=1 - first),),
        regularizers=(Likelihood(coef=first, rows=FromProgram(main=False), scale=Uncertainty() if phi else None),),
        controllers=moving if warmup_steps or decay_steps else (),
    )
