"""CISPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import Normalise, TokenMean, TruncatedRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method


@method(
    parent=reinforce,
    arxiv="2506.13585",
    confidence="secondary",
    claim=Claim(
        "Off policy a clipped weight teaches more than a clipped update, which silences the tokens that moved.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def cispo(low: float | None = None, high: float | None = 0.28, epochs: int = 1, group_size: int = 8) -> Recipe:
    r"""Clip the importance weight, not the update: every token keeps a gradient, with a truncated and detached ratio
    as its weight.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t} sg\big[\mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)\big]\,A_i\log\pi_\theta(y_{i,t})

    PPO's clip silences rare, decisive tokens after the first off-policy step; this does not. ``low=None`` is no lower
    bound. Source: MiniMax-M1, arXiv:2506.13585, eq. 4 and 5. The report tunes only the upper bound and gives no
    number: 0.28 is ours (DAPO's). Our reading: the bound is 1 + high, as in verl and open-instruct; TRL takes an
    absolute cap.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="group"),
        weight=(TruncatedRatio(low=low, high=high),),
        aggregate=TokenMean(),
        update=Update(epochs=epochs),
    )
