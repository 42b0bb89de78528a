"""THR."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Finite, NonNegative, Statistic, Unit, Wrapper, part
from policyopt.parts import GroupStatistic, Normalise
from policyopt.parts.statistic.group import Together
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch, masked, masked_mean


@part
class TokenInfluence(GroupStatistic):
    r"""What a step on a token does to the log-probabilities of the right responses to its prompt, to first order through the head.

    .. math:: s_{i,t} = \sum_{j\in P}\sum_k\langle g_{i,t}, g_{j,k}\rangle\langle h_{i,t}, h_{j,k}\rangle
              = g_{i,t}^\top M h_{i,t},\qquad M = \sum_{j\in P}\sum_k g_{j,k}h_{j,k}^\top,\qquad g = e_y - \pi

    P are the right responses, h the hidden state that predicts a token, g [V] its prediction error. M [V, d] has the size of the head;
    positions are passed twice. 0 where no response is right. Source: THR, arXiv:2510.03669, and the authors' earlier note on
    negative gradients, from third parties' accounts.
    """

    columns: ClassVar[tuple[str, ...]] = ("correct",)

    def over(self, group: Together) -> Tensor:
        found = torch.zeros_like(group.mask)
        right = masked((group.columns["correct"] > 0)[:, None].to(group.mask).expand_as(group.mask), group.mask)
        if not bool(right.any()):
            return found
        pull: Tensor | None = None
        for places, logp in group.chunks():
            hidden = group.hidden[:, places] * right[:, places, None]
            here = _errors(group, places, logp).flatten(0, 1).T @ hidden.flatten(0, 1)
            pull = here if pull is None else pull + here
        assert pull is not None
        for places, logp in group.chunks():
            found[:, places] = ((_errors(group, places, logp) @ pull) * group.hidden[:, places]).sum(-1)
        return found


def _errors(group: Together, places: slice, logp: Tensor) -> Tensor:
    """g of the tokens at some positions, [G, c, V], 0 where the mask is."""
    error = -logp.exp()
    target = group.tokens[:, places, None]
    error.scatter_add_(-1, target, torch.ones_like(target, dtype=error.dtype))
    return masked(error, group.mask[:, places, None].expand_as(error))


@part
class HiddenReward(Wrapper, Advantage):
    r"""An advantage on the tokens that move the right responses much, more on those that move them one way.

    .. math:: \tilde A_{i,t} = A_i\,1[|THR_{i,t}| > \tau]\,(1 + p\,\mathrm{sign}\,THR_{i,t}),\qquad THR_{i,t} = A_i s_{i,t},\qquad
              \tau = \beta\min_{j\in P}\frac{1}{|y_j|}\sum_k s_{j,k}

    s is :class:`TokenInfluence`, P the right responses to the prompt. A step on a token with THR above 0 makes these likelier. Source:
    THR, arXiv:2510.03669. Our reading: THR has the factor A, and the threshold is that of the authors' earlier note.
    """

    inner: Advantage = Normalise()
    """A."""
    statistic: GroupStatistic = TokenInfluence()
    """s."""
    p: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """p: above 0 sharpens right answers, below 0 keeps mass for others, 0 leaves the signs alone."""
    tau: NonNegative | None = None
    """tau, the same for all prompts; None for that of each prompt."""
    beta: Finite = 1.0
    """beta of the prompt's own threshold."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and which responses are right."""
        return super().needs | {"correct"}

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return (*super().fixed, self.statistic)

    def reward(self, batch: Batch) -> Tensor:
        """THR, [N, T]."""
        return masked(self.inner(batch) * batch.fixed(self.statistic), batch.mask)

    def threshold(self, batch: Batch) -> Tensor:
        """tau of each row, [N]; 0 where no response to the prompt is right."""
        if self.tau is not None:
            return batch.mask.new_full((len(batch),), self.tau)
        mean = masked_mean(batch.fixed(self.statistic), batch.mask, dim=-1)
        least = -group_max(torch.where(batch.correct > 0, -mean, -torch.inf), batch.group)
        return torch.where(least.isinf(), 0.0, self.beta * least)

    def keep(self, batch: Batch) -> Tensor:
        """Which tokens are trained on, boolean [N, T]."""
        return batch.mask.bool() & (self.reward(batch).abs() > self.threshold(batch)[:, None])

    def __call__(self, batch: Batch) -> Tensor:
        sign = torch.where(self.reward(batch) > 0, 1.0, -1.0).to(batch.mask)
        return masked(self.inner(batch) * (1 + self.p * sign), self.keep(batch))


@method(
    parent=grpo,
    arxiv="2510.03669",
    confidence="secondary",
    claim=Claim(
        "Less weight on tokens that make right answers still likelier, more on the others, and several right answers stay in reach.",
        "mixed-difficulty",
        (Effect("pass@4", "higher", 0.02),),
        both={"stopping.tokens": 90_000, "steps": 80},
        ours={"p": -0.2},
        theirs={"kl-coef": 0.0},
    ),
)
def thr(
    p: float = 0.2,
    tau: float | None = None,
    beta: float = 1.0,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Token Hidden Reward: train the tokens that move the right answers most, and steer whether they sharpen or spread.

    .. math:: \tilde A_{i,t} = A_i\,1[|A_i s_{i,t}| > \tau]\,(1 + p\,\mathrm{sign}(A_i s_{i,t})),\qquad
              s_{i,t} = \sum_{j\in P}\sum_k\langle g_{i,t}, g_{j,k}\rangle\langle h_{i,t}, h_{j,k}\rangle

    s is what a step on a token does to the log-probabilities of the right responses P of its group (:class:`TokenInfluence`), from hidden
    states h and prediction errors g. ``p`` above 0 exploits: greedy accuracy; below 0 it explores: pass@k; at 0 tokens with little
    influence are left out and that is all. With p 0 and tau 0 it is GRPO on all tokens with any influence. A token that was certain has
    none. ``tau`` None takes the threshold of each prompt, ``beta`` times the least mean s of a right response. Goes with the ratio of
    GSPO too (``SequenceRatioPerToken``). Source: arXiv:2510.03669, from third parties' accounts. Our reading: the factor A in THR, the
    threshold, and p = 0.2; no KL.
    """
    parent = grpo(low, high, kl_coef=0.0, group_size=group_size)
    return parent.replace(advantage=HiddenReward(inner=require(parent.advantage), p=p, tau=tau, beta=beta))
