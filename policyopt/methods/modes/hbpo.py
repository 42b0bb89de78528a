"""HBPO."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Finite, NonNegative, Positive, Shape, Unit, Wrapper, part
from policyopt.parts import Normalise
from policyopt.parts.shape.length import token_limit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import column
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

column(
    "announced",
    sentence="how many tokens the beginning of the row announces, which it may exceed; 0 where it announces nothing",
    filled_by="program",
    invent=lambda s: (s.integers(2) + 1) * s.budget // 4,
    advice="take the source AnnouncedBudgets()",
)

PREFIXES = ("I will answer this with {} tokens.\n", "I have {} tokens for this.\n")


@part
class AnnouncedBudgets(Group):
    """A group in subgroups, each of which begins with a sentence that announces how many tokens its responses will have (``announced``).

    The sentence belongs to the prompt: it is read, never trained on, and costs nothing of the budget of the run, at which responses are cut. A prompt that
    leaves no room for it is answered without, and announces nothing. Held-out questions have no sentence. Source: HBPO, arXiv:2507.15844, and
    the authors' code (ZJU-REAL/HBPO), with 16 responses: two sentences for each of four budgets, and two responses to each of these prompts.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"announced"})

    shares: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (0.125, 0.25, 0.5, 0.625)
    """The budgets as shares of that of the run: of 4096 tokens they are the authors' 512, 1024, 2048 and 2560."""
    prefixes: Annotated[tuple[str, ...], Field(min_length=1)] = PREFIXES
    """The sentences, with ``{}`` for the number. One for a model that opens its thought itself begins with ``<think>``."""

    def __post_init__(self) -> None:
        if self.size < len(self.shares):
            raise ValueError(
                f"size is {self.size} and there are {len(self.shares)} shares: draw a response for each at least"
            )

    async def draw(self, question: Question, context: Context) -> list[Response]:
        kinds = [(share, prefix) for prefix in self.prefixes for share in self.shares][: self.size]
        sizes = [len(range(k, self.size, len(kinds))) for k in range(len(kinds))]
        drawn = await asyncio.gather(
            *(
                self._announced(question, context, k, n, *kind)
                for k, (n, kind) in enumerate(zip(sizes, kinds, strict=True))
            )
        )
        return [response for rows in drawn for response in rows]

    async def _announced(
        self, question: Question, context: Context, k: int, n: int, share: float, prefix: str
    ) -> list[Response]:
        """The responses behind one sentence."""
        budget = max(1, round(share * question.budget))
        asked = (*question.tokens, *context.encode(prefix.replace("{}", str(budget))))
        fits = len(asked) <= context.room
        if not fits:
            context.count(unannounced=n)
        rows = await context.sampler.generate(
            asked if fits else question.tokens,
            n=n,
            max_tokens=question.budget,
            temperature=self.temperature,
            key=(*question.key, k),
        )
        for row in rows:
            row.columns["announced"] = float(budget) if fits else 0.0
            row.context = asked if fits else ()
        return rows


def promise(tokens: Tensor, most: Tensor, scale: float) -> Tensor:
    r"""What a right answer of so many tokens is worth at best, :math:`g(x) = \beta\cos\frac{\pi x}{2L}` with L = ``most``, [N]."""
    return scale * torch.cos(math.pi * tokens / (2 * most))


@part
class BudgetReward(Shape):
    r"""The reward of a right answer: what its budget promises, less beyond it.

    .. math:: R_i = \begin{cases}-1 & \text{out of form}\\ 0 & \text{wrong, or } |y_i| > L\\ \min\big(g(|y_i|) - \delta\,||y_i| - b_i|,\; g(b_i)\big) & \text{else}\end{cases},\qquad
              g(x) = \beta\cos\frac{\pi x}{2L}

    b is the budget that the row ``announced``; a row without one has g(|y|). L is the budget of the run, :math:`\delta = 1/L` unless it is given. Source: HBPO,
    arXiv:2507.15844, and the authors' code (ZJU-REAL/HBPO), which rounds to two decimals where nothing is announced. Form is the judge's word.
    """

    scale: Positive = 4.0
    """beta."""
    most: Positive | None = None
    """L in tokens; None for the budget of the run."""
    deviation: NonNegative | None = None
    """delta for each token; None for 1/L."""
    malformed: Finite = -1.0
    """What a response out of form is worth."""

    needs: ClassVar[frozenset[str]] = frozenset({"announced", "correct", "formatted"})

    def limit(self, batch: Batch) -> Tensor:
        """L [N]."""
        return token_limit(batch, self.most)

    def ceiling(self, batch: Batch) -> Tensor:
        """g(b) [N]."""
        return promise(batch.announced.to(batch.reward), self.limit(batch), self.scale)

    def __call__(self, batch: Batch) -> Batch:
        length, most = batch.length().to(batch.reward), self.limit(batch)
        announced = batch.announced.to(batch.reward)
        off = (length - announced).abs() * (1 / most if self.deviation is None else self.deviation)
        own = promise(length, most, self.scale)
        paid = torch.where(announced > 0, torch.minimum(own - off, self.ceiling(batch)), own)
        right = (batch.correct > 0.5) & (length <= most)
        reward = torch.where(right, paid, 0.0)
        return batch.replace(reward=torch.where(batch.formatted > 0.5, reward, self.malformed))


