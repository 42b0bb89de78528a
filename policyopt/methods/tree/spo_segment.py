"""SPO (Segment Policy Optimization)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, Filter, Positive, Unit, part
from policyopt.parts import EdgeAdvantage, MeanOver, Selector, TruncatedReward
from policyopt.parts.advantage.tree import FLAT, lineage, on_tokens, once_each
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Levels, Tree
from policyopt.sources.program import Context, Question, Response, Rollout


@part
class Credited(Filter):
    """Leave out responses without any advantage, which would cost a pass and teach nothing."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, batch: Batch) -> Tensor:
        return ((batch.advantage != 0) & batch.mask.bool()).any(-1)


@part
class Unlikely(Selector):
    """The tokens that were drawn with a probability below a threshold. Source: SPO, arXiv:2505.23564."""

    threshold: Positive = 0.9
    """The probability under the policy that wrote the token; above 1 all tokens are picked."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask.bool() & (batch.old_logp.exp() < self.threshold)


@part
class EdgesOnce(MeanOver):
    r"""A mean over tokens in which an edge of a tree counts once, however many leaves lie behind it.

    .. math:: w_{i,t} = \frac{M_{i,t}}{d_{i,t}}\,\frac{\sum_{jk} 1}{\sum_{jk} M_{jk}/d_{jk}}

    d is the number of rows that share the token's node. An edge without advantage does not count at all. Source: SPO,
    arXiv:2505.23564, and the authors' code (AIFrameResearch/SPO).
    """

    def count(self, batch: Batch) -> Tensor:
        """M / d, [N, T]."""
        once = on_tokens(once_each(lineage(batch)[:, 1:], super().count(batch)), batch)
        return torch.where(batch.advantage.abs() > FLAT, super().count(batch) * once, 0.0)


def cutpoints(logp: Sequence[float], threshold: float, interval: int) -> list[int]:
    """Every ``interval``-th, from the first on, of the places where a token was drawn with a probability below
    ``threshold``."""
    return [t for t, x in enumerate(logp) if math.exp(x) < threshold][::interval]


@part
class Chain(Rollout):
    """A group of responses, each cut into segments at tokens that were uncertain; ``samples`` fresh continuations from
    each cut say what the state there is worth.

    The continuations are not trained on. One that does not end within the budget is worth 0. Source: SPO-chain,
    arXiv:2505.23564, and the authors' code (AIFrameResearch/SPO).
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Probability below which a token is uncertain."""
    interval: Count = 5
    """One cut at every so many uncertain tokens."""
    samples: Count = 9
    """Continuations from each cut."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        rows = await context.sampler.generate(
            question.tokens, n=self.size, max_tokens=question.budget, temperature=self.temperature, key=(*question.key, 0),
            keep=True,
        )  # fmt: skip
        worth = await asyncio.gather(*(self._values(i, r, question, context) for i, r in enumerate(rows)))
        count = 0
        for response, values in zip(rows, worth, strict=True):
            response.ends = [*self._cuts(response), len(response.tokens)]
            response.values = [*values, math.nan]
            response.nodes = list(range(count + 1, count + 1 + len(response.ends)))
            count += len(response.ends)
        return rows

    def _cuts(self, response: Response) -> list[int]:
        return cutpoints(response.logp, self.threshold, self.interval)

    async def _values(self, number: int, response: Response, question: Question, context: Context) -> list[float]:
        """The mean reward of fresh continuations from each cut of a response, of those that have one; NaN where none has."""
        drawn = await asyncio.gather(
            *(
                context.sampler.generate(
                    (*question.tokens, *response.tokens[:cut]), n=self.samples, max_tokens=question.budget - cut,
                    temperature=self.temperature, key=(*question.key, 1, number, cut),
                )
                for cut in self._cuts(response)
            )
        )  # fmt: skip
        whole = [
            [
                Response([*response.tokens[:cut], *r.tokens], [], [], r.stop_reason, temperature=self.temperature)
                for r in rows
            ]
            for cut, rows in zip(self._cuts(response), drawn, strict=True)
        ]
        said = iter(await context.judge([r for rows in whole for r in rows]))
        worth = [[v.score if r.finished else 0.0 for r, v in zip(rows, said) if v.rewarded] for rows in whole]
        return [sum(x) / len(x) if x else math.nan for x in worth]


