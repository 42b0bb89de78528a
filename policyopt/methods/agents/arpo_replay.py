"""ARPO (replay)."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import Count, Curriculum, Finite, Label, NonNegative, Positive, Shape, part
from policyopt.parts import PPOClip, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

X = TypeVar("X")


@part
class ReplayedSuccess(Group):
    r"""A group; where all of it failed, one earlier success at the same prompt stands in the place of its first response.

    .. math:: \mathrm{std}(e) < \sigma_0,\quad \bar e < \mu_0,\quad B_q \ne \emptyset:\qquad y_1 \sim \mathrm{Uniform}(B_q)

    e are the scores of the group (population std), B_q the last ``capacity`` responses to the prompt that the policy itself
    gave and that scored above ``success``; those of a step are remembered after it was decided. The log-probabilities of what
    is replayed are those of the policy as it is now, so that its ratios begin at 1. It is ``origin`` 1: the log's accuracy is
    that of what was drawn. Source: ARPO, arXiv:2505.16282, and the authors' code (dvlab-research/ARPO). Our reading: the store
    holds the last ``prompts`` prompts.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})
    plays: ClassVar[bool] = True

    capacity: Count = 8
    """Successes that are kept of a prompt, the latest."""
    success: Finite = 0.1
    """A score above it is a success."""
    spread: NonNegative = 0.05
    """sigma_0."""
    mean: Finite = 0.2
    """mu_0: a group of little spread whose mean is below it has failed, even where that is above 0."""
    prompts: Count = 1024
    """Prompts of which successes are kept, those that had one last."""

    def failed(self, results: Sequence[float]) -> bool:
        """Whether a whole group has failed."""
        return bool(results) and statistics.pstdev(results) < self.spread and statistics.fmean(results) < self.mean

    def kept(self, stored: Sequence[X], fresh: Sequence[tuple[X, float]]) -> list[X]:
        """The store of a prompt once the responses of a group, with their scores, are there too: first in, first out."""
        return [*stored, *(what for what, score in fresh if score > self.success)][-self.capacity :]

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        verdicts = await context.judge(group)
        store = context.notes.setdefault("successes", {})
        name = question.name or " ".join(map(str, question.tokens))
        stored, rows = store.pop(name, []), list(group)
        if stored and self.failed([v.score for v in verdicts if v.rewarded]):
            place = random.Random(repr(("replayed", question.key))).randrange(len(stored))
            rows[0] = await again(stored[place], question, context)
            context.count(replayed=1.0)
        fresh = [(plain(r, question), v.score) for r, v in zip(group, verdicts, strict=True) if v.rewarded]
        if kept := self.kept(stored, fresh):
            store[name] = kept
        while len(store) > self.prompts:
            store.pop(next(iter(store)))
        return rows


@part
class ComponentCost(Shape):
    r"""What something costs that the judge, or the world, counts: :math:`R_i \leftarrow R_i - c\,\min(x_i, m)`.

    Where nobody counts it, nothing is taken off. Source: ARPO for GUI agents, arXiv:2505.16282 (an action that cannot be read);
    for an attempt to do what an attacker asks for, as RedTeamCUA, arXiv:2505.21936, has it counted, it serves as well.
    """

    component: Label = "tool_errors"
    """What x is called."""
    coef: Finite = 0.5
    """c."""
    most: Positive = 1.0
    """m: what comes more often costs no more."""

    def __call__(self, batch: Batch) -> Batch:
        if self.component not in batch.components():
            return batch
        return batch.replace(reward=batch.reward - self.coef * batch.component(self.component).clamp(max=self.most))


@part
class AmongFew(Curriculum):
    """Every prompt is as likely at every step, so that those of a task that makes its prompts on demand come again: they are
    drawn among ``pool``. Source: ARPO for GUI agents, arXiv:2505.16282, which trains on 128 tasks."""

    def weights(self, memory: Tensor) -> Tensor:
        return torch.ones(len(memory), dtype=torch.float64)


