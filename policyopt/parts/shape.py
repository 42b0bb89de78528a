"""Reward shaping: what is added to the judge's score, or put in its place."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.base import Finite, NonNegative, Positive, Shape, Unit, part
from policyopt.parts.regularize import Estimator, Target, kl_estimate
from policyopt.schema import member


@part
class Correctness(Shape):
    r"""The judge's word in numbers, in the place of its score: one for right, one for wrong, and one on top where the
    answer stands in the form that was asked for.

    Sources: DAPO, arXiv:2503.14476, eq. 7 (right 1, wrong -1); accuracy and format as a weighted sum: Prior Prompt
    Engineering, arXiv:2505.14157.
    """

    right: Finite = 1.0
    """Reward of a right answer."""
    wrong: Finite = -1.0
    """Reward of a wrong answer."""
    formatted: Finite = 0.0
    """Added where the judge found the answer in its form."""
    threshold: Finite | None = None
    """A score above it is right; None takes the judge's own word."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the judge said, as far as it counts."""
        return frozenset({"correct"} if self.threshold is None else ()) | ({"formatted"} if self.formatted else set())

    def __call__(self, batch: Batch) -> Batch:
        right = batch.correct > 0.5 if self.threshold is None else batch.reward > self.threshold
        reward = torch.where(right, self.right, self.wrong).to(batch.reward)
        return batch.replace(reward=reward + self.formatted * batch.formatted if self.formatted else reward)


@part
class LengthReward(Shape):
    r"""A reward for length: a curve from one value at no tokens to another at a reference length.

    .. math:: R_i \leftarrow R_i + c\,\big(v_0 + (v_1 - v_0)\,f(|y_i|/L)\big),\qquad f(x) = x
              \;\text{ or }\; \tfrac12(1 - \cos\pi x)

    (v_0, v_1) differ for right and wrong answers; (0, 0) leaves them alone. Sources: cosine reward: Open-RS,
    arXiv:2503.16219, and the authors' code (knoveleng/open-rs), where it goes on past L; triangle around a budget
    (linear, ``back``): RMT, arXiv:2509.24375.
    """

    coef: Finite = 1.0
    """c."""
    curve: Literal["linear", "cosine"] = "linear"
    """f."""
    reference: Positive | None = None
    """L in tokens; None takes the budget of the run (``batch.budget``)."""
    past: Literal["hold", "back", "on"] = "hold"
    """Beyond L: v_1 stays; the way back to v_0, which is reached at 2 L and stays; or f goes on as it is."""
    right: tuple[Finite, Finite] = (1.0, 0.5)
    """(v_0, v_1) of a right answer."""
    wrong: tuple[Finite, Finite] = (0.0, 0.0)
    """(v_0, v_1) of a wrong answer."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Correctness where it makes a difference."""
        return frozenset() if self.right == self.wrong else frozenset({"correct"})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=batch.reward + self.coef * self.value(batch))

    def value(self, batch: Batch) -> Tensor:
        """The reward of each row before its coefficient, [N]."""
        limit = batch.budget.to(batch.reward) if self.reference is None else self.reference
        x = batch.length().to(batch.reward) / limit
        if self.past != "on":
            x = x.clamp(max=1) if self.past == "hold" else (1 - (1 - x).abs()).clamp(min=0)
        done = x if self.curve == "linear" else (1 - torch.cos(math.pi * x)) / 2
        if self.right == self.wrong:
            return self.right[0] + (self.right[1] - self.right[0]) * done
        first, last = (torch.where(batch.correct > 0.5, *pair) for pair in zip(self.right, self.wrong, strict=True))
        return first + (last - first) * done


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
    add: bool = False
    """Add it to the score instead."""

    needs: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def __call__(self, batch: Batch) -> Batch:
        cut = batch.reward + self.reward if self.add else torch.full_like(batch.reward, self.reward)
        return batch.replace(reward=torch.where(batch.truncated > 0.5, cut, batch.reward))


@part
class KLPenalty(Shape):
    r"""KL to another model as a reward on every token, :math:`\rho_{i,t} = -\beta\,k(\pi_{old}, \pi_{target})_{i,t}`.

    It is a number, not a function of the parameters: the gradient of the penalty comes from the policy gradient itself.
    Source: Ziegler et al., arXiv:1909.08593, eq. 2 (k1).
    """

    coef: NonNegative = 0.05
    """beta; a controller may move it."""
    estimator: Estimator = "k1"
    """Which estimate of the KL."""
    target: Target = "reference"
    """The model that the policy is held to."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The target's log-probabilities."""
        return frozenset({member("logp_of", self.target)})

    def __call__(self, batch: Batch) -> Batch:
        estimate = kl_estimate(batch.old_logp, batch.logp_of(self.target), self.estimator)
        penalty = -self.coef * masked(estimate, batch.mask)
        return batch.replace(token_reward=penalty if batch.token_reward is None else batch.token_reward + penalty)


@part
class Consistency(Shape):
    r"""A bonus for right answers that follow from the reasoning before them, :math:`R \leftarrow R + c\,[right]\,k`.

    k is the column ``consistency``: 1 where a judge finds that they agree, 0 where it does not (-1 in the released
    code). Without such a judge nothing changes. Source: StableReinforce, arXiv:2505.02835, section 3.
    """

    coef: Finite = 0.5
    """c."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def __call__(self, batch: Batch) -> Batch:
        if batch.consistency is None:
            return batch
        return batch.replace(
            reward=batch.reward + self.coef * (batch.correct > 0.5).to(batch.reward) * batch.consistency
        )
