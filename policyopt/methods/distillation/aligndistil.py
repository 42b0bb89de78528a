"""AlignDistil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.distillation.gkd import gkd
from policyopt.part import NonNegative, Positive, Statistic, part
from policyopt.parts import DistributionLoss
from policyopt.parts.regularizer.kl import Target
from policyopt.parts.statistic.jsd import kl_divergence
from policyopt.recipe import Recipe
from policyopt.registry import method


@part
class ExtrapolatedKL(Statistic):
    r"""The reverse KL to a target that goes on from one model to another, over how far it goes, in nats.

    .. math:: \frac1w KL(\pi_\theta\|\mathrm{softmax}(z^*)),\qquad z^* = z_{base} + w\,(z_T - z_{ref}),\qquad
              w = \alpha\,\|\mathrm{softmax}(z_T) - \mathrm{softmax}(z_{ref})\|_1 + w_0

    T is the teacher. With alpha 0, base ``reference`` and a DPO model as teacher it is, token by token, RLHF with the
    reward that the DPO model implies: :math:`w_0 = \beta_1/\beta_2`. Source: AlignDistil, arXiv:2503.02832, theorem 1,
    and the authors' code (songmzhang/AlignDistil), where the distance is not halved.
    """

    alpha: NonNegative = 10.0
    """How much further the target goes where the two models differ more."""
    floor: Positive = 1e-3
    """w_0, the least that it goes."""
    base: Target = "teacher"
    """Where it starts."""

    roles: ClassVar[frozenset[str]] = frozenset({"reference", "teacher"})

    def weight(self, others: Mapping[str, Tensor]) -> Tensor:
        """w, [M]; it lies between ``floor`` and ``floor + 2 alpha``."""
        p, q = (others[role].softmax(-1) for role in ("teacher", "reference"))
        return self.alpha * (p - q).abs().sum(-1) + self.floor

    def extrapolated(self, others: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities of the target, [M, V]."""
        step = others["teacher"] - others["reference"]
        return (others[self.base] + self.weight(others)[:, None] * step).log_softmax(-1)

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        return kl_divergence(logits.log_softmax(-1), self.extrapolated(others)) / self.weight(others)


@method(
    parent=gkd,
    arxiv="2503.02832",
    code="songmzhang/AlignDistil",
    confidence="code",
    claim=Claim(
        "A target beyond the teacher, further where it and a worse model disagree, is reached sooner than the "
        "teacher is by distillation.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        theirs={"student-share": 1.0},
    ),
)
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
