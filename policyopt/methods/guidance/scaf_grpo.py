"""Scaf-GRPO."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Whole, part
from policyopt.parts import TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Hinted
from policyopt.sources.program import Context, Question, Response


def weakest(success: Iterable[bool]) -> int | None:
    """The first level that succeeded, ``None`` where none did."""
    return next((level for level, good in enumerate(success) if good), None)


@part
class Scaffold(Hinted):
    """A group; where all of it is wrong, its first response makes way for the success that had the weakest hint.

    One response is drawn from each hint, all at once. Where none is right the group stays as it is. Source: Scaf-GRPO,
    arXiv:2510.19807, and the authors' code (dvlab-research/Scaf-GRPO).
    """

    warmup: Whole = 0
    """Steps without hints."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        _, step, _ = question.key
        if step < self.warmup or await self.solved(context, group):
            return group
        drawn = await asyncio.gather(
            *(
                self.hinted(question, context, hint, n=1, key=(*question.key, level))
                for level, hint in enumerate(self.ladder(question, context), 1)
            )
        )
        ladder = [response for [response] in drawn]
        level = weakest(verdict.correct for verdict in await context.judge(ladder))
        return group if level is None else [ladder[level], *group[1:]]


@method(
    parent=grpo,
    arxiv="2510.19807",
    code="dvlab-research/Scaf-GRPO",
    confidence="code",
    claim=Claim(
        "One success with the weakest hint that suffices, in a group that fails, gets past what GRPO cannot learn.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        both={"steps": 60},
    ),
)
def scaf_grpo(
    levels: int = 12,
    warmup_steps: int = 5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Scaffolded GRPO: a prompt that the whole group fails at is rescued by one success from the weakest hint that
    suffices.

    .. math:: m^* = \min\{m : R(o^{(m)}) = 1\},\quad o^{(m)} \sim \pi_{old}(\cdot \mid q, h_m),\qquad
              A_{rescued} = \frac{G-1}{\sqrt G},\quad A_{others} = -\frac{1}{\sqrt G}

    After ``warmup_steps`` steps without help, :math:`o^{(m^*)}` takes the place of one wrong response, under its own
    context; hint tokens have no gradient. The rest is GRPO with a token-mean and no KL; groups with a success are
    GRPO's. Source: arXiv:2510.19807 and the authors' code. Our reading: the hints are the first m/(M+1) of the worked
    solution, M = ``levels``, at the beginning of the response (there: chunks of knowledge, plan and solution that a
    stronger model wrote, in the prompt; the paper has three stages of four, the code leaves the plan out); 5 steps of warm-up for short runs, where the authors' script has 50.
    """
    hints = tuple(m / (levels + 1) for m in range(1, levels + 1))
    return grpo(low, high, kl_coef=0.0).replace(
        source=Scaffold(size=group_size, hints=hints, warmup=warmup_steps), aggregate=TokenMean()
    )
