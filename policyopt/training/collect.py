"""From prompts to a batch: draw, judge, shape, filter, and draw again where filters leave gaps."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from policyopt.batch import Batch, columns_of, make_batch
from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.objective import kept, shaped
from policyopt.recipe import Recipe
from policyopt.rollout.base import Prompt, Response
from policyopt.tasks.base import Example, Verdict
from policyopt.tasks.judging import JudgePool
from policyopt.training.prompts import PromptStream


@dataclass
class Drawn:
    """A batch with what the log should know of it."""

    batch: Batch | None
    """None where no row was left to train on."""
    records: list[dict[str, Any]]
    """One JSON-able record per row of the batch: id, prompt, response, answer, correct, reason, formatted."""
    stats: dict[str, float] = field(default_factory=dict)


def pad(rows: Sequence[Sequence[float]], dtype: torch.dtype) -> Tensor:
    """Lists of unlike length as one right-padded tensor [N, T] (T at least 1)."""
    width = max(1, max(map(len, rows), default=1))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)


def to_batch(
    prompts: Sequence[Sequence[int]], responses: Sequence[Response], verdicts: Sequence[Verdict], group: Sequence[int], budget: int,
    dtype: torch.dtype = torch.float32,
) -> Batch:  # fmt: skip
    """Responses as a batch; all sequences have one entry per row."""
    return make_batch(
        mask=pad([[1.0] * len(r.tokens) for r in responses], dtype),
        tokens=pad([r.tokens for r in responses], torch.long),
        prompt=pad(prompts, torch.long),
        prompt_mask=pad([[1.0] * len(p) for p in prompts], dtype),
        group=torch.tensor(group, dtype=torch.long),
        truncated=torch.tensor([0.0 if r.finished else 1.0 for r in responses], dtype=dtype),
        budget=torch.full((len(responses),), budget, dtype=torch.long),
        version=torch.tensor([r.version for r in responses], dtype=torch.long),
        reward=torch.tensor([v.score for v in verdicts], dtype=dtype),
        correct=torch.tensor([float(v.correct) for v in verdicts], dtype=dtype),
        formatted=torch.tensor([float(v.formatted) for v in verdicts], dtype=dtype),
        source=torch.tensor([r.source for r in responses], dtype=torch.long),
        temperature=torch.tensor([r.temperature for r in responses], dtype=dtype),
        old_logp=pad([r.logp for r in responses], dtype),
        sampled_entropy=pad([r.entropy for r in responses], dtype),
    )


@dataclass
class Collector:
    """Draws the batches of a run."""

    engine: LocalEngine
    stream: PromptStream
    judge: JudgePool
    budget: int
    seed: int
    max_failed: float = 1.0
    memory: dict[str, list[float]] = field(default_factory=dict)
    """What the recipe remembers of prompts, by their id."""

    def draw(self, recipe: Recipe, step: int, prompts: int) -> Drawn:
        """A batch of ``prompts`` prompts that pass the recipe's filters, as far as ``rollout.rounds`` rounds of
        drawing find them.

        Raises :class:`~policyopt.errors.UserError` when the judge fails on more than ``max_failed`` of the responses.
        """
        pieces: list[Batch] = []
        records: list[dict[str, Any]] = []
        stats = {
            "prompts": 0.0,
            "responses": 0.0,
            "tokens": 0.0,
            "judge/failed": 0.0,
            "time/rollout": 0.0,
            "time/judge": 0.0,
            "time/score": 0.0,
        }
        groups, skipped = 0, self.stream.skipped
        for _ in range(recipe.rollout.rounds):
            if groups >= prompts:
                break
            piece, found = self._round(recipe, step, prompts - groups, int(stats["prompts"]), stats)
            pieces.append(piece)
            records += found
            groups += len(set(piece.group.tolist()))
        stats["filtered"] = 1 - groups / stats["prompts"]
        stats["prompts/skipped"] = float(self.stream.skipped - skipped)
        if groups == 0:
            return Drawn(None, [], stats)
        return Drawn(join(pieces).to(self.engine.device), records, stats)

    def _round(
        self, recipe: Recipe, step: int, prompts: int, first: int, stats: dict[str, float]
    ) -> tuple[Batch, list[dict[str, Any]]]:
        """One round of drawing; groups are numbered from ``first``."""
        taken = self.stream.take(prompts)
        start = time.perf_counter()
        between = JudgeBetween(lambda items: self._verdicts(items, stats))
        asked = [
            Prompt(tokens, self.budget, (self.seed, step, first + i), partial(between, example))
            for i, (example, tokens) in enumerate(taken)
        ]
        drawn = self.engine.sampler.run([recipe.rollout.draw(p, self.engine.sampler) for p in asked])
        stats["time/rollout"] += time.perf_counter() - start - between.seconds
        rows = [(i, r) for i, responses in enumerate(drawn) for r in responses]
        texts = self.engine.policy.decode([r.tokens for _, r in rows])
        fresh = [(i, r) for i, r in rows if r.verdict is None]
        for (_, response), verdict in zip(
            fresh, self._verdicts([(taken[i][0], r) for i, r in fresh], stats), strict=True
        ):
            response.verdict = verdict
        verdicts = [r.verdict for _, r in rows if r.verdict is not None]
        self._limit(verdicts, stats)
        batch = to_batch(
            [taken[i][1] for i, _ in rows],
            [r for _, r in rows],
            verdicts,
            [first + i for i, _ in rows],
            self.budget,
            self.engine.dtype,
        )
        if recipe.memory is not None:
            unknown = [math.nan] * recipe.memory.width
            known = [self.memory.get(taken[i][0].id, unknown) for i, _ in rows]
            batch = batch.replace(history=torch.tensor(known, dtype=self.engine.dtype))
        start = time.perf_counter()
        batch = self.engine.score(batch.to(self.engine.device), recipe)
        stats["time/score"] += time.perf_counter() - start
        batch = shaped(recipe, batch).cpu()
        stats["prompts"] += len(taken)
        stats["responses"] += len(rows)
        stats["tokens"] += float(batch.mask.sum())
        train = torch.tensor([r.role == "train" for _, r in rows])
        records = [
            record(taken[i][0], text, verdict) for ((i, _), text, verdict) in zip(rows, texts, verdicts, strict=True)
        ]
        batch = with_baseline(batch, train)
        records = [r for r, mine in zip(records, train.tolist(), strict=True) if mine]
        keep = kept(recipe, batch)
        return batch[keep], [r for r, mine in zip(records, keep.tolist(), strict=True) if mine]

    def _verdicts(self, items: Sequence[tuple[Example, Response]], stats: dict[str, float]) -> list[Verdict]:
        start = time.perf_counter()
        texts = self.engine.policy.decode([r.tokens for _, r in items])
        found = self.judge([(example, text) for (example, _), text in zip(items, texts, strict=True)])
        stats["time/judge"] += time.perf_counter() - start
        return found

    def _limit(self, verdicts: Sequence[Verdict], stats: dict[str, float]) -> None:
        failed = [v for v in verdicts if v.failed]
        stats["judge/failed"] += len(failed)
        if len(failed) > self.max_failed * len(verdicts):
            raise UserError(
                f"the judge failed on {len(failed)} of {len(verdicts)} responses (the limit is {self.max_failed:.0%}, --judging.max-failed); "
                f"first: {failed[0].reason}"
            )


class JudgeBetween:
    """Verdicts for programs that are still drawing: what they ask for at the same time is judged together."""

    def __init__(self, judge: Callable[[Sequence[tuple[Example, Response]]], list[Verdict]]) -> None:
        self._judge = judge
        self._waiting: list[tuple[Example, Sequence[Response], asyncio.Future[list[Verdict]]]] = []
        self.seconds = 0.0

    async def __call__(self, example: Example, responses: Sequence[Response]) -> list[Verdict]:
        """The verdicts on some responses to a question."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Verdict]] = loop.create_future()
        if not self._waiting:  # runs after every program that is ready now has had its turn to ask
            loop.call_soon(loop.call_soon, self._run)
        self._waiting.append((example, responses, done))
        return await done

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        start = time.perf_counter()
        try:
            verdicts = iter(self._judge([(example, r) for example, responses, _ in waiting for r in responses]))
        except BaseException as error:  # hand it to whoever waits, rather than to the event loop
            for _, _, done in waiting:
                done.set_exception(error)
            return
        finally:
            self.seconds += time.perf_counter() - start
        for _, responses, done in waiting:
            done.set_result([next(verdicts) for _ in responses])


