"""TRPA."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.contrast.copg import copg
from policyopt.part import Positive, part
from policyopt.parts import Correctness, Logistic, Pairs, Proximal, RowScore
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Anisotropic(Logistic):
    r"""A preference that counts for more where the better response is right: :math:`-\log\sigma(\kappa z)` there. Source: TRPA,
    arXiv:2504.04524."""

    anisotropy: Positive = 2.5
    """kappa."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})

    def gap(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        z = super().gap(score, batch, better, worse)
        return torch.where(batch.correct[better] > 0.5, self.anisotropy * z, z)


@method(
    parent=copg,
    arxiv="2504.04524",
    code="XueruiSu/Trust-Region-Preference-Approximation",
    confidence="code",
    claim=Claim(
        "Preferences made by rule learn what rewards teach, and more stably.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"group-size": 8},
        theirs={"kl-coef": 0.0},
    ),
)
def trpa(
    beta: float = 0.1, anisotropy: float = 2.5, tr_kl_coef: float = 1e-3, minibatches: int = 1, group_size: int = 16
) -> Recipe:
    r"""Trust Region Preference Approximation: every pair of unlike answers to a prompt as a preference, made by rule,
    with a KL to the policy that sampled.

    .. math:: L = -\frac{1}{|P|}\sum_{(i,j)\in P}\log\sigma\big(\beta\kappa_i(l_i - l_j)\big) + c\,\mathrm{mean}_{tok}(e^{-d} - 1 + d),
              \qquad l_i = \frac{1}{|y_i|}\sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t}),\quad d = \log\frac{\pi_\theta}{\pi_{old}}

    P holds the pairs where i has the better level than j: right, then wrong but in the form asked for, then neither. No
    reward has a size, so none can be hacked. kappa = ``anisotropy`` where i is right, else 1; c = ``tr_kl_coef``.
    Defaults from the paper. With two responses, kappa 1 and c 0 it is DPO with mean log-ratios. Our reading: a batch
    without pairs has no preference loss (the code takes the sign of each level instead).
    """
    return copg(group_size=group_size).replace(
        shape=(Correctness(right=2.0, wrong=0.0, formatted=1.0),),
        surrogate=Pairs(
            score=RowScore(against="reference", reduce="mean"), link=Anisotropic(beta=beta, anisotropy=anisotropy)
        ),
        regularizers=(Proximal(coef=tr_kl_coef, deviation="k3", mean=True),),
        update=Update(minibatches=minibatches),
    )
