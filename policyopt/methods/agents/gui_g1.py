"""GUI-G1."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.part import Label, Unit, part
from policyopt.parts import RowWeight, Weighed, WeightedSum
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch


@part
class ByTargetSize(RowWeight):
    r"""Rows count more where the target is small, and the prompt hard.

    .. math:: w_i = \frac{u_i}{\mathrm{mean}\,u},\qquad
              u_i = \mathrm{clip}\Big(\frac{a_i^{-1}}{\mathrm{mean}\,a^{-1}}, \frac1c, c\Big)

    a is the share of the picture that the target takes, means run over the rows of the batch; w is 1 where the judge says
    nothing of it. A clipped surrogate grows in proportion to its advantage, so this is the authors' weight on the loss of a
    prompt. Source: GUI-G1, arXiv:2505.15810, where w is a number of the data set that falls with that share; how it falls is
    not told. The form here is ours.
    """

    component: Label = "area"
    """What the judge calls the share."""
    bound: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3.0
    """c."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        if self.component not in batch.components():
            return torch.ones_like(batch.reward)
        inverse = 1 / batch.component(self.component).clamp(min=1e-6)
        bounded = (inverse / inverse.mean()).clamp(1 / self.bound, self.bound)
        return bounded / bounded.mean()


@method(
    parent=dr_grpo,
    arxiv="2505.15810",
    code="Yuqi-Zhou/GUI-G1",
    confidence="code",
    claim=Claim(
        "A reward for hits alone leaves the size of boxes open; with overlap and size beside it they fit, and hit as often.",
        "screen",
        (Effect("component/iou", "higher", 0.02), Effect("component/hit", "higher", -0.03)),
        against="gui-g1",
        theirs={"iou": 0.0, "size": 0.0},
    ),
)
def gui_g1(
    iou: float = 0.25, size: float = 0.125, loss_norm: float | None = 64.0, bound: float = 3.0, low: float | None = 0.2,
    high: float | None = 0.2, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Dr. GRPO with a reward for boxes of which each term holds the others back, and more weight on prompts with small
    targets.

    .. math:: R = R_{hit} + \alpha R_{IoU} + \beta R_{box},\qquad
              L = \frac1N\sum_i \frac{w_{q(i)}}{L_{const}}\sum_t \max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_i),\qquad
              A_i = R_i - \mathrm{mean}

    The judge, or the world, gives the parts ``hit``, ``iou``, ``size`` (how near the four sides are) and ``area`` (the share of
    the picture that the target takes, for :class:`ByTargetSize`): for data with boxes ``--judge
    policyopt.judging.boxes:judge_box``; one without parts keeps its score. alpha = ``iou``, beta = ``size``: the second is
    above 0 even for a miss and no reward by itself. With equal weights this is Dr. GRPO, L_const = ``loss_norm`` tokens.
    Source: arXiv:2505.15810 and the authors' code (Yuqi-Zhou/GUI-G1): 64 tokens, temperature 0.9; no thought before the box;
    prompts that are always or never solved were taken out beforehand (``--recipe.filter`` with MixedOutcomes does it as they
    come).
    """
    parts = (("hit", 1.0), ("iou", iou), ("size", size))
    parent = dr_grpo(low, high, loss_norm=loss_norm, group_size=group_size)
    return parent.replace(
        shape=(WeightedSum(weights=parts),),
        advantage=Weighed(of=require(parent.advantage), by=ByTargetSize(bound=bound)),
    )
