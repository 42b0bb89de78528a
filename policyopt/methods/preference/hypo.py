"""HyPO."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_sum
from policyopt.items import Verdict
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Count, NonNegative, Regularizer, Unit, part
from policyopt.parts import AllPairs, FromProgram, RowScore, RowSelector
from policyopt.parts.select.rows import picked
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.program import Context, Question, Response, Rollout

# Pairs of others, and samples of the policy --------------------------------------------------------------------------


@part
class PairsAndSamples(Rollout):
    """The two given texts of each prompt, as :class:`~policyopt.sources.given.PreferencePairs` has them (``chosen`` 1 and 0), and
    ``size - 2`` responses of the policy (``origin`` 1), which nobody judges.

    Given texts are cut at the budget, and counted; their ``old_logp`` is what the policy thinks of them now.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"chosen", "rejected"})
    provides: ClassVar[frozenset[str]] = frozenset({"chosen"})
    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    size: Count = 4
    """Rows for one prompt: the pair, and the samples."""

    def __post_init__(self) -> None:
        if self.size < 3:
            raise ValueError(
                f"size is {self.size}, and the pair takes two of the rows of a prompt: take 3 or more, or PreferencePairs()"
            )

    async def draw(self, question: Question, context: Context) -> list[Response]:
        drawn, *pair = await asyncio.gather(
            self.samples(question, context),
            self.given(question, context, "chosen", 1.0),
            self.given(question, context, "rejected", 0.0),
        )
        return [row for rows in (*pair, drawn) for row in rows]

    async def given(self, question: Question, context: Context, side: str, reward: float) -> list[Response]:
        """One text of the pair as a row."""
        text = question.given[side]
        if len(text) > question.budget:
            context.count(texts_cut=1)
        row = await context.sampler.logprobs(question.tokens, text[: question.budget], temperature=self.temperature)
        row.verdict = Verdict(reward, reward > 0, True, side)
        row.columns["chosen"] = reward
        return [row]

    async def samples(self, question: Question, context: Context) -> list[Response]:
        """What the policy writes."""
        drawn = await context.sampler.generate(
            question.tokens, n=self.size - 2, max_tokens=question.budget, temperature=self.temperature, key=question.key
        )
        for row in drawn:
            row.origin, row.verdict = 1, Verdict(0.0, False, True, "not judged")
        return drawn


@part
class SampledKL(Regularizer):
    r"""The KL of the policy to the reference, from whole responses that the policy wrote, with the gradient of the KL.

    .. math:: \frac{c}{|S|}\sum_{i\in S} K_i,\qquad \nabla = \frac{c}{|S|}\sum_{i\in S} sg\Big[K_i - \frac{1}{k_i-1}\sum_{j\ne i} K_j\Big]
              \nabla\sum_t\log\pi_\theta(y_{i,t}),\qquad K_i = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,t})

    The value is the mean of K in nats; the gradient is that of REINFORCE with K as a cost, against the other samples of the same
    prompt (none where there is one alone). Differentiating K itself would give c/\|S\| on every token, which is no regularisation
    at all: its expectation is 0. Source: HyPO, arXiv:2406.01462. Our reading: credit for the whole response, not for what is to come.
    """

    coef: NonNegative = 0.1
    """c."""
    rows: RowSelector | None = None
    """S, responses of the policy as it is; None for all rows."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """The reference's log-probabilities, and what picks the rows."""
        return frozenset({"ref_logp"}) | (self.rows.needs if self.rows else frozenset())

    def cost(self, batch: Batch) -> Tensor:
        """K, [N], without gradient."""
        return RowScore(against="reference")(batch).detach()

    def advantage(self, batch: Batch) -> Tensor:
        """The cost of each row against that of the others in S to its prompt, [N]; 0 on rows that are not in S."""
        there, cost = picked(self.rows, batch), self.cost(batch)
        others = group_sum(there, batch.group) - there
        mean = (group_sum(there * cost, batch.group) - there * cost) / others.clamp(min=1)
        return there * (cost - mean)

    def __call__(self, batch: Batch) -> Tensor:
        there = picked(self.rows, batch)
        pull = self.advantage(batch) * masked(batch.logp, batch.mask).sum(-1)
        value = there * self.cost(batch) + pull - pull.detach()
        return self.coef * value.sum() / there.sum().clamp(min=1)


@method(
    parent=dpo,
    arxiv="2406.01462",
    confidence="recalled",
    claim=Claim(
        "A KL on samples of the policy itself keeps DPO near the reference where its pairs say nothing, which they cannot do alone: more "
        "of what it answers is right.",
        "pairs",
        (Effect("accuracy", "higher", 0.01),),
        both={"steps": 10},
    ),
)
def hypo(beta: float = 0.1, kl_coef: float = 0.1, samples: int = 2) -> Recipe:
    r"""Hybrid Preference Optimization: DPO on given pairs, and a KL to the reference on what the policy itself answers to the same
    prompts.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(\beta(h_w - h_l)) + \lambda\,E_{y\sim\pi_\theta}\sum_t\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    The beta of DPO stands for a KL to the reference only on what the pairs cover. The term (lambda = ``kl_coef``) measures it on
    ``samples`` responses of the policy to each prompt, without a judge and without labels; its gradient has the mean of the other
    samples as baseline (:class:`SampledKL`), so that a response further from the reference than its siblings gets less likely, and
    the pulls on a prompt's samples add up to 0. At lambda 0 it is DPO, which draws nothing.

    Source: arXiv:2406.01462, from general knowledge of it; the values of lambda and of the number of samples are not known, 0.1 and 2 are
    ours.
    """
    if not kl_coef:
        return dpo(beta)
    return (
        dpo(beta)
        .replace(
            source=PairsAndSamples(size=2 + samples),
            regularizers=(SampledKL(coef=kl_coef, rows=FromProgram(main=False)),),
        )
        .set("surrogate.choose", AllPairs(rows=FromProgram()))
    )