@part
class HierarchicalAdvantage(Wrapper, Advantage):
    r"""An advantage among all responses to a prompt, and how far each subgroup falls short of what its budget promises.

    .. math:: A_i = A^{inter}_i + w\,\Big(\mathrm{mean}_{j: b_j = b_i} R_j - g(b_i)\Big)

    The second term is the same for a subgroup, at most 0, and 0 where all of it has the best reward. Rows that announce nothing have none. Source: HBPO, arXiv:2507.15844.
    The authors' code (ZJU-REAL/HBPO) adds it twice, which its paper does not: w 2 is that.
    """

    inner: Advantage = Normalise()
    """The advantage in the whole group."""
    paid: BudgetReward = BudgetReward()
    """What made the rewards; it knows g."""
    intra: NonNegative = 1.0
    """w."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and what was announced."""
        return super().needs | {"announced"}

    def __call__(self, batch: Batch) -> Tensor:
        return self.inner(batch) + self.intra * self.shortfall(batch)[:, None] * batch.mask

    def shortfall(self, batch: Batch) -> Tensor:
        """The second term [N] before its weight."""
        number = batch.announced.unique(return_inverse=True)[1]
        subgroup = batch.group * (len(batch) + 1) + number
        short = group_mean(batch.reward, subgroup) - self.paid.ceiling(batch)
        return torch.where(batch.announced > 0, short, 0.0)


@method(
    parent=grpo,
    arxiv="2507.15844",
    code="ZJU-REAL/HBPO",
    confidence="code",
    claim=Claim(
        "Subgroups with budgets of their own keep long reasoning alive while easy questions become short: fewer tokens, and as many right answers.",
        beyond="The budget is announced in a sentence with a number, which takes a model that reads sentences; the embedded one reads sums.",
    ),
)
def hbpo(
    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 0.625), prefixes: tuple[str, ...] = PREFIXES, scale: float = 4.0, length_max: float | None = None,
    deviation: float | None = None, format_error: float = -1.0, intra_weight: float = 1.0, low: float | None = 0.2, high: float | None = 0.2,
    kl_coef: float = 0.0, group_size: int = 16,
) -> Recipe:  # fmt: skip
    r"""Hierarchical Budget Policy Optimization: the responses to a prompt begin by announcing budgets of several sizes, and each is paid for keeping its own.

    .. math:: R = \min\Big(g(|y|) - \frac{||y| - b|}{L},\; g(b)\Big),\qquad g(x) = \beta\cos\frac{\pi x}{2L},\qquad
              A = \frac{R - \mathrm{mean}}{\mathrm{std} + \epsilon} + w\,\big(\bar R_b - g(b)\big)

    A small budget b promises more than a large one, so that prompts that it is enough for drift there, and responses with a large one are not hurried: one penalty for all would
    starve them. Wrong answers have 0, those out of form -1 (:class:`BudgetReward`). The budgets are ``shares`` of that of the run, L
    (``length_max`` where given), and stand in ``prefixes`` before the response (:class:`AnnouncedBudgets`). With one budget and ``intra_weight`` 0 it is GRPO with a cosine
    reward for length.

    Source: arXiv:2507.15844 and the authors' code: budgets of 512 to 2560 of 4096 tokens, two sentences, 16 responses, beta 4, no KL. Our reading: the second term of the
    advantage once, as in the paper (the code adds it twice); the exact pi; the words of the sentences.
    """
    paid = BudgetReward(scale=scale, most=length_max, deviation=deviation, malformed=format_error)
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        source=AnnouncedBudgets(size=group_size, shares=shares, prefixes=prefixes),
        shape=(paid,),
        advantage=HierarchicalAdvantage(paid=paid, intra=intra_weight),
    )
