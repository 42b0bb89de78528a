"""A KL penalty in the reward."""

from __future__ import annotations

from policyopt.part import NonNegative, Shape, part
from policyopt.parts.regularizer.kl import Estimator, Target, kl_estimate
from policyopt.rows import Batch, masked
from policyopt.schema import member


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
    def needs(self) -> frozenset[str]:
        """The target's log-probabilities."""
        return frozenset({member("logp_of", self.target)})

    def __call__(self, batch: Batch) -> Batch:
        estimate = kl_estimate(batch.old_logp, batch.logp_of(self.target), self.estimator)
        penalty = -self.coef * masked(estimate, batch.mask)
        return batch.replace(token_reward=penalty if batch.token_reward is None else batch.token_reward + penalty)