def plain(response: Response, question: Question) -> dict[str, Any]:
    """A response that was judged as JSON-able data, for :func:`again`."""
    verdict = response.verdict
    assert verdict is not None
    return {
        "prompt": list(response.context or question.tokens),
        "tokens": list(response.tokens),
        "own": list(response.own),
        "stop_reason": response.stop_reason,
        "temperature": response.temperature,
        "columns": dict(response.columns),
        "verdict": {
            "score": verdict.score, "correct": verdict.correct, "formatted": verdict.formatted, "reason": verdict.reason,
            "parts": dict(verdict.parts),
        },
    }  # fmt: skip


async def again(stored: Mapping[str, Any], question: Question, context: Context) -> Response:
    """A response that :func:`plain` has kept, as the policy of now sees it."""
    prompt, tokens, own = tuple(stored["prompt"]), tuple(stored["tokens"]), list(stored["own"])
    found = await context.sampler.logprobs(prompt, tokens, temperature=stored["temperature"])
    found.own, found.origin, found.stop_reason = own, 1, stored["stop_reason"]
    if own:  # what others wrote has no probability
        found.logp = [x if mine else 0.0 for x, mine in zip(found.logp, own, strict=True)]
        found.entropy = [x if mine else 0.0 for x, mine in zip(found.entropy, own, strict=True)]
    found.context = prompt if prompt != question.tokens else ()
    found.columns, found.verdict = dict(stored["columns"]), Verdict(**stored["verdict"])
    return found


@method(
    parent=grpo,
    arxiv="2505.16282",
    code="dvlab-research/ARPO",
    confidence="code",
    claim=Claim(
        "Where a group fails as a whole an earlier success keeps it teaching: more of the groups have a gradient, and more tasks are solved.",
        "maze",
        (Effect("signal/groups", "higher", 0.02), Effect("accuracy", "higher", 0.02)),
        both={"steps": 20},
        ours={"pool": 32},
        theirs={"high": 0.3, "kl-coef": 0.0},
    ),
)
def arpo_replay(
    capacity: int = 8, success: float = 0.1, spread: float = 0.05, mean: float = 0.2, cost: float = 0.5,
    costly: str = "tool_errors", pool: int | None = 128, low: float | None = 0.2,
    high: float | None = 0.3, dual: float | None = 3.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Agentic Replay Policy Optimization: where a whole group has failed, one of its rows is an earlier success at the same
    task.

    .. math:: \mathrm{std}(e) < \sigma_0,\ \bar e < \mu_0:\ y_1 \sim B_q,\qquad
              R_i = e_i - c\,1[\text{an action of } i \text{ cannot be read}],\qquad
              A_i = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon}

    B_q are the last ``capacity`` successes at task q (:class:`ReplayedSuccess`). The group keeps its size, and the row that is
    replayed counts as if it had been drawn now, without a correction. Groups with a success are GRPO's, those of successes
    alone too. An action that cannot be read costs ``cost``: it is counted under ``costly`` by the world. The rest is PPO's clip
    with two bounds and a ceiling over the mean of tokens, no KL. Tasks have to come again: of a task that makes them on demand
    ``pool`` are drawn from, evenly (None: every one once a pass, which is enough for a short list). Source: arXiv:2505.16282
    and the authors' code (dvlab-research/ARPO), where tasks that are never solved are taken out beforehand; the ceiling is that
    of their trainer (verl).
    """
    return grpo(low, high, kl_coef=0.0).replace(
        source=ReplayedSuccess(size=group_size, capacity=capacity, success=success, spread=spread, mean=mean),
        shape=(ComponentCost(component=costly, coef=cost),) if cost else (),
        surrogate=PPOClip(low=low, high=high, dual=dual),
        aggregate=TokenMean(),
        curriculum=AmongFew(pool=pool) if pool else None,
    )
