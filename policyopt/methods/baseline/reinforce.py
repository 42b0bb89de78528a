"""REINFORCE."""

from __future__ import annotations

from typing import Any, Literal

from policyopt.claims import Claim, Effect
from policyopt.control import Controller, MovingAverage
from policyopt.parts import LogProb, Normalise, SeqMeanTokenSum, TokenRatio
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Group

Baseline = Literal["none", "constant", "moving-average", "batch-mean", "group-mean"]


_CENTRE: dict[str, Any] = {"moving-average": "constant", "batch-mean": "batch", "group-mean": "group"}


@method(
    confidence="recalled",
    claim=Claim(
        "PPO has parts that language models do not need: the policy gradient with a plain baseline does better than it.",
        "number_sorting",
        (Effect("accuracy", "higher", 0.01),),
        against="ppo",
        theirs={"epochs": 1, "kl-coef": 0.0},
    ),
)
def reinforce(
    baseline: Baseline = "moving-average",
    constant: float | None = None,
    momentum: float = 0.9,
    kl_coef: float = 0.0,
    group_size: int = 1,
) -> Recipe:
    r"""Raise the log-probability of each response in proportion to how much its reward exceeds a baseline.

    .. math:: L = -\frac1N \sum_i (R_i - b_i) \sum_t \log\pi_\theta(y_{i,t})

    R_i [N] reward, b_i a number that does not depend on the response: nothing, a ``constant``, the moving average of
    the rewards of earlier steps with ``momentum`` (which starts at ``constant``, or at 0), or the mean over the batch
    or over the responses to the prompt. Raises ``ValueError`` where ``baseline="constant"`` comes without one.

    Source: Williams 1992; for language models Ahmadian et al., arXiv:2402.14740, whose vanilla form has the moving
    average. Our reading: token sums (the unbiased form); frameworks that average over tokens reweight the rows.
    """
    if baseline == "constant" and constant is None:
        raise ValueError(
            'baseline "constant" needs constant=NUMBER, the baseline itself; baseline="none" subtracts nothing'
        )
    controllers: tuple[Controller, ...] = (MovingAverage(momentum=momentum),) if baseline == "moving-average" else ()
    return Recipe(
        source=Group(size=group_size),
        advantage=Normalise(centre=_CENTRE.get(baseline, baseline), scale="none", baseline=constant or 0.0),
        ratio=TokenRatio(),
        surrogate=LogProb(),
        aggregate=SeqMeanTokenSum(),
        regularizers=(KL(coef=kl_coef),) if kl_coef else (),
        controllers=controllers,
    )
