"""Reg-GRPO."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import AdvantageRegression
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=grpo, arxiv="2506.07464", code="mlvlab/DeepVideoR1", confidence="paper")
def reg_grpo(kl_coef: float = 0.04, floor: float = 1e-2, epochs: int = 2, group_size: int = 8) -> Recipe:
    r"""Regressive GRPO: the log-ratio of a response, normalised in its group, is fitted to the advantage.

    .. math:: L = \frac1N\sum_i(A_i - \hat A_i)^2 + \beta\,k3,\qquad \hat A_i = \frac{\rho_i - \mathrm{mean}(\rho)}{\mathrm{std}(\rho) + \epsilon},\quad
              \rho_i = \sum_t\log\frac{\pi_\theta}{\pi_{old}}(y_{i,t})

    The optimum under a KL has log-ratios that are affine in the rewards; normalising both removes what is unknown. No
    clip and no importance weight; the gradient runs through mean and std of rho. Where std(rho) is below ``floor`` the
    scale is that constant, so the first step on a batch is a policy gradient. beta = ``kl_coef``. Source: eq. 8 of the
    paper, as far as its text could be read. Our reading: the floor, ddof 1, sums over tokens; beta is GRPO's. Hints for
    hard and noise for easy prompts belong to the curriculum; how hard a prompt is:
    :func:`policyopt.parts.advantage.difficulty`.
    """
    return grpo(kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        surrogate=AdvantageRegression(floor=floor)
    )
