"""The two-stage constrained actor-critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Positive, RoleName, Surrogate, part
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import BOUND, Batch
from policyopt.schema import member


@part
class ConstrainedCloning(Surrogate):
    r"""The log-likelihood of what was drawn, weighed as if it came from several frozen policies, tilted by the advantage.

    .. math:: -w_{i,t}\log\pi_\theta(y_{i,t}),\qquad
              w_{i,t} = \prod_k\Big(\frac{\pi_k(y_{i,t})}{\pi_{old}(y_{i,t})}\Big)^{\lambda_k/\Lambda}e^{A_{i,t}/\Lambda},\qquad \Lambda = \sum_k\lambda_k

    w is constant. What any of the policies forbids has weight 0. In expectation it is maximal where
    :math:`\pi\propto\prod_k\pi_k^{\lambda_k/\Lambda}e^{A/\Lambda}`, the optimum of the mean advantage less :math:`\sum_k\lambda_k KL(\pi\|\pi_k)`:
    RLHF with the geometric mean of the policies as reference and beta = Lambda. Reads no ratio. Source: arXiv:2302.01680. Our reading: every token is
    an action; the exponent of w is at most 20.
    """

    roles: Annotated[tuple[RoleName, ...], Field(min_length=1)] = ("reference",)
    """The frozen policies, by their roles."""
    lam: tuple[Positive, ...] = (1.0,)
    """lambda of each."""

    def __post_init__(self) -> None:
        if len(self.lam) != len(self.roles):
            raise ValueError(
                f"lam has {len(self.lam)} numbers, and there are {len(self.roles)} policies ({', '.join(self.roles)}): give one for each"
            )
        if len(set(self.roles)) < len(self.roles):
            raise ValueError(f"roles names a policy twice ({', '.join(self.roles)}): add up its numbers in lam")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(member("logp_of", role) for role in self.roles)

    def weights(self, batch: Batch) -> Tensor:
        """w, [N, T]."""
        total = sum(self.lam)
        log = batch.advantage / total - batch.old_logp
        for role, lam in zip(self.roles, self.lam, strict=True):
            log = log + lam / total * batch.logp_of(role)
        return log.clamp(max=BOUND).exp()

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -self.weights(batch).detach() * batch.logp

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"cloning_weight": self.weights(batch)}


def constrained_optimum(auxiliaries: Tensor, advantage: Tensor, lam: Tensor) -> Tensor:
    r"""The policy [A] that has the most advantage [A] less :math:`\sum_k\lambda_k KL(\pi\|\pi_k)`, given the policies [K, A] and lambda [K].

    Source: arXiv:2302.01680: :math:`\pi\propto\prod_k\pi_k^{\lambda_k/\Lambda}e^{A/\Lambda}`.
    """
    total = lam.sum()
    return ((lam[:, None] * auxiliaries.log()).sum(0) / total + advantage / total).softmax(-1)


@method(
    parent=reinforce,
    arxiv="2302.01680",
    code="AIDefender/TSCAC",
    confidence="code",
    claim=Claim(
        "One policy for each lesser aim first, then the main aim close to all of them: each is kept without weighing rewards.",
        beyond="It takes policies that other rewards have trained before; the runs of a claim both begin from one start policy.",
    ),
)
def two_stage_constrained_ac(
    auxiliaries: tuple[str, ...] = ("reference",),
    lam: tuple[float, ...] = (1.0,),
    group_size: int = 8,
) -> Recipe:
    r"""Two-stage constrained actor-critic: clone what was drawn, weighed by the main advantage and by policies of other aims.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t}\mathrm{sg}\Big[\prod_k\Big(\frac{\pi_k(y_{i,t})}{\pi_{old}(y_{i,t})}\Big)^{\lambda_k/\Lambda}
              e^{A_i/\Lambda}\Big]\log\pi_\theta(y_{i,t}),\qquad \Lambda = \sum_k\lambda_k

    This is the second stage. The first one is a run of its own for each lesser aim, say ``grpo`` with a judge of safety; the policies that
    come of them are then named: ``--auxiliaries safety form --lam 1 0.5 --role safety=PATH --role form=PATH``. A is the advantage of the main
    reward in its group. Large lam (in the same proportions) gives the geometric mean of the auxiliaries, small lam is greedy in A where they
    allow it. With the policy that samples as the only one it is advantage-weighted cloning (AWAC) at temperature lam; with the start policy
    (``reference``, the default) it is that close to the start. Source: arXiv:2302.01680; the authors' code has one first-stage
    policy for a weighted sum of the signals, and an unnormalised or clipped weight. Our reading: a group's normalised reward
    where the paper learns a critic for each signal; tokens are actions.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(),
        surrogate=ConstrainedCloning(roles=tuple(auxiliaries), lam=tuple(lam)),
        aggregate=TokenMean(),
    )
