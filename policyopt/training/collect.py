"""From prompts to a batch: draw, judge, shape, filter, and draw again where filters leave gaps."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from policyopt.engine.protocol import Engine
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Message, Verdict
from policyopt.judging.pool import JudgePool
from policyopt.objective import kept, shaped
from policyopt.recipe import Recipe
from policyopt.rows import Batch, join
from policyopt.sources.program import Answered, Context, Question, Response, Rollout, Round, Step, line_ends
from policyopt.training.prompts import PromptStream
from policyopt.training.rows import noise, to_batch, with_baseline, with_steps

Q = TypeVar("Q")
X = TypeVar("X")


@dataclass
class Drawn:
    """A batch with what the log should know of it."""

    batch: Batch | None
    """None where no row was left to train on. Its records are what the log keeps of each response."""
    stats: dict[str, float] = field(default_factory=dict)


@dataclass
class Held:
    """Responses that a program goes on with at the next step."""

    example: Example
    tokens: tuple[int, ...]
    key: tuple[int, ...]
    responses: list[Response]
    step: int
    """The step at which they were held."""

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Held:
        """Read back what ``dataclasses.asdict`` made, JSON in between."""
        example = Example(**saved["example"] | {"prompt": tuple(saved["example"]["prompt"])})
        pairs = {i: [(ids, logp) for ids, logp in r["top"]] for i, r in enumerate(saved["responses"])}
        responses = [
            Response(**r | {"top": pairs[i], "context": tuple(r["context"]), "verdict": None})
            for i, r in enumerate(saved["responses"])
        ]
        return cls(example, tuple(saved["tokens"]), tuple(saved["key"]), responses, saved["step"])


@dataclass
class Collector:
    """Draws the batches of a run."""

    engine: Engine
    stream: PromptStream
    judge: JudgePool
    budget: int
    seed: int
    max_failed: float = 1.0
    memory: dict[str, list[float]] = field(default_factory=dict)
    """What the recipe remembers of prompts, by their id."""
    held: list[Held] = field(default_factory=list)
    """What is still being written."""
    run: str = "run"
    """What distinguishes the run from others: letters and digits."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the rollout program remembers from step to step."""

    def draw(self, recipe: Recipe, step: int, prompts: int) -> Drawn:
        """A batch of ``prompts`` prompts that pass the recipe's filters, as far as ``rollout.rounds`` rounds of
        drawing find them.

        Raises :class:`~policyopt.errors.UserError` when the judge fails on more than ``max_failed`` of the responses.
        """
        pieces: list[Batch] = []
        stats = {
            "prompts": 0.0,
            "prompts/unanswered": 0.0,
            "responses": 0.0,
            "tokens": 0.0,
            "judge/failed": 0.0,
            "time/rollout": 0.0,
            "time/judge": 0.0,
            "time/score": 0.0,
        }
        groups, skipped, answered = 0, self.stream.skipped, list[Answered]()
        computed = self.engine.sampler.computed
        for _ in range(recipe.rollout.rounds):
            if groups >= prompts:
                break
            piece = self._round(recipe, step, prompts - groups, int(stats["prompts"]), stats, answered)
            if piece is None:
                continue
            pieces.append(piece)
            groups += len(set(piece.group.tolist()))
        stats["filtered"] = 1 - groups / stats["prompts"]
        stats["prompts/skipped"] = float(self.stream.skipped - skipped)
        piece = self._beside(recipe, step, answered, int(stats["prompts"]), stats)
        if piece is not None:
            pieces.append(piece)
        stats["tokens/computed"] = float(self.engine.sampler.computed - computed)
        return Drawn(join(pieces) if any(map(len, pieces)) else None, stats)

    def _round(
        self, recipe: Recipe, step: int, prompts: int, first: int, stats: dict[str, float], answered: list[Answered]
    ) -> Batch | None:
        """One round of drawing; groups are numbered from ``first`` and added to ``answered``. No batch where every
        response is still under way."""
        going = [h for h in self.held if h.step != step]
        self.held = [h for h in self.held if h.step == step]
        fresh = self.stream.take(max(0, prompts - len(going)))
        taken = [*((h.example, h.tokens) for h in going), *fresh]
        start = time.perf_counter()
        judge: Between[Example, Verdict] = Between(lambda items: self._verdicts(self._read(items), stats))
        critic, together = Between(self._values), Round()
        program, held = recipe.rollout, dict(enumerate(going))
        asked = [
            self._asked(program, example, tokens, (self.seed, step, first + i), held.get(i), judge, critic, together)
            for i, (example, tokens) in enumerate(taken)
        ]
        drawn = self._run([program.draw(question, context) for question, context in asked])
        stats["time/rollout"] += time.perf_counter() - start - judge.seconds
        for (example, tokens), (question, _), responses in zip(taken, asked, drawn, strict=True):
            if any(r.later for r in responses):
                self.held.append(Held(example, tokens, question.key, [r for r in responses if r.later], step))
        for _, context in asked:
            for name, x in context.tally.items():
                stats[f"rollout/{name}"] = stats.get(f"rollout/{name}", 0.0) + x
        stats["prompts"] += len(taken)
        stats["prompts/unanswered"] += unanswered(recipe.rollout, drawn)
        if "solutions" in recipe.rollout.uses:
            unsolved = sum(not question.solution for question, _ in asked)
            stats["prompts/unsolved"] = stats.get("prompts/unsolved", 0.0) + unsolved
        groups = [Answered(e, q, r) for (e, _), (q, _), r in zip(taken, asked, drawn, strict=True)]
        answered += groups
        rows = [r for group in groups for r in group.responses if r.use != "wait"]
        stats["responses"] += len(rows)
        stats["tokens"] += sum(sum(r.own) if r.own else len(r.tokens) for r in rows)
        return self._piece(recipe, groups, first, stats)

    def _run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """What programs return; no sampler holds anything from one run to the next."""
        for other in self.engine.samplers.values():
            other.forget()
        return self.engine.sampler.run(programs)

    def _beside(
        self, recipe: Recipe, step: int, answered: list[Answered], first: int, stats: dict[str, float]
    ) -> Batch | None:
        """The groups that the program has beside those of the step's prompts."""
        judge: Between[Example, Verdict] = Between(lambda items: self._verdicts(self._read(items), stats))
        critic, together = Between(self._values), Round()

        def ask(example: Example) -> tuple[Question, Context] | None:
            try:
                tokens = self.engine.text.prompt(example.prompt)
            except UserError:  # the chat template refuses it
                return None
            if len(tokens) > self.stream.longest:
                return None
            asked.append(example)
            key = (self.seed, step, -len(asked))
            question, context = self._asked(recipe.rollout, example, tokens, key, None, judge, critic, together)
            return question, dataclasses.replace(context, encode=self.engine.text.literal)

        asked: list[Example] = []
        spec = getattr(self.judge, "judge", JudgeSpec("custom"))
        sampler, text = self.engine.sampler, self.engine.text
        at = Step((self.seed, step), self.run, spec, sampler, text.decode, ask, self.notes, stats)
        program = recipe.rollout.beside(answered, at)
        if program is None:
            return None
        start = time.perf_counter()
        [groups] = self._run([program])
        stats["time/rollout"] += time.perf_counter() - start - judge.seconds
        return self._piece(recipe, groups, first, stats)

    def _piece(self, recipe: Recipe, groups: Sequence[Answered], first: int, stats: dict[str, float]) -> Batch | None:
        """Groups as a batch, judged, scored, shaped and filtered."""
        rows = [(i, r) for i, group in enumerate(groups) for r in group.responses if r.use != "wait"]
        if not rows:
            return None
        texts = self.engine.text.decode_all([r.tokens for _, r in rows])
        verdicts = self._judged([(groups[i].example, r, text) for (i, r), text in zip(rows, texts, strict=True)], stats)
        responses = [r for _, r in rows]
        batch = to_batch(
            [groups[i].question.tokens for i, _ in rows],
            responses,
            verdicts,
            [first + i for i, _ in rows],
            self.budget,
            self.engine.dtype,
            recipe.needs,
        )
        batch = self._completed(recipe, batch, groups, rows, verdicts)
        batch = batch.with_records(
            [
                record(groups[i].example, text, verdict, self.engine.text.decode(r.context) if r.context else None)
                for (i, r), text, verdict in zip(rows, texts, verdicts, strict=True)
            ]
        )
        start = time.perf_counter()
        batch = self.engine.annotate(batch.to(self.engine.device), recipe)
        stats["time/score"] += time.perf_counter() - start
        batch = shaped(recipe, batch)
        if "baseline_reward" in recipe.rollout.provides and batch.baseline_reward is None:
            batch = with_baseline(batch, [r.use for r in responses])
        batch = batch[torch.tensor([r.use == "train" for r in responses], device=self.engine.device)]
        return batch[kept(recipe, batch)]

    def _completed(
        self, recipe: Recipe, batch: Batch, groups: Sequence[Answered], rows: Sequence[tuple[int, Response]],
        verdicts: Sequence[Verdict],
    ) -> Batch:  # fmt: skip
        """The batch with what the recipe asks for beyond responses and verdicts: noise, lines, what is remembered."""
        if "noise" in recipe.needs:
            places = [(i, j, r) for i, group in enumerate(groups) for j, r in enumerate(group.responses)]
            keys = [(*groups[i].question.key, j) for i, j, r in places if r.use != "wait"]
            batch = batch.replace(noise=noise(keys, batch.mask))
        if "step_end" in recipe.needs or batch.step_reward is not None:
            lines = [[end - 1 for end in line_ends(r.tokens, self.engine.text.line_breaks)] for _, r in rows]
            batch = with_steps(batch, [r for _, r in rows], verdicts, lines)
        if recipe.memory is not None:
            unknown = [math.nan] * recipe.memory.width
            known = [self.memory.get(groups[i].example.id, unknown) for i, _ in rows]
            batch = batch.replace(history=torch.tensor(known, dtype=self.engine.dtype))
        return batch

    def _asked(
        self, program: Rollout, example: Example, tokens: tuple[int, ...], key: tuple[int, ...], held: Held | None,
        judge: Between[Example, Verdict] | None, critic: Between[tuple[int, ...], float], together: Round,
    ) -> tuple[Question, Context]:  # fmt: skip
        """An example as the program sees it, with what was held of it at an earlier step, and what serves it."""
        text = self.engine.text
        question = Question(
            tokens,
            self.budget,
            key if held is None else held.key,
            text.solution(example.solution) if "solutions" in program.uses else None,
            example.prompt[-1]["content"],
            example.answer,
            () if held is None else tuple(held.responses),
        )
        context = Context(
            self.engine.sampler,
            program,
            None if judge is None else partial(judge, example),
            partial(critic, tokens),
            self.engine.samplers,
            encode=text.encode,
            decode=text.decode,
            end=text.eos[:1],
            frame=lambda instead: text.prompt(asked_instead(example.prompt, instead)),
            breaks=lambda: text.line_breaks,
            room=self.stream.longest,
            notes=self.notes,
            round=together,
        )
        return question, context

    def decoded(self, program: Rollout, examples: Sequence[Example]) -> float:
        """The share of questions that a program answers right with the first response that it returns.

        It has no judge to ask. A question that does not fit into the context counts as wrong.
        """
        critic, together = Between(self._values), Round()
        tokens = [self.engine.text.prompt(e.prompt) for e in examples]
        asked = [
            (example, self._asked(program, example, ids, (self.seed, -1, i), None, None, critic, together))
            for i, (example, ids) in enumerate(zip(examples, tokens, strict=True))
            if len(ids) <= self.stream.longest
        ]
        drawn = self._run([program.draw(*each) for _, each in asked])
        answers = [(example, rows[0]) for (example, _), rows in zip(asked, drawn, strict=True) if rows]
        return sum(verdict.correct for verdict in self.judge(self._read(answers))) / max(1, len(examples))

    def _values(self, items: Sequence[tuple[tuple[int, ...], Response]]) -> list[float]:
        """What the critic thinks of responses to prompts; of one that has ended, before its end token."""
        return self.engine.values([(*prompt, *r.tokens[: len(r.tokens) - r.finished]) for prompt, r in items])

    def _read(self, items: Sequence[tuple[Example, Response]]) -> list[tuple[Example, str]]:
        texts = self.engine.text.decode_all([r.tokens for _, r in items])
        return [(example, text) for (example, _), text in zip(items, texts, strict=True)]

    def _judged(self, rows: Sequence[tuple[Example, Response, str]], stats: dict[str, float]) -> list[Verdict]:
        """The verdict on each response: the one that its program asked for, or one of now."""
        fresh = [(example, r, text) for example, r, text in rows if r.verdict is None]
        found = self._verdicts([(example, text) for example, _, text in fresh], stats)
        for (_, response, _), verdict in zip(fresh, found, strict=True):
            response.verdict = verdict
        verdicts = [r.verdict for _, r, _ in rows if r.verdict is not None]
        self._limit(verdicts, stats)
        return verdicts

    def _verdicts(self, items: Sequence[tuple[Example, str]], stats: dict[str, float]) -> list[Verdict]:
        if not items:
            return []
        start = time.perf_counter()
        found = self.judge(items)
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


