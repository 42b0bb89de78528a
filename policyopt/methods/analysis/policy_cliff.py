"""The policy cliff."""

from __future__ import annotations

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.parts import EntropyBonus
from policyopt.parts.probe import RewardCliff
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=dr_grpo, arxiv="2507.20150", confidence="abstract")
def policy_cliff(
    alpha: float = 0.01,
    epsilon: float = 1e-3,
    low: float | None = 0.2,
    high: float | None = 0.2,
    loss_norm: float | None = None,
    group_size: int = 8,
) -> Recipe:
    r"""Policy optimisation with its two guards against the cliff: no division by the spread of rewards, and entropy.

    .. math:: \pi_\alpha = \mathrm{softmax}(Q/\alpha),\qquad \|\pi_\alpha(Q) - \pi_\alpha(Q')\|_1 \le \|Q - Q'\|_\infty / \alpha,\qquad
              0 \le \max Q - E_{\pi_\alpha}[Q] \le \alpha\log n

    Where several answers tie, the best policy jumps at the smallest change of the reward; an entropy term (alpha) makes
    the map from rewards to policies continuous, at the price of that much reward. Group-normalised advantages repeat the
    cliff: an epsilon between equal rewards becomes an advantage of full size; mean-centred ones (Dr. GRPO) stay small.
    Both are measured at evaluations (:class:`~policyopt.parts.probe.RewardCliff`); ``--task ties:EPSILON`` is a testbed
    whose questions have several right answers, one of them worth epsilon more. The paper is theory, known here from its
    abstract: the bounds are elementary, the recipe is ours.
    """
    return dr_grpo(low, high, loss_norm, group_size=group_size).replace(
        regularizers=(EntropyBonus(coef=alpha),),
        probes=(RewardCliff(epsilon=epsilon, alpha=alpha),),
    )
