"""Guide."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Literal

from torch import Tensor

from policyopt.groups import group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Filter, Unit, part
from policyopt.parts import BySource, TokenMean
from policyopt.parts.select.rows import main_rows
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Hinted
from policyopt.sources.program import Context, Question, Response


@part
class Superseded(Filter):
    """Where a prompt has rows of an auxiliary program, only these are trained on.

    Source: Guide, arXiv:2506.13923 (guided rows in the place of plain ones that all failed).
    """

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        auxiliary = ~main_rows(batch)
        return auxiliary | (group_sum(auxiliary.to(batch.mask), batch.group) == 0)


@part
class Guided(Hinted):
    r"""A group; where all of it is wrong, as many responses from a hint beside it, as if the policy had written them.

    With a hint g the policy begins by copying it, with certainty, so the probability of a token in the context with the
    hint is 1 on the hint and :math:`\pi_{old}(y_t \mid q, g, y_{<t})` after it. That is what the ratio divides by; the
    policy that is trained reads the plain prompt. Hints go round among the responses, whose ``origin`` is 1. Source:
    Guide, arXiv:2506.13923.
    """

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        if await self.solved(context, group):
            return group
        ladder = self.ladder(question, context)
        if not ladder:
            return group
        drawn = await asyncio.gather(
            *(
                self.hinted(question, context, ladder[i % len(ladder)], n=1, key=(*question.key, i))
                for i in range(self.size)
            )
        )
        guided = [response for [response] in drawn]
        for response in guided:
            response.own, response.origin = [], 1
        return [*group, *guided]


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
    mixed = grpo(low, high, kl_coef=0.0).replace(source=Guided(size=group_size, hints=hints), aggregate=TokenMean())
    if mode == "mix":
        return mixed
    return mixed.replace(advantage=BySource(), select=(Superseded(),))
