"""LUSPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.ratio.gspo import gspo
from policyopt.parts import SeqMeanTokenSum
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=gspo,
    arxiv="2602.05261",
    code="murphy4122/LUSPO",
    confidence="secondary",
    claim=Claim(
        "GSPO wears long right answers down; with each response weighed by its length they stay, and more are right.",
        "biased-length",
        (Effect("length/mean", "higher", 0.5), Effect("accuracy", "higher", 0.01)),
    ),
)
def luspo(low: float | None = 2e-3, high: float | None = 2.5e-3, group_size: int = 8) -> Recipe:
    r"""Length-Unbiased Sequence Policy Optimization: GSPO with each response's loss multiplied by its length.

    .. math:: L = \frac1N\sum_i |y_i|\max(-s_i A_i, -\mathrm{clip}(s_i, 1-\epsilon_l, 1+\epsilon_h)A_i)

    In GSPO the gradient of a token shrinks with the length of its response, because the ratio is a mean; the factor
    cancels that: an unclipped token has the gradient :math:`-s_i A_i / N` whatever the length. Defaults from TRL's
    recipe (section 5.1 of the paper).
    """
    return gspo(low, high, group_size=group_size).replace(aggregate=SeqMeanTokenSum())
