"""CoPG."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.rloo import rloo
from policyopt.parts import AllPairs, Normalise, Pairs, Regress, RowScore, SeqMeanTokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


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
