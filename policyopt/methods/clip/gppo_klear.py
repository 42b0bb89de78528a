"""GPPO, of Klear-Reasoner."""

from __future__ import annotations

from policyopt.methods.group.grpo import grpo
from policyopt.parts import GPPOClip, Likelihood, NotTruncated, TokenMean
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2508.07629", code="suu990901/KlearReasoner", confidence="code")
def gppo_klear(
    low: float | None = 0.2,
    high: float | None = 0.28,
    beta_low: float = 1.0,
    beta_high: float = 1.0,
    dual_clip: float | None = 10.0,
    sft_coef: float = 0.1,
    overlong_filter: bool = False,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Gradient-Preserving clipping: a clipped token keeps the gradient that it has at the bound, and right answers are
    imitated a little.

    .. math:: \ell = -\beta_h\,hi\,\tfrac{r}{sg[r]}A\ (A > 0, r > hi),\quad -\beta_l\,lo\,\tfrac{r}{sg[r]}A\ (A < 0, r < lo),\quad -rA \text{ elsewhere},\qquad
              L = \frac1{\sum_i|y_i|}\sum_{i,t}\ell_{i,t} - \alpha\,\mathrm{mean}_{right}\log\pi_\theta

    lo, hi = 1 - ``low``, 1 + ``high``. The loss is PPO's in value (for beta 1); its gradient is bounded and never zero,
    but for bad tokens beyond ``dual_clip``. alpha = ``sft_coef`` weighs the mean negative log-likelihood over the
    tokens of right answers. ``overlong_filter`` leaves truncated responses out, as the authors do below a budget of
    32K. No KL. Defaults from the authors' script. Our reading: which beta is which side; both are 1 in practice.
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        filter=(NotTruncated(),) if overlong_filter else (),
        surrogate=GPPOClip(low=low, high=high, beta_low=beta_low, beta_high=beta_high, dual=dual_clip),
        aggregate=TokenMean(),
        regularizers=(Likelihood(coef=sft_coef, rows="correct"),) if sft_coef else (),
        update=Update(minibatches=minibatches),
    )