def record(example: Example, text: str, verdict: Verdict) -> dict[str, Any]:
    """What the log keeps of a judged response."""
    return {
        "id": example.id,
        "prompt": "\n".join(m["content"] for m in example.prompt),
        "response": text,
        "answer": example.answer,
        "score": verdict.score,
        "correct": verdict.correct,
        "formatted": verdict.formatted,
        "reason": verdict.reason,
    }


def with_baseline(batch: Batch, train: Tensor) -> Batch:
    """Take the rows that are not trained on out of a batch; their reward becomes ``baseline_reward`` of their group."""
    if bool(train.all()):
        return batch
    baseline = {int(g): float(r) for g, r in zip(batch.group[~train], batch.reward[~train], strict=True)}
    rows = batch[train]
    return rows.replace(baseline_reward=torch.tensor([baseline[int(g)] for g in rows.group], dtype=rows.reward.dtype))


def join(pieces: Sequence[Batch]) -> Batch:
    """Batches of unlike width as one."""
    if len(pieces) == 1:
        return pieces[0]
    columns = [columns_of(p) for p in pieces]
    width = {name: max(c[name].shape[1] for c in columns) for name in columns[0] if columns[0][name].dim() == 2}
    return make_batch(
        **{
            name: torch.cat([nn.functional.pad(c[name], (0, width[name] - c[name].shape[1])) for c in columns])
            if name in width
            else torch.cat([c[name] for c in columns])
            for name in columns[0]
        }
    )
