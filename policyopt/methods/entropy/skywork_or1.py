"""Skywork-OR1."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Controller, Finite, NonNegative, Positive, part
from policyopt.parts import EntropyBonus, MixedOutcomes, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method


@part
class EntropyStairs(Controller):
    r"""An entropy coefficient that goes up by a step after every batch whose entropy was below the target, down by one after every
    other, and is switched off while the entropy is not below it.

    .. math:: c_{k+1} = \mathrm{clip}(c_k \pm \Delta,\ c_{min},\ c_{max}),\qquad \alpha_{k+1} = c_{k+1}\,1[e_k < e^*]

    The field holds alpha; c is in the state. A step without a measurement changes neither. Source: Skywork-OR1, arXiv:2505.22312, and SkyworkAI/Skywork-OR1
    (``EntController``). Our reading: e is the mean entropy of the distributions that the last step's tokens were drawn from.
    """

    field: str = "regularizers.EntropyBonus.coef"
    """Path of the coefficient."""
    target: Finite = 0.2
    """e*, in nats per token."""
    by: Positive = 1e-4
    """Delta."""
    least: NonNegative = 0.0
    """Smallest c, and the first."""
    most: NonNegative = 5e-3
    """Largest c."""
    metric: str = dataclasses.field(default="entropy", kw_only=True)
    """Where the entropy is read."""

    @property
    def asks(self) -> frozenset[str]:
        """What the log takes the metric from."""
        return frozenset({"sampling entropy"} if self.metric == "entropy" else ())

    def __post_init__(self) -> None:
        if self.most < self.least:
            raise ValueError(
                f"most is {self.most:g}, below least ({self.least:g}): the coefficient moves between the two"
            )

    def start(self) -> dict[str, float]:
        return {"coef": self.least}

    def __call__(self, value: float, metrics: Mapping[str, float], state: dict[str, float]) -> float:
        if self.metric not in metrics:
            return value
        below = metrics[self.metric] < self.target
        state["coef"] = min(max(state["coef"] + (self.by if below else -self.by), self.least), self.most)
        return state["coef"] if below else 0.0


@method(
    parent=grpo,
    arxiv="2505.22312",
    code="SkyworkAI/Skywork-OR1",
    confidence="code",
    claim=Claim(
        "Entropy that is held up by a coefficient that adapts in steps does not collapse early, and as many answers are right or more.",
        "many-answers",
        (Effect("entropy", "higher", 0.02), Effect("accuracy", "higher", -0.02)),
        ours={"entropy-target": 0.25, "entropy-by": 2e-3, "entropy-most": 0.1},
        theirs={"kl-coef": 0.0},
    ),
)
def skywork_or1(
    entropy_target: float = 0.2,
    entropy_by: float = 1e-4,
    entropy_most: float = 5e-3,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 16,
) -> Recipe:
    r"""Skywork-OR1's MAGIC: GRPO over all tokens without KL and without groups that teach nothing, and an entropy bonus that adapts in
    steps.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\Big(\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i) - \alpha_k H_{i,t}\Big)

    A is GRPO's advantage; prompts that were answered always or never right leave the batch and are not drawn anew; alpha_k is that of
    :class:`EntropyStairs`, 0 at the first step. One update on a fresh batch, temperature 1. Source: arXiv:2505.22312 and
    SkyworkAI/Skywork-OR1 (or1_scripts/train: target 0.2, Delta 1e-4, at most 5e-3, groups of 16, clip 0.2). At the learning rates of small
    models Delta is small. The stages of growing context length are runs that follow each other.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        filter=(MixedOutcomes(),),
        aggregate=TokenMean(),
        regularizers=(EntropyBonus(coef=0.0),),
        controllers=(EntropyStairs(target=entropy_target, by=entropy_by, most=entropy_most),),
    )
