"""GTPO."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Controller, FirstValue
from policyopt.groups import group_max
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, NonNegative, Unit, Wrapper, part
from policyopt.parts import Normalise, RatioTimesAdvantage
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean


@part
class ConflictFree(Wrapper, Advantage):
    r"""An advantage less the entropy of its response, which spares what good and bad responses begin and end with alike.

    .. math:: A_{i,t} = \lambda_{i,t}\,\delta_i\,(A_i - \gamma\langle H\rangle_i),\qquad
              \delta_i = 0 \text{ where } \langle H\rangle_0 < h \text{ and } \langle H\rangle_i > h,\ \text{else } 1

    A token is in conflict where a response to the same prompt with A > 0 and one with A < 0 both have it at the same place,
    counted from the first token of the policy. In the unbroken run of such tokens that begins a response, lambda is omega where A > 0 and 0
    where A < 0; elsewhere it is 1. The same with places counted from the last token; lambda is the product of the two. <H>_i
    is the mean entropy (nats) that the tokens were drawn with, <H>_0 that of the initial policy.
    Source: GTPO, arXiv:2508.03772, and the authors' code (winstonsmith1897/GTPO), which divides further by the number of
    conflict tokens; the published objective does not.
    """

    of: Advantage = Normalise(centre="group", scale="none")
    """The advantage of a response, the same on all of its tokens; its sign says which responses are good."""
    omega: NonNegative = 2.0
    """omega: factor on tokens in conflict in good responses."""
    entropy_coef: NonNegative = 0.1
    """gamma."""
    most: NonNegative = math.log(2)
    """h in nats."""
    initial: NonNegative | None = None
    """<H>_0 in nats; None, until a controller has measured it, takes that of the batch."""

    around: ClassVar[str] = "of"
    unit: ClassVar[Unit] = "batch"
    asks: ClassVar[frozenset[str]] = frozenset({"sampling entropy"})

    def __call__(self, batch: Batch) -> Tensor:
        gain = masked_mean(self.of(batch), batch.mask, dim=-1)
        return self.gated(gain, batch)[:, None] * self.factor(gain, batch) * batch.mask

    def gated(self, gain: Tensor, batch: Batch) -> Tensor:
        """The credit of each response before lambda, [N], from its advantage [N]."""
        return self.gate(batch) * (gain - self.entropy_coef * mean_entropy(batch))

    def gate(self, batch: Batch) -> Tensor:
        """delta, [N]."""
        entropy = mean_entropy(batch)
        first = (
            masked_mean(batch.sampled_entropy, batch.mask) if self.initial is None else entropy.new_tensor(self.initial)
        )
        return 1 - ((entropy > self.most) & (first < self.most)).to(entropy)

    def factor(self, gain: Tensor, batch: Batch) -> Tensor:
        """lambda, [N, T], 1 on padding."""
        start, end = (run(found, batch.mask, back) for back, found in enumerate(conflicts(gain, batch)))
        inside = torch.where(gain > 0, self.omega, (gain == 0).to(gain))[:, None]
        return torch.where(start, inside, 1.0) * torch.where(end, inside, 1.0)


def mean_entropy(batch: Batch) -> Tensor:
    """The mean entropy that the tokens of each row were drawn with, [N], in nats."""
    return masked_mean(batch.sampled_entropy, batch.mask, dim=-1)


def conflicts(gain: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Which tokens good and bad responses to a prompt both have at the same place, boolean [N, T]: with places counted from the
    first token of the policy, and from its last. ``gain`` [N] is above 0 for good ones and below for bad ones."""
    there = batch.mask.bool()
    forward = batch.mask.long().cumsum(-1) - 1
    backward = batch.mask.long().sum(-1, keepdim=True) - 1 - forward
    good, bad = ((there & (side > 0)[:, None]).to(batch.mask).flatten() for side in (gain, -gain))

    def both(place: Tensor) -> Tensor:
        width, token = place.shape[1] + 1, torch.where(there, batch.tokens, 0)
        key = (batch.group[:, None] * width + place.clamp(min=0)) * (token.amax() + 1 if token.numel() else 1) + token
        key = torch.where(there, key, -1).flatten()
        return (group_max(good, key) * group_max(bad, key) > 0).reshape(there.shape) & there

    return both(forward), both(backward)


def run(found: Tensor, mask: Tensor, back: int = 0) -> Tensor:
    """The unbroken run of what was found that begins a row, or ends it, boolean [N, T]; what others wrote does not break it."""
    x = (found | ~mask.bool()).long()
    unbroken = x.flip(-1).cumprod(-1).flip(-1) if back else x.cumprod(-1)
    return unbroken.bool() & mask.bool()


@method(
    parent=grpo,
    arxiv="2508.03772",
    code="winstonsmith1897/GTPO",
    confidence="code",
    claim=Claim(
        "What good and bad responses share is not punished, and entropy is held without a reference: the policy does not collapse, and more is solved "
        "within several attempts than with GRPO.",
        "shortcut",
        (Effect("pass@4", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def gtpo(
    conflict_weight: float = 2.0,
    entropy_coef: float = 0.1,
    entropy_max: float = math.log(2),
    entropy_init: float | None = None,
    group_size: int = 8,
) -> Recipe:
    r"""Trajectory-based policy optimisation: openings and endings that good and bad responses share are not punished, and rewarded twice.

    .. math:: L = -\frac1G\sum_i\frac{\delta_i(A_i - \gamma\langle H\rangle_i)}{|y_i|}\sum_t \lambda_{i,t}\,r_{i,t},\qquad A_i = R_i - \bar R

    lambda is ``conflict_weight`` (good responses) or 0 (bad ones) in the runs of tokens that both kinds begin or end with, else 1; see
    :class:`ConflictFree`. Responses whose mean entropy passes ``entropy_max`` nats are left out (delta = 0) if the policy
    began below it. gamma = ``entropy_coef`` takes the place of the KL to a reference; nothing is clipped. ``entropy_init``
    is measured in the first step, or given. A response with A = 0 still has the entropy term. Source: arXiv:2508.03772 and
    the authors' code. Our reading: entropies are those that the tokens were drawn with, which are the current policy's at the
    first update on a batch; r is the ratio to the policy that sampled, where the code has the detached current one.
    """
    first: tuple[Controller, ...] = (FirstValue("advantage.initial", metric="entropy"),)
    return grpo(None, None, kl_coef=0.0, group_size=group_size).replace(
        advantage=ConflictFree(
            omega=conflict_weight, entropy_coef=entropy_coef, most=entropy_max, initial=entropy_init
        ),
        surrogate=RatioTimesAdvantage(),
        controllers=first if entropy_init is None else (),
    )
