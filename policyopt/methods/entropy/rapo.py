"""RAPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import EntropyBonus
from policyopt.parts.forward_kl import ForwardKL
from policyopt.parts.statistic import RewardTempered
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=grpo, arxiv="2510.03865", confidence="secondary")
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