@method(
    parent=ppo,
    arxiv="2505.23564",
    code="AIFrameResearch/SPO",
    confidence="code",
    claim=Claim(
        "Credit of segments, from values that are sampled in the middle, teaches more in a step than that of "
        "whole responses.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.05),),
        against="grpo",
        both={"steps": 10},
        ours={"epochs": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def spo_segment(
    variant: Literal["chain", "tree"] = "chain",
    prob_threshold: float = 0.9,
    interval: int = 5,
    samples: int = 9,
    widths: tuple[int, ...] = (6, 6, 6),
    segment: int = 30,
    scale: Literal["none", "siblings"] = "none",
    whiten: bool = False,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-4,
    epochs: int | None = None,
    edges: int | None = 32,
    replay: int | None = None,
    group_size: int = 8,
) -> Recipe:
    r"""Segment Policy Optimization: segments have the change of a Monte-Carlo value as credit; only uncertain tokens are
    trained on.

    .. math:: A_{i,t} = V_{k+1} - V_k,\qquad L = \frac{\sum_{i,t} M_{i,t}\max\big(-r_{i,t}A_{i,t}, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_{i,t}\big)}{\sum_{i,t} M_{i,t}}
              + \beta\,k3,\qquad M_{i,t} = [\pi_{old}(y_{i,t}) < \rho]

    ``chain``: each of ``group_size`` responses is cut at every ``interval``-th uncertain token; V is the mean reward of
    ``samples`` fresh continuations from the cut, and the response's own reward at its end; what lies before the first
    cut has no credit. ``tree``: nodes of ``segment`` tokens have ``widths[d]`` children at depth d, those of the last
    level run to the end, and V of a node is the mean over its children; ``group_size`` is the product of the widths.
    Every leaf is a row with its whole path, an edge counts once however many leaves lie behind it, and edges without
    advantage are left out. Of the others a step trains on at most ``edges`` random ones for each prompt; what is left
    has its turn at one of the next ``replay`` steps (7 for trees), with the probabilities of the policy that wrote it,
    and no edge is trained on twice. rho = ``prob_threshold``; ``scale`` divides by the spread of the siblings. Truncated
    responses are worth 0. Source: arXiv:2505.23564; defaults from the authors' code for short answers, where the
    sampling temperature is 0.6 and the advantage is whitened too. Our reading: an edge is trained on in a row that
    passes it, an edge of certain tokens alone takes no place, and a question that comes again within the replay has its
    edges counted apart.
    """
    chain = variant == "chain"
    uncertain = Unlikely(threshold=prob_threshold)
    passes = epochs or (2 if chain else 1)
    turns = None if chain else edges
    earlier = replay if replay is not None else 0 if turns is None else 7
    return ppo(low, high, kl_coef=0.0).replace(
        source=Chain(size=group_size, threshold=prob_threshold, interval=interval, samples=samples)
        if chain
        else Tree(size=math.prod(widths), branching=Levels(widths=widths, segment=segment)),
        shape=(TruncatedReward(reward=0.0),),
        advantage=EdgeAdvantage(
            values="continuations" if chain else "children",
            scale=scale,
            only=uncertain,
            whiten=whiten,
            per_prompt=turns,
        ),
        select=(Credited(),) if turns is not None else (),
        weight=(MeanOver(tokens=uncertain) if chain else EdgesOnce(tokens=uncertain),),
        regularizers=(KL(coef=kl_coef, estimator="k3"),) if kl_coef else (),
        critic=None,
        update=Update(epochs=passes, replay=earlier),
    )
