"""High-entropy minority tokens."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.clip.dapo import dapo
from policyopt.parts import AboveQuantile, SelectedWeight
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=dapo,
    arxiv="2506.01939",
    confidence="secondary",
    claim=Claim(
        "A fifth of the tokens, those at which the policy is undecided, is enough: without the others as much is "
        "learned.",
        "chain_sum",
        (Effect("accuracy", "higher", -0.02),),
        both={"steps": 10},
    ),
)
def entropy_high_tokens(
    rho: float = 0.2,
    low: float | None = 0.2,
    high: float | None = 0.28,
    overlong_share: float = 0.2,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""DAPO on the few tokens where the policy is undecided: the gradient of the top share by entropy only.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} 1[H_{i,t}\ge\tau_\rho]\,\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i)

    H [N, T] entropy of the current policy, tau the (1 - ``rho``)-quantile of H over the tokens of the mini-batch.
    With rho = 1 it is DAPO. The divisor counts all tokens. Defaults: rho 0.2, otherwise DAPO's. Our reading: linear
    interpolation and >= at the quantile, so ties select more; one threshold for the mini-batch.
    """
    parent = dapo(low, high, overlong_share, rounds=rounds, minibatches=minibatches, group_size=group_size)
    return parent.replace(weight=(SelectedWeight(AboveQuantile("entropy", q=1 - rho)),))
