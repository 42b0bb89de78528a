"""XRPO."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Finite, Fraction, NonNegative, Whole, part
from policyopt.parts import Normalise
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.sources.draw import Embedder, InputEmbeddings
from policyopt.sources.program import Context, Question, Response, Rollout, Sampler


@part
class NoveltyAdvantage(Normalise):
    r"""A normalised reward, raised on right responses that are less likely than the group's mean.

    .. math:: A'_i = A_i + \min\big(\max(\lambda(1 - \eta_i), 0),\; \kappa \max(A_i, 0)\big),\qquad \eta_i = e^{s_i - \bar s},\qquad
              s_i = \frac{1}{|y_i|}\sum_t \log\pi_{old}(y_{i,t})

    s-bar is the mean over all responses of the group. Source: XRPO, arXiv:2510.06672.
    """

    novelty: NonNegative = 2.5
    """lambda."""
    cap: NonNegative = 0.5
    """kappa: largest rise, as a part of the advantage."""
    right: Finite = 0.5
    """A reward above it makes a response right."""

    def likelihood(self, batch: Batch) -> Tensor:
        """s, [N]."""
        return masked_mean(batch.old_logp, batch.mask, dim=-1)

    def eta(self, batch: Batch) -> Tensor:
        """eta, [N]: below 1 for a response that is less likely than the others."""
        score = self.likelihood(batch)
        return (score - group_mean(score, batch.group)).exp()

    def __call__(self, batch: Batch) -> Tensor:
        advantage = super().__call__(batch)
        wanted = (self.novelty * (1 - self.eta(batch))).clamp(min=0)[:, None]
        right = (batch.reward > self.right)[:, None]
        return (
            advantage + torch.where(right, torch.minimum(wanted, self.cap * advantage.clamp(min=0)), 0.0) * batch.mask
        )


@dataclass
class Solved:
    """A problem of the batch with a response that the judge called right."""

    problem: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass
class Shown:
    """What a program lets the others know."""

    rewards: list[float]
    solved: Solved | None


@cache
def quantile(p: float, freedom: int) -> float:
    """The p-quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


