"""MRT."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, part
from policyopt.parts import RolloutBaseline
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import Exits
from policyopt.sources.draw.exits import joined
from policyopt.sources.program import Context, Question, Response


@part
class ContinueOrStop(Exits):
    """Continuations of one beginning of a thought, and as baseline the answers that are forced there.

    The thought is cut behind one of its lines, drawn evenly, the prompt itself among them. Only what comes after the
    cut is trained on; the mean reward of the forced answers is ``baseline_reward``. Source: MRT, arXiv:2503.07572.
    """

    stops: Count = 4
    """Forced answers."""

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        plan = self.plan(question, context)
        thought = await self.think(question, context, plan, 0)
        cut = random.Random(repr(question.key)).choice(self.boundaries(context, thought))
        stopped, going = await asyncio.gather(
            self.answer(question, context, plan, thought, cut, self.stops, (0,), trained=False),
            context.sampler.generate(
                (*question.tokens, *thought.tokens[:cut]), n=self.size, max_tokens=question.budget - cut,
                temperature=self.temperature, key=(*question.key, 0, 1),
            ),
        )  # fmt: skip
        for response in stopped:
            response.use = "baseline"
        return [*(joined(thought, cut, (), end, trained=False) for end in going), *stopped]

    def boundaries(self, context: Context, thought: Response) -> list[int]:
        """After how many tokens of a thought one of its lines is over, 0 among them."""
        line = set(context.encode("\n"))
        return [0, *(i + 1 for i, token in enumerate(thought.tokens[:-1]) if token in line)]


@method(
    parent=grpo,
    arxiv="2503.07572",
    code="CMU-AIRe/MRT",
    confidence="recalled",
    claim=Claim(
        "Thinking on is worth only what it adds to answering now: fewer tokens for as many right answers.",
        "long-winded",
        (Effect("length", "lower", 3.0), Effect("accuracy", "higher", -0.02)),
        theirs={"kl-coef": 0.0},
    ),
)
def mrt(
    stops: int = 4,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Meta reinforcement fine-tuning: thinking on is worth what it adds to answering now.

    .. math:: A_i = R_i - \frac1K\sum_k R^{stop}_k(c)

    c is the beginning of a thought, cut behind a line; the K = ``stops`` answers that are forced there are the baseline
    of the responses that go on from it. Where stopping is as good as going on, nothing is learned. The general form
    adds the progress of each episode to the reward, :math:`R + \alpha\sum_j(J_j - J_{j-1})`, J the probability of success
    when the thought has to stop there; it is not built. Source: arXiv:2503.07572 and the authors' guide
    (CMU-AIRe/MRT), which has this baseline; recalled, not verified. Our reading: one beginning for each prompt, the
    number of forced answers, no division by the deviation, no KL.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs, group_size=group_size).replace(
        source=ContinueOrStop(size=group_size, stops=stops), advantage=RolloutBaseline(clip=None)
    )
