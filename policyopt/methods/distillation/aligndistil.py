"""AlignDistil."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.distillation.gkd import gkd
from policyopt.parts.divergence import DistributionLoss, ExtrapolatedKL
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(parent=gkd, arxiv="2503.02832", code="songmzhang/AlignDistil", confidence="code")
def aligndistil(
    beta: float = 0.1,
    alpha: float = 15.0,
    floor: float = 1e-3,
    base: Literal["teacher", "reference"] = "teacher",
    student_share: float = 1.0,
    group_size: int = 1,
) -> Recipe:
    r"""Distil from beyond the teacher: its logits, extrapolated away from a worse model, further where the two disagree.

    .. math:: L = \frac1N\sum_i\frac1{|y_i|}\sum_t\frac{\beta}{w_{i,t}}KL\big(\pi_\theta\|\mathrm{softmax}(z^*_{i,t})\big),\qquad
              z^* = z_+ + w\,(z_+ - z_-),\qquad w_{i,t} = \alpha\,\|\pi_+ - \pi_-\|_1 + w_0

    :math:`\pi_+` is the teacher (``--teacher``; in the paper a DPO model), :math:`\pi_-` the reference (in the paper a DPO
    model trained on swapped pairs); w_0 = ``floor``. ``base="reference"`` with alpha 0 and floor
    :math:`\beta_1/\beta_2` is theorem 1: RLHF with the reward that a DPO model implies, token by token. Source:
    arXiv:2503.02832 and the authors' code, which does not halve the distance; alpha 15 is theirs on the student's own
    samples, 10 on given responses (``student_share=0``). Our reading: the start policy stands for the reverse DPO model.
    """
    return gkd(student_share=student_share, group_size=group_size).replace(
        regularizers=(DistributionLoss(coef=beta, of=ExtrapolatedKL(alpha=alpha, floor=floor, base=base)),)
    )