@part
class Allocated(Rollout):
    r"""Rounds of drawing in which a batch's budget goes where it narrows the estimate of a prompt's mean reward most.

    .. math:: \Pi_q = h_q(n_q) - h_q(n_q + 1) + \lambda\sqrt{\frac{\log(1 + T)}{n_q}},\qquad
              h_q(n) = t_{1-\alpha/2,\,n-1}\,\frac{s_q}{\sqrt n}

    n_q rewards of prompt q have the standard deviation s_q (ddof 1), T were drawn for all prompts. Every prompt has
    ``base`` responses first; the rest of ``size`` per prompt is shared out in ``phases`` - 1 rounds, one response after
    the other to the prompt of the largest priority, with n_q, not s_q, brought up to date. A prompt without a success is
    asked with up to ``examples`` solved problems before it, those whose mean token vectors are nearest. They come from a
    corpus that grows as the run goes on, with what the batch has solved so far. Source: XRPO, arXiv:2510.06672, from
    third parties' descriptions. Our reading: the corpus holds one answer to each problem, the latest, of the last
    ``corpus`` problems that were solved; a problem is never shown its own answer, nor more examples than leave room for
    a response; seeded responses are trained on in the context that they answer.
    """

    base: Annotated[int, Field(ge=2)] = 4
    """Responses to each prompt in the first round; a spread takes two."""
    phases: Count = 3
    """Rounds, the first one included."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """One minus the level of the interval."""
    bonus: NonNegative = 0.5
    """lambda: how much prompts of few responses are preferred."""
    examples: Whole = 2
    """K: solved problems before one that was never solved."""
    example_tokens: Count = 256
    """Most tokens of a solved problem with its answer; the end is cut off."""
    corpus: Whole = 1024
    """Solved problems that are remembered from step to step, the latest ones."""
    success: Fraction = 0.5
    """A score above it is a success."""
    embedder: Embedder = InputEmbeddings()
    """What problems are compared by."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    def __post_init__(self) -> None:
        if self.base > self.size:
            raise ValueError(f"base is {self.base}, more than the {self.size} responses (size) that a prompt has")

    def half_width(self, n: int, spread: float) -> float:
        """h_q(n), 0 for a prompt whose rewards are all equal."""
        return quantile(1 - self.alpha / 2, n - 1) * spread / math.sqrt(n) if spread else 0.0

    def optimism(self, n: int, total: int) -> float:
        """The bonus of a prompt with n of all ``total`` responses."""
        return self.bonus * math.sqrt(math.log1p(total) / n)

    def priority(self, n: int, spread: float, total: int) -> float:
        """Pi_q."""
        return self.half_width(n, spread) - self.half_width(n + 1, spread) + self.optimism(n, total)

    def share(self, rewards: Sequence[Sequence[float]], budget: int) -> list[int]:
        """How many of ``budget`` further responses each prompt has, given its rewards so far (NaN for a response without
        one, which counts in no spread)."""
        known = [[float(x) for x in r if not math.isnan(x)] for r in rewards]
        spread = [statistics.stdev(r) if len(r) > 1 else 0.0 for r in known]
        count = [len(r) for r in rewards]
        total = sum(count)
        for i in range(budget):
            rank = [self.priority(n, s, total + i) for n, s in zip(count, spread, strict=True)]
            count[rank.index(max(rank))] += 1
        return [n - len(r) for n, r in zip(count, rewards, strict=True)]

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows: list[Response] = []
        rewards: list[float] = []
        asked, extra = question.tokens, self.base
        async with context.round as together:
            for phase in range(self.phases):
                if extra:
                    fresh = await self.respond(question, context, asked, extra, phase)
                    rows += fresh
                    rewards += [v.score for v in await context.judge(fresh)]
                right = [r for r, reward in zip(rows, rewards, strict=True) if reward > self.success]
                example = Solved(question.tokens, tuple(right[0].tokens)) if right else None
                everyone = await together.meet(question.key, Shown(rewards, example))
                if phase + 1 < self.phases:
                    every = [shown.rewards for shown in everyone.values()]
                    left = self.size * len(every) - sum(map(len, every))
                    counts = self.share(every, left // (self.phases - 1 - phase))
                    extra = counts[list(everyone).index(question.key)]
                    asked = question.tokens if right else self.seeded(question, context, everyone)
        if question.key == next(iter(everyone)):  # one of the batch, for all
            self.remember(context.notes, everyone)
        return rows

    async def respond(
        self, question: Question, context: Context, asked: tuple[int, ...], n: int, phase: int
    ) -> list[Response]:
        """The responses of a phase, in the context that the prompt is asked in."""
        fresh = await context.sampler.generate(
            asked, n=n, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, phase)
        )
        for response in fresh:
            response.context = asked if asked != question.tokens else ()
            response.origin = int(asked != question.tokens)
        return fresh

    def remember(self, notes: dict[str, Any], everyone: Mapping[tuple[int, ...], Shown]) -> None:
        """Add what a batch has solved to the corpus."""
        corpus = {tuple(problem): answer for problem, answer in notes.get("solved", ())}
        for shown in everyone.values():
            if shown.solved:
                corpus.pop(shown.solved.problem, None)
                corpus[shown.solved.problem] = shown.solved.answer
        notes["solved"] = [[list(p), list(a)] for p, a in corpus.items()][max(0, len(corpus) - self.corpus) :]

    def known(self, question: Question, context: Context, everyone: Mapping[tuple[int, ...], Shown]) -> list[Solved]:
        """The other problems that were solved, at earlier steps or in the batch."""
        corpus = {tuple(p): Solved(tuple(p), tuple(a)) for p, a in context.notes.get("solved", ())}
        corpus |= {shown.solved.problem: shown.solved for shown in everyone.values() if shown.solved}
        corpus.pop(question.tokens, None)
        return list(corpus.values())

    def seeded(
        self, question: Question, context: Context, everyone: Mapping[tuple[int, ...], Shown]
    ) -> tuple[int, ...]:
        """The prompt with the solved problems that are most like it before it, the nearest one last."""
        solved = self.known(question, context, everyone)
        if not solved or not self.examples:
            return question.tokens
        like = self.likeness(question.tokens, [s.problem for s in solved], context.sampler)
        nearest = sorted(range(len(solved)), key=lambda i: (-float(like[i]), i))[: self.examples]
        seeded = question.tokens
        for i in nearest:
            longer = (*(*solved[i].problem, *solved[i].answer)[: self.example_tokens], *seeded)
            seeded = longer if len(longer) <= context.room else seeded
        return seeded

    def likeness(self, text: tuple[int, ...], others: Sequence[tuple[int, ...]], sampler: Sampler) -> Tensor:
        """Cosines between the mean token vector of a text and those of others, [M]."""
        own, *theirs = [
            torch.nn.functional.normalize(self.embedder(torch.tensor(x), sampler).double().mean(0), dim=0)
            for x in (text, *others)
        ]
        return torch.stack(theirs) @ own


@method(
    parent=grpo,
    arxiv="2510.06672",
    code="UIUC-MLSys/XRPO",
    confidence="secondary",
    claim=Claim(
        "Responses go to the prompts that are least understood, and unexpected right answers count more: sooner, "
        "and further.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.02),),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def xrpo(
    novelty: float = 2.5,
    cap: float = 0.5,
    base: int = 4,
    phases: int = 3,
    alpha: float = 0.05,
    bonus: float = 0.5,
    examples: int = 2,
    corpus: int = 1024,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.04,
    epochs: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Responses go to the prompts that are least understood, hopeless ones are shown solved problems, and unexpected
    right answers earn more.

    .. math:: \Pi_q = h_q(n_q) - h_q(n_q + 1) + \lambda\sqrt{\log(1 + T)/n_q},\qquad
              A'_i = A_i + \min\big(\max(\lambda_{nov}(1 - \eta_i), 0), \kappa A_i\big)

    h is the half width of the Student interval of a prompt's mean reward; eta compares a response's mean
    log-probability with the group's; A is GRPO's advantage, over groups of unlike size with ``group_size`` responses on
    average. The last ``corpus`` solved problems are remembered from step to step. lambda_nov = ``novelty``, kappa =
    ``cap``, lambda = ``bonus``. Source: arXiv:2510.06672, from third parties' descriptions: the form of the bonus and of
    the rise are recalled, alpha and lambda are not known. Our reading: the mean of the log-probabilities runs over all
    responses of the group; seeded responses are trained on in their context.
    """
    return grpo(low, high, kl_coef, epochs=epochs).replace(
        source=Allocated(
            size=group_size, base=base, phases=phases, alpha=alpha, bonus=bonus, examples=examples, corpus=corpus
        ),
        advantage=NoveltyAdvantage(novelty=novelty, cap=cap),
    )
