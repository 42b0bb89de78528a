"""ExPO."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.claims import Claim, Effect
from policyopt.control import Schedule
from policyopt.data.words import EXPLAIN, explanation
from policyopt.judging.answers import MARK, answer_line
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, part
from policyopt.parts import BySource, FromProgram, Likelihood, OwnTokens
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.sources.draw import Group
from policyopt.sources.draw.target import as_target
from policyopt.sources.program import Context, Question, Response


@part
class SelfExplained(Group):
    """A group, and explanations of the right answer that the policy gives when it is told it (``origin`` 1).

    An explanation stands behind the plain question, and so do its log-probabilities. One that comes to another answer,
    or to none, is cut before it and ends with the true one. A prompt without a reference answer, or too long for the
    request, has none. The log counts them, and those that were right as they stood. Source: ExPO, arXiv:2507.02834.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    explanations: Count = 1
    """For each prompt."""
    request: str = EXPLAIN
    """What the policy is asked; ``{question}`` and ``{answer}`` stand for the prompt's own."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.request:
            raise ValueError(f"request is {self.request!r}, which never says the {{answer}} that is to be explained")

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group, targets = await asyncio.gather(super().draw(question, context), self.explain(question, context))
        return [*group, *targets]

    async def explain(self, question: Question, context: Context) -> list[Response]:
        """The explanations of a prompt's answer, as targets."""
        told = explanation(question.text, question.answer, self.request)
        asked = context.asked(told) if question.answer else None
        if asked is None:
            return []
        drawn = await context.sampler.generate(
            asked,
            n=self.explanations,
            max_tokens=question.budget,
            temperature=self.temperature,
            key=(*question.key, -3),
        )
        right = [v.correct and r.finished for v, r in zip(await context.judge(drawn), drawn, strict=True)]
        context.count(explanations=len(drawn), explanations_right=sum(right))
        texts = [
            tuple(r.tokens) if ok else self.corrected(question, context, r) for r, ok in zip(drawn, right, strict=True)
        ]
        return await asyncio.gather(*(as_target(question, context, text, self.temperature) for text in texts))

    def corrected(self, question: Question, context: Context, response: Response) -> tuple[int, ...]:
        """Ids of an explanation with the true answer line in the place of its own; cut so that this fits."""
        before, mark, after = f"\n{context.decode(response.tokens)}".rpartition(f"\n{MARK}")
        steps = (before if mark else after)[1:].rstrip("\n")
        end = (*context.encode(answer_line(question.answer)), *context.end)[: question.budget]
        return (*context.encode(f"{steps}\n" if steps else "")[: question.budget - len(end)], *end)


@method(
    parent=grpo,
    arxiv="2507.02834",
    code="HumainLab/ExPO_rl_reasoning_by_explanation",
    confidence="secondary",
    claim=Claim(
        "Explanations of known answers, the policy's own, teach it where its attempts fail.",
        "requests:chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
    ),
)
def expo(
    sft_coef: float = 0.01,
    anneal_steps: int | None = None,
    explanations: int = 1,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    group_size: int = 8,
) -> Recipe:
    r"""Self-Explanation Policy Optimization: the policy explains the right answer once it is told it, and learns to say
    that untold.

    .. math:: L = L_{GRPO} - \frac{\beta}{P}\sum_q\log\pi_\theta(\tilde c_q, a^*_q \mid q),\qquad
              \tilde c_q \sim \pi_\theta(\cdot \mid q, a^*_q)

    The explanation c~ and the answer a* stand behind the plain question; beta = ``sft_coef`` weighs the log-likelihood
    of all their tokens, whatever the rewards, so a prompt that the whole group fails at still teaches. It goes linearly
    to 0 over ``anneal_steps`` steps, or stays. Explanations are no members of the group: they have no advantage, no KL,
    no share in its mean. With beta 0 it is GRPO. Source: arXiv:2507.02834, from third parties' accounts. Our reading: a
    sum over tokens and a mean over prompts; every prompt is explained, at every step, by the policy as it is; none is
    filtered out, but an answer that is not the true one makes way for it. The model has to understand what it is told;
    of the embedded models, those of the testbeds ``requests:TASK`` do. The size of beta is not known: 0.01, for sums
    over some tens of tokens, is ours. ExP-DPO, the form with pairs, is DPO
    (:class:`~policyopt.parts.Pairs`) of explanations against failed responses; it is not this method.
    """
    parent = grpo(low, high, kl_coef=kl_coef, group_size=group_size)
    apart = parent.replace(
        advantage=BySource(inner=require(parent.advantage), rows=FromProgram()),
        aggregate=OwnTokens(inner=parent.aggregate),
    )
    if not sft_coef:
        return apart
    falling = Schedule("regularizers.Likelihood.coef", start_value=sft_coef, end_value=0.0, steps=anneal_steps or 1)
    return apart.replace(
        source=SelfExplained(size=group_size, explanations=explanations),
        regularizers=(*parent.regularizers, Likelihood(coef=sft_coef, rows=FromProgram(main=False), mean="prompt")),
        controllers=(falling,) if anneal_steps else (),
    )
