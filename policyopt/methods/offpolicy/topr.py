"""TOPR."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import part
from policyopt.parts import Bounds, Normalise, SequenceRatio, TokenRatio, TruncatedRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Tapered(Bounds):
    r"""The two distances where the advantage is negative; no distance, so that the ratio counts as 1, where it is not.

    .. math:: [1 - \epsilon_{low}, 1 + \epsilon_{high}]\ (A < 0),\qquad [1, 1]\ (A \ge 0)

    Source: TOPR, arXiv:2503.14286.
    """

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        bad, one = batch.advantage < 0, torch.ones_like(log_ratio)
        return torch.where(bad, 1 - low, one), torch.where(bad, 1 + high, one)


@method(
    parent=reinforce,
    arxiv="2503.14286",
    confidence="secondary",
    claim=Claim(
        "Good responses as they are, bad ones by a ratio of at most 1: off-policy training is stable and faster, without a KL.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        against="grpo",
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def topr(
    low: float | None = 1.0,
    high: float | None = 0.0,
    whole: bool = True,
    baseline: float | None = None,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Tapered Off-Policy REINFORCE: good responses count in full whoever is likely to write them, bad ones by a truncated ratio.

    .. math:: L = -\frac1N\sum_i w_i\,A_i\sum_t\log\pi_\theta(y_{i,t}),\qquad
              w_i = 1\ (A_i \ge 0),\quad sg\Big[\mathrm{clip}\Big(\prod_t r_{i,t}, 1-\epsilon_l, 1+\epsilon_h\Big)\Big]\ (A_i < 0)

    Good ones are learned as in supervised training, fast also where they are unlikely; bad ones stop pushing as they become
    unlikely, so that the objective is bounded above. The ratio of a bad response is that of the whole, at most 1
    (``low`` 1 and ``high`` 0: between 0 and 1). A_i is the reward minus the mean of the group, or minus ``baseline``: off-policy, it
    sets how much good and bad ones weigh against each other more than it reduces variance. Without ``whole`` each token
    has its own ratio, as in Trinity-RFT, which averages over tokens too. Source: arXiv:2503.14286. Our reading:
    the mean of the group in the place of the paper's constant, token sums, four mini-batches.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="group" if baseline is None else "constant", scale="none", baseline=baseline or 0.0),
        ratio=SequenceRatio(reduce="sum") if whole else TokenRatio(),
        weight=(TruncatedRatio(low=low, high=high, bounds=Tapered()),),
        update=Update(minibatches=minibatches),
    )
