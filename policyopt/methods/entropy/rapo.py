"""RAPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, NonNegative, Positive, Regularizer, Statistic, part
from policyopt.parts import EntropyBonus
from policyopt.parts.statistic.tempered import tempered_logp
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import BOUND, Batch


@part
class RewardTempered(Statistic):
    r"""Log-probability of the sampled token under a reference that is flatter where the reward is low.

    .. math:: \hat\pi_{ref}(v) \propto \pi_{ref}(v)^{\phi(R_i)},\qquad
              \phi(R) = \phi_{min} + (1-\phi_{min})\,\mathrm{clip}(R, 0, 1)

    R_i is the reward of the row when the batch is annotated. Source: RAPO, arXiv:2510.03865 (from third-party summaries).
    Our reading: phi is only said to rise into [0, 1]; the power is taken token by token, where it has a normaliser.
    """

    floor: Fraction = 0.5
    """phi_min: the power at reward 0; 1 leaves the reference as it is, 0 makes it uniform."""

    roles: ClassVar[frozenset[str]] = frozenset({"reference"})
    columns: ClassVar[tuple[str, ...]] = ("reward",)

    def power(self, reward: Tensor) -> Tensor:
        """phi of a reward, same shape."""
        return self.floor + (1 - self.floor) * reward.clamp(0, 1)

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return tempered_logp(others["reference"], target, self.power(others["reward"]).to(logits))


@part
class ForwardKL(Regularizer):
    r"""A penalty :math:`\alpha\,(\rho\log\rho - \rho + 1)`, :math:`\rho = \hat\pi_{ref}/\pi_\theta` at the sampled token.

    Never negative, 0 where the two agree, and unbiased for :math:`KL(\hat\pi_{ref}\|\pi_\theta)` on-policy. Its gradient
    in log pi is :math:`-\alpha\rho\log\rho`: it pulls up what the reference finds likelier, and lets go of what the
    reference finds impossible. Source: RAPO, arXiv:2510.03865 (from third-party summaries).
    """

    coef: NonNegative = 0.01
    """alpha."""
    target: Statistic = RewardTempered()
    """Log-probability of the sampled token under the reference, taken when the batch is annotated."""
    limit: Positive | None = None
    """Largest rho that still has a gradient; None for e^20, beyond which numbers would overflow."""

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return (self.target,)

    def estimate(self, batch: Batch) -> Tensor:
        """The KL at each token, [N, T]."""
        log_ratio = (batch.fixed(self.target) - batch.logp).clamp(
            max=BOUND if self.limit is None else math.log(self.limit)
        )
        return log_ratio.exp() * (log_ratio - 1) + 1

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * self.estimate(batch)


@method(
    parent=grpo,
    arxiv="2510.03865",
    confidence="secondary",
    claim=Claim(
        "A forward KL leaves new ground free: more is solved within several attempts than with the usual reverse KL.",
        "many-answers",
        (Effect("pass@4", "higher", 0.01),),
    ),
)
def rapo(
    alpha: float = 0.01,
    beta: float = 0.001,
    phi_min: float = 0.5,
    limit: float | None = None,
    low: float | None = 0.2,
    high: float | None = 0.2,
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO with a forward KL to the reference, which leaves new ground free, and a reference flatter where answers fail.

    .. math:: L = L_{GRPO} + \alpha\,\overline{\rho\log\rho - \rho + 1} - \beta\,\overline{H},\qquad
              \rho = \hat\pi_{ref}/\pi_\theta,\quad \hat\pi_{ref} \propto \pi_{ref}^{\phi(R_i)}

    phi rises from ``phi_min`` at reward 0 to 1 at reward 1; with alpha = beta = 0 it is GRPO without KL. ``limit`` bounds
    rho, whose pull has no bound of its own. Source: two third-party summaries that agree on the formulas; phi, alpha
    and beta are not established, the defaults are ours. Our reading: the power is taken per token, both terms are
    aggregated like the surrogate.
    """
    terms = (ForwardKL(alpha, RewardTempered(phi_min), limit), EntropyBonus(coef=beta))
    return grpo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        regularizers=tuple(term for term in terms if term.coef)
    )
