"""Reward shaping: what is added to the judge's score, or put in its place."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from policyopt.batch import Batch, masked
from policyopt.parts.base import Finite, NonNegative, Shape, Unit, part
from policyopt.parts.regularize import Estimator, kl_estimate


@part
class Correctness(Shape):
    """Two values in the place of the judge's score: one for right, one for wrong (DAPO, arXiv:2503.14476, eq. 7)."""

    right: Finite = 1.0
    """Reward of a right answer."""
    wrong: Finite = -1.0
    """Reward of a wrong answer."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=torch.where(batch.correct > 0.5, self.right, self.wrong).to(batch.reward))


@part
class OverlongPenalty(Shape):
    r"""Soft overlong punishment: a penalty that grows linearly from 0 to -1 over the last ``share`` of the token
    budget.

    .. math:: \mathrm{clip}\Big(\frac{(L_{max} - L_c) - |y|}{L_c}, -1, 0\Big),\qquad L_c = share \cdot L_{max}

    Source: DAPO, arXiv:2503.14476, eq. 13, with 4,096 of 20,480 tokens. The budget is the run's (``batch.budget``).
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """L_c over L_max."""
    coef: NonNegative = 1.0
    """Factor on the penalty."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Batch:
        budget = batch.budget.to(batch.reward)
        span = self.share * budget
        penalty = ((budget - span - batch.length().to(batch.reward)) / span).clamp(-1, 0)
        return batch.replace(reward=batch.reward + self.coef * penalty)


@part
class TruncatedReward(Shape):
    """A fixed reward for responses cut off at the budget, in the place of the judge's score (TRL:
    ``missing_eos_penalty``)."""

    reward: Finite = 0.0
    """What a truncated response is worth."""

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=torch.where(batch.truncated > 0.5, self.reward, batch.reward).to(batch.reward))


@part
class KLPenalty(Shape):
    r"""KL to the reference as a reward on every token, :math:`\rho_{i,t} = -\beta\,k(\pi_{old}, \pi_{ref})_{i,t}`.

    It is a number, not a function of the parameters: the gradient of the penalty comes from the policy gradient itself.
    Source: Ziegler et al., arXiv:1909.08593, eq. 2 (k1).
    """

    coef: NonNegative = 0.05
    """beta; a controller may move it."""
    estimator: Estimator = "k1"
    """Which estimate of the KL."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def __call__(self, batch: Batch) -> Batch:
        penalty = -self.coef * masked(kl_estimate(batch.old_logp, batch.ref_logp, self.estimator), batch.mask)
        return batch.replace(token_reward=penalty if batch.token_reward is None else batch.token_reward + penalty)
