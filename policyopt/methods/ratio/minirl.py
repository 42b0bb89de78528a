"""MiniRL."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import ClipMask, Normalise, RatioTimesAdvantage, SamplerMismatch
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(
    parent=reinforce,
    arxiv="2512.01374",
    confidence="secondary",
    claim=Claim(
        "The objective of tokens holds while ratios stay near 1: with the whole weight and a mask, stale data do "
        "not make it collapse.",
        "stale",
        (Effect("drop", "lower", 0.01), Effect("accuracy", "higher", 0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def minirl(
    low: float | None = 0.2,
    high: float | None = 0.27,
    mismatch_cap: float | None = 5.0,
    std_normalize: bool = False,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""REINFORCE with the whole importance weight, sampler to trainer and trainer to policy, and a mask that looks at
    the second alone.

    .. math:: L = -\frac1N\sum_i\sum_t M_{i,t}\,\min\Big(\frac{\pi_{old}}{\mu_{old}}, C\Big)_{i,t}\,r_{i,t}\,A_i,\qquad
              A_i = R_i - \mathrm{mean},\qquad r = \frac{\pi_\theta}{\pi_{old}}

    mu_old is what the sampler said of a token, pi_old what the trainer says at the same weights; C =
    ``mismatch_cap``, None for no cap. M is 0 where PPO's minimum would silence the token (A > 0 and r > 1 + ``high``, or
    A < 0 and r < 1 - ``low``). Token sums, no length normalisation: the objective is the first-order form of the
    reward of whole responses. Sources: arXiv:2512.01374 as reported by others; C from memory. Our reading: the cap is
    on pi_old/mu_old, and no std (``std_normalize``). Routing replay for mixtures of experts is a choice of the source, off
    here: ``routing_replay`` "trainer" is R2, "sampler" R3.
    """
    return reinforce(baseline="group-mean", group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group" if std_normalize else "none"),
        surrogate=RatioTimesAdvantage(),
        weight=(ClipMask(low=low, high=high), SamplerMismatch(mode="token_truncate", high=mismatch_cap)),
        update=Update(minibatches=minibatches),
    )
