"""KL-Cov."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Unit, part
from policyopt.parts import Proximal, RatioTimesAdvantage, Selector, TokenMean
from policyopt.parts.select.covariance import covariance, largest, quota
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class TopCovariance(Selector):
    r"""The :math:`\max(1, \lfloor q\,n \rfloor)` of the n tokens of the batch with the largest :func:`covariance`.

    Source: KL-Cov, arXiv:2505.22617.
    """

    fraction: Fraction = 2e-3
    """q; 0 picks none."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        return largest(covariance(batch), batch.mask.bool(), quota(self.fraction, batch))


@method(
    parent=grpo,
    arxiv="2505.22617",
    code="PRIME-RL/Entropy-Mechanism-of-RL",
    confidence="code",
    claim=Claim(
        "A few tokens drain the entropy: with a penalty on those it stays up, and as many answers are right.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.01)),
        both={"recipe.update.minibatches": 8},
        theirs={"kl-coef": 0.0},
    ),
)
def kl_cov(kl_frac: float = 2e-3, kl_coef: float = 1.0, minibatches: int = 8, group_size: int = 8) -> Recipe:
    r"""Keep the entropy up by a penalty on the few tokens that drain it.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\big(-r_{i,t}A_i + \beta\,|\log r_{i,t}|\,1[(i,t)\in top]\big)

    top holds the ``kl_frac`` of all tokens with the largest :math:`(A-\bar A)(\log\pi-\mathrm{mean}\log\pi)`, at least one; beta =
    ``kl_coef``. Nothing is clipped, and there is no reference: the penalty acts from the second update on a batch on.
    Defaults from the authors' scripts for 7B. Our reading: the absolute log-ratio of the code, where the paper writes
    KL(old || new); means over the mini-batch (the code: micro-batch).
    """
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        surrogate=RatioTimesAdvantage(),
        regularizers=(Proximal(coef=kl_coef, deviation="abs", tokens=TopCovariance(fraction=kl_frac)),),
        aggregate=TokenMean(),
        update=Update(minibatches=minibatches),
    )
