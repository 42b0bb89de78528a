"""Reg-GRPO."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, Positive, Unit, part
from policyopt.parts import Contrast, RowScore
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

# Regression ----------------------------------------------------------------------------------------------------------


@part
class AdvantageRegression(Contrast):
    r"""The advantage, predicted by how the policy has moved, and the squared error of the prediction.

    .. math:: (A_i - \hat A_i)^2,\qquad \hat A_i = \frac{s_i - \mathrm{mean}(s)}{\max(\mathrm{std}(s), \sigma) + \epsilon}

    Mean and std run over the responses to one prompt, with their gradients: only the direction of the scores is fitted,
    not their size. Below ``floor`` the scale is that constant. Source: Reg-GRPO, arXiv:2506.07464. Our reading: ddof 1,
    and the floor, without which the first step on a batch divides by eps.
    """

    score: RowScore = RowScore(against="old")
    """The number that stands for a response."""
    eps: NonNegative = 1e-6
    """epsilon."""
    floor: Positive = 1e-2
    """sigma, in nats per response."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def predicted(self, batch: Batch) -> Tensor:
        """The predicted advantage of each row, [N]."""
        return whiten(self.score(batch), batch.group, ddof=1, eps=self.eps, least=self.floor**2)

    def rows(self, batch: Batch) -> Tensor:
        return (row_credit(batch) - self.predicted(batch)) ** 2


@method(
    parent=grpo,
    arxiv="2506.07464",
    code="mlvlab/DeepVideoR1",
    confidence="paper",
    claim=Claim(
        "A regression to the advantage needs neither clip nor minimum, and learns more than GRPO does with them off policy.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        ours={"epochs": 1, "kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def reg_grpo(kl_coef: float = 0.04, floor: float = 1e-2, epochs: int = 2, group_size: int = 8) -> Recipe:
    r"""Regressive GRPO: the log-ratio of a response, normalised in its group, is fitted to the advantage.

    .. math:: L = \frac1N\sum_i(A_i - \hat A_i)^2 + \beta\,k3,\qquad \hat A_i = \frac{\rho_i - \mathrm{mean}(\rho)}{\mathrm{std}(\rho) + \epsilon},\quad
              \rho_i = \sum_t\log\frac{\pi_\theta}{\pi_{old}}(y_{i,t})

    The optimum under a KL has log-ratios that are affine in the rewards; normalising both removes what is unknown. No
    clip and no importance weight; the gradient runs through mean and std of rho. Where std(rho) is below ``floor`` the
    scale is that constant, so the first step on a batch is a policy gradient. beta = ``kl_coef``. Source: eq. 8 of the
    paper, as far as its text could be read. Our reading: the floor, ddof 1, sums over tokens; beta is GRPO's. Hints for
    hard and noise for easy prompts belong to a curriculum, whose
    difficulty is the mean over earlier prompts of their mean rewards minus that of the prompt.
    """
    return grpo(kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        surrogate=AdvantageRegression(floor=floor)
    )
