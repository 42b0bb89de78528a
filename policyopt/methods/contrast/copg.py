"""CoPG."""

from __future__ import annotations

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.rloo import rloo
from policyopt.part import Positive, part
from policyopt.parts import AllPairs, Link, Normalise, Pairs, RowScore, SeqMeanTokenMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Regress(Link):
    r"""Differences of advantages, fitted by differences of scores.

    .. math:: -\big(\Delta A - \tfrac\beta2\Delta s\big)\Delta s \;=\; \frac{1}{2\beta}(\Delta A - \beta\Delta s)^2 - \frac{\Delta A^2}{2\beta}

    Both forms have the gradient :math:`-(\Delta A - \beta\Delta s)\nabla\Delta s`; the first is the value unless ``square`` (the
    squared term alone). It vanishes where the policy is the reference times :math:`e^{R/\beta}`, whoever sampled. Source:
    CoPG, arXiv:2406.19185.
    """

    beta: Positive = 0.1
    """Weight of the regularisation, in units of reward per nat."""
    square: bool = False
    """Which form is the value."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        credit = row_credit(batch)
        gain, margin = credit[better] - credit[worse], score[better] - score[worse]
        if self.square:
            return (gain - self.beta * margin) ** 2 / (2 * self.beta)
        return -(gain - self.beta / 2 * margin) * margin


@method(
    parent=rloo,
    arxiv="2406.19185",
    confidence="recalled",
    claim=Claim(
        "On responses of an older policy it goes for the same regularised optimum, where RLOO needs fresh ones.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        theirs={"kl-coef": 0.1},
    ),
)
def copg(beta: float = 0.1, group_size: int = 4) -> Recipe:
    r"""Contrastive Policy Gradient: each response is reinforced by how much its regularised reward exceeds that of
    another response to the prompt.

    .. math:: L = -\frac{1}{|P|}\sum_{(i,j)\in P}\Big(R_i - R_j - \tfrac\beta2(l_i - l_j)\Big)(l_i - l_j),\qquad
              l_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t})

    P holds all pairs of responses to the same prompt. The minimum is the policy proportional to
    :math:`\pi_{ref}e^{R/\beta}`, whoever sampled, without importance weights. On-policy with two responses and at the
    reference the gradient is twice RLOO's. From general knowledge of the paper; beta has no published default, 0.1 is
    ours. Our reading: sums over tokens, the mean over all pairs of the mini-batch.
    """
    return rloo(kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        surrogate=Pairs(score=RowScore(against="reference"), link=Regress(beta=beta), choose=AllPairs(ties=True)),
        aggregate=SeqMeanTokenMean(),
    )
