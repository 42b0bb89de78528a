"""ReMax."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import KLPenalty, RolloutBaseline, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import GroupWithGreedy


@method(
    parent=reinforce,
    arxiv="2310.10505",
    code="liziniu/ReMax",
    confidence="code",
    claim=Claim(
        "A greedy response is as good a baseline as a critic is, and takes less time.",
        "number_sorting",
        (Effect("accuracy", "higher", -0.02), Effect("seconds/step", "lower", 0.02)),
        against="ppo",
        ours={"kl-coef": 0.0},
        theirs={"epochs": 1, "kl-coef": 0.0},
    ),
)
def remax(gamma: float = 1.0, kl_coef: float = 0.05, reward_clip: float | None = 5.0, group_size: int = 1) -> Recipe:
    r"""REINFORCE whose baseline is the reward of one greedy response to the same prompt.

    .. math:: A_{i,t} = \gamma^{|y_i|-t}\,\mathrm{clip}(R_i - B_i, \pm c) - \beta\,\log\frac{\pi_{old}}{\pi_{ref}}(y_{i,t}),\qquad
              L = -\frac{1}{\sum_i |y_i|}\sum_{i,t} A_{i,t}\log\pi_\theta(y_{i,t})

    R_i reward of the sampled response, B_i of the greedy one, c = ``reward_clip``, beta = ``kl_coef``. A prompt costs
    one more decoding and no value model. Defaults from the authors' scripts, except gamma: 1 is the paper's, 0.99 the
    scripts'. Our reading: the KL of a token counts on that token only, as in the code.
    """
    return reinforce(baseline="none").replace(
        source=GroupWithGreedy(size=group_size),
        shape=(KLPenalty(coef=kl_coef),) if kl_coef else (),
        advantage=RolloutBaseline(gamma=gamma, clip=reward_clip),
        aggregate=TokenMean(),
    )
