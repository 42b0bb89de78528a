"""Guide."""

from __future__ import annotations

from typing import Literal

from policyopt.methods.group.grpo import grpo
from policyopt.parts import BySource, Superseded, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rollout.hint import Guided


@method(parent=grpo, arxiv="2506.13923", confidence="recalled")
def guide(
    hints: tuple[float, ...] = (0.75,),
    mode: Literal["replace", "mix"] = "replace",
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Guide-GRPO: prompts that fail are answered with a hint, and these answers are made likelier without it.

    .. math:: r_{i,t} = \frac{\pi_\theta(o_{i,t} \mid q, o_{i,<t})}{\pi_{old}(o_{i,t} \mid q, g, o_{i,<t})}
              \text{ on guided rows},\qquad \text{GRPO's ratio on the others}

    The numerator never sees the hint g. A token that needs the hint has a small ratio, and little weight where its
    advantage is positive. ``replace`` trains on the guided rows alone, ``mix`` keeps the failed ones in their group.
    Token-mean, no KL. Metrics are of plain responses. Source: arXiv:2506.13923, from general knowledge of it and not
    checked against its text. Our reading: g is the beginning of the worked solution, which the policy that has it
    copies with certainty, so the denominator is 1 on it; all guided rows are kept, with the same clip; the clip and
    the group size are GRPO's.
    """
    mixed = grpo(low, high, kl_coef=0.0).replace(rollout=Guided(size=group_size, hints=hints), aggregate=TokenMean())
    if mode == "mix":
        return mixed
    return mixed.replace(advantage=BySource(), select=(Superseded(),))
