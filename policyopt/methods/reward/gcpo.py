"""GCPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, NonNegative, Shape, Span, Unit, part
from policyopt.parts import LengthReward, Regex, WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class ContrastiveBonus(Shape):
    r"""A bonus for a behaviour on prompts where it helps, a malus where it hurts.

    .. math:: R_i \leftarrow R_i + w\,m_q\,b_i,\qquad m_q = \begin{cases} +1 & \bar c_q^{with} - \bar c_q^{without} > \epsilon \\ -1 & \bar c_q^{with} - \bar c_q^{without} < -\epsilon
              \\ 0 & \text{else, or where one side is empty}\end{cases}

    :math:`b_i` is 1 where a span is in the response, :math:`\bar c` the share of right ones among the responses to the prompt with it and without.
    Right and wrong responses get the same bonus, so that it should stay below what being right is worth. Source: GCPO,
    arXiv:2506.07160, by a third party's account.
    """

    span: Span = Regex("<aux>")
    """What a response with the behaviour has in its text."""
    coef: Finite = 0.2
    """w."""
    epsilon: NonNegative = 0.05
    """epsilon, a difference of shares."""

    unit: ClassVar[Unit] = "group"

    @property
    def needs(self) -> frozenset[str]:
        """What is right, and the span."""
        return frozenset({"correct", self.span.column})

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(reward=batch.reward + self.coef * self.sign(batch) * self.shown(batch))

    def shown(self, batch: Batch) -> Tensor:
        """b [N]."""
        return batch.shows(self.span).to(batch.reward)

    def sign(self, batch: Batch) -> Tensor:
        """m [N], the same for all rows of a group."""
        shown = self.shown(batch)
        gain = group_mean(batch.correct, batch.group, shown) - group_mean(batch.correct, batch.group, 1 - shown)
        both = (group_sum(shown, batch.group) > 0) & (group_sum(1 - shown, batch.group) > 0)
        return torch.where(both & (gain.abs() > self.epsilon), gain.sign(), 0.0)


@method(
    parent=grpo,
    arxiv="2506.07160",
    code="ekonwang/GeometryZero",
    confidence="secondary",
    claim=Claim(
        "A tool is rewarded where it helps and not everywhere: more answers are right, and it is used where it pays.",
        "chain_sum",
        (Effect("accuracy", "higher", -0.02), Effect("tokens", "higher", 2.0)),
        both={"steps": 10},
        ours={"behaviour": r"=\d+\n", "kl-coef": 0.04},
    ),
)
def gcpo(
    behaviour: str = "<aux>",
    bonus: float = 0.2,
    epsilon: float = 0.05,
    length_weight: float = 0.1,
    length_max: float | None = None,
    format_weight: float = 0.1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Group Contrastive Policy Optimization: a behaviour, such as a tool, is rewarded on prompts that it helps to solve and punished on others.

    .. math:: R_i = c_i + w_f f_i + w\,m_q\,b_i + w_l\min(|y_i|/L, 1)

    c and f are 1 for a right answer and for its form; b is 1 where the regular expression ``behaviour`` matches in the response, and m is +1, -1 or 0 as responses to the same
    prompt with the behaviour are more often right than those without, less often, or neither by more than epsilon. The advantage and the loss are GRPO's. In the paper the behaviour is a construction
    line that is drawn between ``<aux>`` tags; a tool call, a long thought or a check of one's own are others. L = ``length_max`` is the budget of the run unless it is given.

    Source: arXiv:2506.07160, by a third party's account. Established there: the bonus, the threshold and a reward for length. Our reading: that length counts linearly up to L
    whether the answer is right or not, all weights, and that both kinds of responses come from one prompt; the paper may ask half of a group for the behaviour.
    """
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        shape=(
            WeightedSum((("correct", 1.0), ("formatted", format_weight))),
            ContrastiveBonus(span=Regex(behaviour), coef=bonus, epsilon=epsilon),
            LengthReward(length_weight, reference=length_max, right=(0.0, 1.0), wrong=(0.0, 1.0)),
        )
    )
