"""Guide."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Literal

from policyopt.claims import Claim, Effect
from policyopt.data.words import HINT, hinted
from policyopt.methods.group.grpo import grpo
from policyopt.part import part
from policyopt.parts import BySource, MixedOutcomes, PolicyShaping, PPOClip
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.sources.draw import Hinted
from policyopt.sources.draw.hint import hint_length
from policyopt.sources.program import Context, Question, Response


@part
class Guided(Hinted):
    r"""A group; where all of it is wrong, as many responses to the question with a hint beside it, as answers to the
    plain question.

    Their ``origin`` is 1 and their log-probabilities are those of the policy that reads the hint,
    :math:`\pi_{old}(y_t \mid q, g, y_{<t})`; the policy that is trained reads the plain prompt. Hints go round among the
    responses. A hint that leaves no room for a response is left out and counted. Source: Guide, arXiv:2506.13923, and the
    authors' code (vaskar-open-source-research/guide_rl).
    """

    request: str = HINT
    """What is asked with a hint; ``{question}`` and ``{hint}`` stand for those."""
    mixin: bool = False
    """Put wrong plain responses, as rows of the guided group, in the place of its wrong ones."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        if await self.solved(context, group):
            return group
        guided = await self.guided(question, context)
        for response in guided:
            response.origin = 1
        if self.mixin:
            guided = await self.mixed(context, group, guided)
        return [*group, *guided]

    async def guided(self, question: Question, context: Context) -> list[Response]:
        """As many responses as the group has, with the help of the hints; none where there is no hint."""
        asked = [context.asked(hinted(question.text, hint, self.request)) for hint in self.texts(question, context)]
        prompts = [tokens for tokens in asked if tokens is not None]
        context.count(hints_left_out=len(asked) - len(prompts))
        drawn = await asyncio.gather(
            *(
                context.sampler.generate(
                    prompts[i % len(prompts)], n=1, max_tokens=question.budget, temperature=self.temperature,
                    key=(*question.key, i),
                )
                for i in range(self.size if prompts else 0)
            )
        )  # fmt: skip
        return [response for [response] in drawn]

    def texts(self, question: Question, context: Context) -> list[str]:
        """The hints in words."""
        text = question.solution[:-1]
        return [context.decode(text[: hint_length(len(text), share)]) for share in self.hints] if text else []

    async def mixed(self, context: Context, group: Sequence[Response], guided: list[Response]) -> list[Response]:
        """The guided responses, each that is not right exchanged for a wrong plain one while there are any."""
        wrong = [r for r, v in zip(group, await context.judge(group), strict=True) if v.rewarded and not v.correct]
        spare = iter([dataclasses.replace(r, origin=1) for r in wrong])
        verdicts = await context.judge(guided)
        return [r if v.correct else next(spare, r) for r, v in zip(guided, verdicts, strict=True)]


@part
class Continued(Guided):
    r"""As :class:`Guided`, with the hint at the beginning of the response, as if the policy had written it too.

    The policy that has the hint copies it, with certainty, so :math:`\pi_{old}` is 1 on it, and the policy that is trained
    learns to write it. The budget holds the hint. Our reading of Guide, arXiv:2506.13923, before its code was public.
    """

    async def guided(self, question: Question, context: Context) -> list[Response]:
        ladder = self.ladder(question, context)
        drawn = await asyncio.gather(
            *(
                self.hinted(question, context, ladder[i % len(ladder)], n=1, key=(*question.key, i))
                for i in range(self.size if ladder else 0)
            )
        )
        responses = [response for [response] in drawn]
        for response in responses:
            response.own = []
        return responses


@method(
    parent=grpo,
    arxiv="2506.13923",
    code="vaskar-open-source-research/guide_rl",
    confidence="code",
    claim=Claim(
        "Failed prompts are asked with a hint and learned without it: the skill carries over where GRPO has "
        "nothing to learn from.",
        "sparse-hard",
        (Effect("accuracy", "higher", 0.1),),
        ours={"place": "response"},
    ),
)
def guide(
    hints: tuple[float, ...] = (0.75,),
    mode: Literal["replace", "mixin"] = "replace",
    place: Literal["prompt", "response"] = "prompt",
    guided: Literal["shaped", "clipped"] = "shaped",
    low: float | None = 0.2,
    high: float | None = 0.2,
    rounds: int = 10,
    minibatches: int = 2,
    group_size: int = 8,
) -> Recipe:
    r"""Guide-GRPO: prompts that fail are asked again with a hint, and these answers are made likelier without it.

    .. math:: r_{i,t} = \frac{\pi_\theta(o_{i,t} \mid q, o_{i,<t})}{\pi_{old}(o_{i,t} \mid q, g, o_{i,<t})},\quad
              L_{i,t} = -A_i\,\frac{r_{i,t}}{r_{i,t} + \gamma_i},\quad \gamma_i = \max\big(Q_{0.9}(r_i), 10^{-4}\big)
              \quad\text{on guided rows},\qquad \text{GRPO's ratio and clip on plain ones}

    The numerator never sees the hint g. Guided rows have no clip; a token that only the hint explains has a small ratio and
    little weight, for either sign of its advantage, and never none. The guided group takes the place of the failed one:
    each group is compared with itself, and groups that are all right or all wrong are dropped, plain and guided alike, until
    the batch is full or after ``rounds`` rounds. ``mixin`` fills the guided group up with wrong plain responses. Every
    response weighs the same, no KL. Metrics are of plain responses.
    Hints are shares of the worked solution, in the prompt. A dataset with hints of its own gives them with ``--columns
    solution=hint`` and ``hints=(1,)``. ``place="response"`` puts the hint at the beginning of the response instead, and
    ``guided="clipped"`` clips guided rows like plain ones, each of them our reading before the code was public.
    Source: arXiv:2506.13923; formula and defaults from the authors' code and scripts, where a micro-batch is one row, so
    that gamma is per row (``surrogate.scope`` "batch" takes larger ones), hints are texts that a stronger model wrote, and
    a right answer needs the right format. Left out: the constant exponent that the code can put on r, and its third round
    with the worked solution.
    """
    program = {"prompt": Guided, "response": Continued}[place]
    clip = PPOClip(low=low, high=high)
    return grpo(low, high, kl_coef=0.0).replace(
        source=program(size=group_size, rounds=rounds, hints=hints, mixin=mode == "mixin"),
        filter=(MixedOutcomes(per_source=True),),
        advantage=BySource(),
        surrogate=PolicyShaping(of="ratio", gamma=None, inner=clip) if guided == "shaped" else clip,
        update=Update(minibatches=minibatches),
    )