class Between(Generic[Q, X]):
    """Opinions on responses for programs that are still drawing: what they ask for at the same time is answered
    together."""

    def __init__(self, answer: Callable[[Sequence[tuple[Q, Response]]], list[X]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Q, Sequence[Response], asyncio.Future[list[X]]]] = []
        self.seconds = 0.0

    async def __call__(self, question: Q, responses: Sequence[Response]) -> list[X]:
        """The opinions on some responses to a question."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[X]] = loop.create_future()
        if not self._waiting:  # runs after every program that is ready now has had its turn to ask
            loop.call_soon(loop.call_soon, self._run)
        self._waiting.append((question, responses, done))
        return await done

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        start = time.perf_counter()
        try:
            found = iter(self._answer([(question, r) for question, responses, _ in waiting for r in responses]))
        except BaseException as error:  # hand it to whoever waits, rather than to the event loop
            for _, _, done in waiting:
                done.set_exception(error)
            return
        finally:
            self.seconds += time.perf_counter() - start
        for _, responses, done in waiting:
            done.set_result([next(found) for _ in responses])


def unanswered(rollout: Rollout, drawn: Sequence[Sequence[Response]]) -> int:
    """How many prompts a program returned no response to.

    Raises :class:`~policyopt.errors.UserError` where that is all of them, and for a response whose lists disagree.
    """
    name = type(rollout).__name__
    if not any(drawn):
        raise UserError(
            f"the rollout program {name} returned no response to any of {len(drawn)} prompts: draw() has to return a "
            "list with at least one Response"
        )
    for r in (r for responses in drawn for r in responses):
        sizes = {"logp": len(r.logp), "entropy": len(r.entropy)} | ({"own": len(r.own)} if r.own else {})
        for field_name, size in sizes.items():
            if size != len(r.tokens):
                raise UserError(
                    f"the rollout program {name} returned a response with {len(r.tokens)} tokens and {size} entries in "
                    f"{field_name!r}: both lists have one entry for each token"
                )
    return sum(not responses for responses in drawn)


def asked_instead(prompt: Sequence[Message], text: str) -> list[Message]:
    """The messages of a prompt with another text in the place of the last one."""
    return [*prompt[:-1], {**prompt[-1], "content": text}]


def record(example: Example, text: str, verdict: Verdict, asked: str | None = None) -> dict[str, Any]:
    """What the log keeps of a judged response, with what was asked where that is not the example's prompt."""
    return {
        "id": example.id,
        "prompt": "\n".join(m["content"] for m in example.prompt) if asked is None else asked,
        "response": text,
        "answer": example.answer,
        "score": verdict.score,
        "correct": verdict.correct,
        "formatted": verdict.formatted,
        "reason": verdict.reason,
    }
