"""Curriculum GRPO: train long, think short."""

from __future__ import annotations

import math

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.methods.group.grpo import grpo
from policyopt.part import Positive, part
from policyopt.parts import HasSpan, LengthReward, Tag, WeightedSum
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Announced
from policyopt.sources.program import Question


@part
class WithBudget(Announced):
    """A group that is told how many tokens it shall use, rounded down. Nothing is cut there: the budget of the run is what cuts."""

    text: str = "{question}\nUse exactly {budget} tokens."
    """What is asked: ``{budget}`` is the budget, rounded down."""
    budget: Positive = 256.0
    """How many tokens; controllers move it."""

    def announced(self, question: Question) -> dict[str, str]:
        return {"budget": str(max(1, math.floor(self.budget)))}


def stairs(field: str, first: float, factor: float, interval: int, label: str) -> Schedule:
    r"""A field that is :math:`\max(1, B_0\gamma^{\lfloor t/I\rfloor})` at step t."""
    if not 0 < factor <= 1 or first < 1:
        raise ValueError(
            f"b0 is {first:g} and gamma {factor:g}: take a budget of 1 token or more, and a factor above 0 and at most 1"
        )
    jumps = max(1, math.ceil(-math.log(first) / math.log(factor))) if factor < 1 and first > 1 else 1  # down to 1
    return Schedule(
        field=field, start_value=first, end_value=first * factor**jumps, steps=jumps * interval, delay=interval - 1, stairs=jumps,
        shape="exponential", least=1.0, label=label,
    )  # fmt: skip


@method(
    parent=grpo,
    arxiv="2508.08940",
    code="hammoudhasan/curriculum_grpo",
    confidence="paper",
    claim=Claim(
        "A budget that is generous first and then shrinks ends in short answers, with as many right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        ours={"b0": 60.0, "gamma": 0.8, "interval": 12, "alpha-think": 0.0, "alpha-answer": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def curriculum_length_grpo(
    b0: float = 256.0, gamma: float = 0.7, interval: int = 150, r_max: float = 1.0, r_cor: float = 1.0, alpha_think: float = 0.5,
    alpha_answer: float = 0.5, lambda_c: float = 0.6, lambda_l: float = 0.3, lambda_f: float = 0.1, low: float | None = 0.2,
    high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Curriculum GRPO (train long, think short): a budget of tokens stands in the prompt, shrinks in stairs, and is rewarded when it is met.

    .. math:: R = \lambda_c R_{cor}\,c + \lambda_\ell R_{max}\max\Big(0, 1 - \Big|1 - \frac{|y|}{B_t}\Big|\Big)
              + \lambda_f\big(\alpha_{think} 1[\text{think}] + \alpha_{answer} 1[\text{answer}]\big),\qquad B_t = \max\big(1, B_0\gamma^{\lfloor t/I\rfloor}\big)

    The prompt ends with the budget of step t, rounded down (:class:`WithBudget`); held-out questions are asked with it too (``accuracy/decode``). The reward for length has its peak at the budget, so too
    short loses too, and a wrong answer of the right length earns it as well. Blocks of ``<think>`` and ``<answer>`` that are closed are paid each by itself: tell the policy of them (``--prior think``).
    ``gamma`` 1 is a budget that stays; ``lambda_l`` 0 takes length out. For n jumps in S steps to an end :math:`B_n` take I = S / (n + 1) and
    :math:`\gamma = (B_n/B_0)^{1/n}`. Sources: arXiv:2508.08940: 256, 0.7 and 150 of 600 steps; weights 0.6 and 0.3 or the other way round; advantages with the deviation of all of the group (ddof 0). Our reading: the
    other numbers, the words of the prompt, ratios of tokens, no penalty to the reference.
    """
    recipe = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    paid = (("think", lambda_f * alpha_think), ("answer", lambda_f * alpha_answer))
    form = {name: weight for name, weight in paid if weight}
    fields = {"asked": "source.budget", "held_out": "decode.budget", "paid": "shape.LengthReward.reference"}
    return recipe.set("advantage.ddof", 0).replace(
        source=WithBudget(size=group_size, budget=b0),
        shape=(
            *(HasSpan(span=Tag(name, label=name), name=name, label=name) for name in form),
            WeightedSum((("correct", lambda_c * r_cor), *form.items())),
            LengthReward(coef=lambda_l, reference=b0, past="back", right=(0.0, r_max), wrong=(0.0, r_max)),
        ),
        controllers=tuple(stairs(field, b0, gamma, interval, label) for label, field in fields.items()),
        decode=WithBudget(size=1, budget=b0),
    )
