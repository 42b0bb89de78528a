"""Lp-Reg."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import TokenMean
from policyopt.parts.shield import ProxyShield
from policyopt.parts.statistic import MinPLogProb
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(parent=grpo, arxiv="2510.03222", code="CarlanLark/Lp-Reg-dev", confidence="code")
def lp_reg(
    beta: float = 1.0,
    min_p: float = 0.02,
    filter: Literal["minp", "fixed"] = "minp",
    neg_fraction: float = 0.01,
    pos_fraction: float = 0.0,
    low: float | None = 1.0,
    high: float | None = 9.0,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO that protects rare tokens of wrong answers, unless the policy itself rules them out as noise.

    .. math:: \ell = -A\,r + \beta\,(e^d - d - 1),\ d = \log\pi_{px} - \log\pi_\theta\ \text{on shielded tokens},\qquad
              \ell = \max(-Ar, -A\,\mathrm{clip}(r))\ \text{elsewhere},\qquad L = \overline{\ell}

    pi_px is the old policy without the tokens below ``min_p`` times the largest probability (``fixed``: below min_p).
    Shielded are the ``neg_fraction`` least likely tokens of negative advantage (``pos_fraction`` of positive), as far
    as the policy finds them less likely than pi_px does. Token-mean, no KL to a reference. Defaults from the authors'
    scripts: on-policy, so that the clip of 1 and 9 is off. Our reading: the share is of the mini-batch, where the code
    ranks inside a micro-batch.
    """
    proxy = MinPLogProb(min_p, relative=filter == "minp")
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=ProxyShield(low, high, coef=beta, negative=neg_fraction, positive=pos_fraction, proxy=proxy),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
