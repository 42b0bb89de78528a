"""P3O."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import NonNegative, part
from policyopt.parts import AllPairs, Link, Normalise, Pairs, RowScore, SeqMeanTokenMean
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, held


@part
class ClippedPair(Link):
    r"""PPO's minimum for a pair whose advantage is the difference, :math:`d = A_1 - A_2`; the scores are log-ratios.

    .. math:: \text{separate:}\quad -\tfrac12\big[sg(\rho_2)\min(d\rho_1, d\,\mathrm{clip}(\rho_1)) + sg(\rho_1)\min(-d\rho_2, -d\,\mathrm{clip}(\rho_2))\big]

    .. math:: \text{joint:}\quad -\tfrac12\,sg(\rho_1\rho_2)\min(d x, d\,\mathrm{clip}(x, -\epsilon, \epsilon)),\qquad x = \log\rho_1 - \log\rho_2

    Both have the gradient :math:`-\frac d2\nabla\log\frac{\pi(y_1)}{\pi(y_2)}` on-policy. Separately, one side may be clipped while the
    other still learns. Source: P3O, arXiv:2310.00212. Our reading: where the gradient stops, and the factor 1/2.
    """

    clip: NonNegative | None = 0.2
    """epsilon; None clips nothing."""
    joint: bool = False
    """Clip the difference of the log-ratios, rather than each ratio."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        credit, bound = row_credit(batch), math.inf if self.clip is None else self.clip
        gain = credit[better] - credit[worse]  # never negative: the minimum is reached from above
        log1, log2 = (held(score[i]) for i in (better, worse))
        one, two = log1.exp(), log2.exp()
        if self.joint:
            return -0.5 * (one * two).detach() * gain * (log1 - log2).clamp(max=bound)
        up, down = one.clamp(max=1 + bound), two.clamp(min=1 - bound)
        return -0.5 * gain * (two.detach() * up - one.detach() * down)


@method(
    parent=ppo,
    arxiv="2310.00212",
    confidence="recalled",
    claim=Claim(
        "Pairs of responses have a better trade-off of reward and KL than PPO: as many right answers, nearer to the reference.",
        "number_sorting",
        (Effect("kl/ref", "lower", 0.01), Effect("accuracy", "higher", -0.01)),
        both={"epochs": 2},
    ),
)
def p3o(
    variant: Literal["separate", "joint"] = "separate",
    clip: float | None = 0.2,
    kl_coef: float = 0.05,
    epochs: int = 4,
    group_size: int = 2,
) -> Recipe:
    r"""Pairwise Proximal Policy Optimization: the advantage of a response is the difference of rewards to another one.

    .. math:: L = -\mathrm{mean}_{pairs}\tfrac12\big[sg(\rho_2)\min(d\rho_1, d\,\mathrm{clip}(\rho_1)) + sg(\rho_1)\min(-d\rho_2, -d\,\mathrm{clip}(\rho_2))\big],
              \qquad \rho_i = \prod_t r_{i,t},\quad d = R'_1 - R'_2

    R' is the reward minus ``kl_coef`` times the log-ratio of the old policy to the reference. ``joint`` clips
    :math:`x = \log\rho_1 - \log\rho_2` to plus and minus epsilon instead: :math:`-\frac12 sg(\rho_1\rho_2)\min(dx, d\,\mathrm{clip}(x))`. A
    number added to all rewards of a prompt changes nothing; there is no critic. On-policy with two responses the
    gradient is RLOO's. From general knowledge of the paper; epsilon 0.2 and beta 0.05 are ours. Our reading: where the
    gradient stops, the factor 1/2, and all pairs of larger groups.
    """
    return ppo(kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        surrogate=Pairs(
            score=RowScore(against="old"),
            link=ClippedPair(clip=clip, joint=variant == "joint"),
            choose=AllPairs(ties=True),
        ),
        aggregate=SeqMeanTokenMean(),
        critic=None,
    )
