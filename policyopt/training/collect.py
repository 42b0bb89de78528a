"""From prompts to a batch: draw, judge, shape, filter, and draw again where filters leave gaps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from policyopt.batch import Batch, make_batch
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
        asked = [Prompt(tokens, self.budget, (self.seed, step, first + i)) for i, (_, tokens) in enumerate(taken)]
        drawn = self.engine.sampler.run([recipe.rollout.draw(p, self.engine.sampler) for p in asked])
        stats["time/rollout"] += time.perf_counter() - start
        rows = [(i, r) for i, responses in enumerate(drawn) for r in responses]
        texts = self.engine.policy.decode([r.tokens for _, r in rows])
        verdicts = self._judge([(taken[i][0], text) for (i, _), text in zip(rows, texts, strict=True)], stats)
        batch = to_batch(
            [taken[i][1] for i, _ in rows],
            [r for _, r in rows],
            verdicts,
            [first + i for i, _ in rows],
            self.budget,
            self.engine.dtype,
        )
        start = time.perf_counter()
        batch = self.engine.columns(
            batch.to(self.engine.device), recipe.needs & {"ref_logp"}, recipe.rollout.temperature
        )
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

    def _judge(self, items: list[tuple[Example, str]], stats: dict[str, float]) -> list[Verdict]:
        start = time.perf_counter()
        verdicts = self.judge(items)
        failed = [v for v in verdicts if v.failed]
        stats["judge/failed"] += len(failed)
        stats["time/judge"] += time.perf_counter() - start
        if len(failed) > self.max_failed * len(verdicts):
            raise UserError(
                f"the judge failed on {len(failed)} of {len(verdicts)} responses (the limit is {self.max_failed:.0%}, --judging.max-failed); "
                f"first: {failed[0].reason}"
            )
        return verdicts


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
    width = {name: max(getattr(p, name).shape[1] for p in pieces) for name in ("mask", "prompt")}

    def wide(name: str, x: Tensor) -> Tensor:
        target = width["prompt"] if name.startswith("prompt") else width["mask"]
        return x if x.dim() < 2 else torch.nn.functional.pad(x, (0, target - x.shape[1]))

    names = [name for name, x in pieces[0].to_dict().items() if isinstance(x, Tensor)]
    return make_batch(**{name: torch.cat([wide(name, getattr(p, name)) for p in pieces]) for name in names})
