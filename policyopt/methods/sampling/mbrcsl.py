"""MBRCSL."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.groups import group_max
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Finite, Memory, part
from policyopt.parts import AmongPool, Cloned, RowSelector, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group


@part
class BestReward(Memory):
    """The largest reward that a response to the prompt has ever had. Source: MBRCSL, arXiv:2310.19308."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def __call__(self, batch: Batch) -> Tensor:
        best = group_max(batch.total_reward(), batch.group)
        if batch.history is not None:
            best = torch.maximum(best, batch.history[:, 0].nan_to_num(-torch.inf))
        return best[:, None]


@part
class BeatsBest(RowSelector):
    r"""The responses whose reward is above all that the prompt has had before, :math:`R_i > \max_{\tau\in D_q} R(\tau)`; ties are dropped.

    The largest one is what the memory :class:`BestReward` holds, or ``known`` where the prompt is new. Source: MBRCSL, arXiv:2310.19308, and the authors'
    code (zhaoyizhou1123/mbrcsl).
    """

    known: Finite = 0.0
    """The best reward of a prompt that has not been seen."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def __call__(self, batch: Batch) -> Tensor:
        return torch.gt(batch.total_reward(), batch.history[:, 0].nan_to_num(self.known))


@method(
    parent=reinforce,
    arxiv="2310.19308",
    code="zhaoyizhou1123/mbrcsl",
    confidence="code",
    claim=Claim(
        "Rollouts that beat all of the data put halves of different trajectories together, which cloning of the data alone cannot do.",
        beyond="The claim is about rollouts in a learned model of the dynamics of logged trajectories; with text there is nothing to learn, since what was written is the state.",
    ),
)
def mbrcsl(known: float = 0.0, pool: int | None = None, rounds: int = 4, group_size: int = 8) -> Recipe:
    r"""Cloning of one's own samples that beat the best that was known: rejection sampling whose threshold rises with every success.

    .. math:: L = -\frac{1}{\sum_{i\in K}|y_i|}\sum_{i\in K}\sum_t\log\pi_\theta(y_{i,t}),\qquad K = \{i : R_i > \max_{\tau\in D_q}R(\tau)\}

    D are all responses to the prompt so far (:class:`BestReward`); a new prompt has ``known`` as its best. What only ties is dropped and has no gradient. Prompts whose
    responses are all dropped are replaced by others, ``rounds`` times at most; where nothing is left the step says so and changes nothing. Rewards
    should come in more than two sizes, for a right answer of reward 1 is never beaten; and prompts have to come again: data in passes, or a
    ``pool`` of so many prompts of a task without end.

    Source: arXiv:2310.19308 and the authors' code. There a policy is cloned from rollouts in a learned model of the dynamics; text is its own state, so that
    the policy's samples take the place of that model and of the behaviour policy. Our reading: a threshold for each prompt instead of one for all data; the policy is not told which return is wanted of it.
    """
    return reinforce(baseline="none").replace(
        source=Group(size=group_size, rounds=rounds),
        filter=(BeatsBest(known=known),),
        advantage=Cloned(),
        ratio=None,
        aggregate=TokenMean(),
        memory=BestReward(),
        curriculum=AmongPool(pool=pool) if pool else None,
    )
