"""REINFORCE++."""

from __future__ import annotations

from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.parts import KLPenalty, Normalise
from policyopt.parts.regularizer.kl import KL, Estimator
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=ppo,
    arxiv="2501.03262",
    code="OpenRLHF/OpenRLHF",
    confidence="code",
    claim=Claim(
        "Advantages whitened over the batch are less biased and more robust than those of small groups by themselves.",
        "noisy-judge",
        (Effect("accuracy", "higher", 0.01),),
        against="grpo",
        both={"group-size": 4, "kl-coef": 1e-3},
    ),
)
def reinforce_plus_plus(
    variant: Literal["plain", "baseline"] = "plain",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-3,
    kl: Estimator | None = None,
    gamma: float = 1.0,
    ddof: Literal[0, 1] = 0,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""PPO without a critic, whose advantages are whitened over all tokens of the batch in the place of each group.

    .. math:: \tilde A_{i,t} = \sum_{u \ge t}\gamma^{u-t}\rho_{i,u},\qquad A_{i,t} = (\tilde A_{i,t} - \mu) / \sigma

    ``plain``: rho holds the reward on the last token and :math:`-\beta(\log\pi_{old} - \log\pi_{ref})` on every token;
    any number of responses to a prompt will do. ``baseline``: A-tilde is the reward minus the mean of the group, and
    the KL is a loss of its own, whose default ``k2`` has the gradient of the KL. mu and sigma run over the tokens of
    the batch before it is cut into mini-batches, so a group of equal rewards is not silent. Source: arXiv:2501.03262 and
    the authors' OpenRLHF (population standard deviation). The coefficient of the KL is that of RLinf's plain recipe.
    """
    plain = variant == "plain"
    penalty = KLPenalty(coef=kl_coef, estimator=kl or "k1")
    return ppo(low, high, kl_coef=0.0, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        shape=(penalty,) if plain and kl_coef else (),
        advantage=Normalise(
            centre="none" if plain else "group", scale="none", gamma=gamma if plain else None, whiten="token", ddof=ddof
        ),
        regularizers=() if plain or not kl_coef else (KL(coef=kl_coef, estimator=kl or "k2"),),
        critic=None,
    )
