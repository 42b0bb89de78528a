"""GHPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Correctness, Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Redraw


@method(
    parent=grpo,
    arxiv="2507.10628",
    code="hkgc-1/GHPO",
    confidence="code",
    claim=Claim(
        "Drawn again with a part of the solution, groups that fail as a whole teach what GRPO cannot learn.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
    ),
)
def ghpo(
    hints: tuple[float, ...] = (0.25, 0.5, 0.75),
    format_weight: float = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Guided Hybrid Policy Optimization: a group without a right answer is drawn anew from a quarter of the solution,
    then from a half, then from three quarters.

    .. math:: \omega^* = \min\{\omega_k : \exists i\; acc(o_i^{(k)}) > 0\},\qquad R_i = acc_i + w\,format_i,\qquad
              A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + 10^{-4}}

    All responses of a group have the same hint, which is context and has no gradient; a group that no hint helps keeps
    the strongest. Whether a group is solved is a matter of accuracy alone; w = ``format_weight``. Token-mean, no KL.
    Source: arXiv:2507.10628 and the authors' code. Our reading: shares of tokens, where the code counts characters; no
    cold start with a constant hint, as in the released configuration; every row keeps the context that it was drawn in.
    """
    return grpo(low, high, kl_coef=0.0).replace(
        source=Redraw(size=group_size, hints=hints),
        shape=(Correctness(right=1.0, wrong=0.0, formatted=format_weight),),
        advantage=Normalise(centre="group", scale="group", eps=1e-4),
        aggregate=TokenMean(),
    )
