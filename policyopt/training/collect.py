"""From prompts to a batch: draw, judge, shape, filter, and draw again where filters leave gaps."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import torch

from policyopt.engine.protocol import Engine
from policyopt.errors import UserError
from policyopt.items import TEXTS, Example, JudgeSpec, Verdict
from policyopt.judging.pool import JudgePool
from policyopt.objective import kept, shaped
from policyopt.recipe import Recipe
from policyopt.rows import Batch, join
from policyopt.sources.episodes import Player
from policyopt.sources.program import Answered, Context, Question, Response, Rollout, Round, Sampler, Step, line_ends
from policyopt.sources.source import Source
from policyopt.sources.truncation import truncated
from policyopt.training.curriculum import ranking
from policyopt.training.judged import TRAINING, Opinions
from policyopt.training.looks import contexts
from policyopt.training.prompts import PromptStream
from policyopt.training.remember import recalled
from policyopt.training.rows import noise, to_batch, unjudged, with_baseline, with_spans, with_steps
from policyopt.training.services import Between, Held, asked_instead, record, unanswered, written

X = TypeVar("X")


@dataclass
class Drawn:
    """A batch with what the log should know of it."""

    batch: Batch | None
    """None where no row was left to train on. Its records are what the log keeps of each response."""
    stats: dict[str, float] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)
    """What the log keeps of the responses that have no reward."""
    remark: str = ""
    """What a person should know of the judge."""


@dataclass
class Collector:
    """Draws the batches of a run."""

    engine: Engine
    stream: PromptStream
    judge: JudgePool | None
    """``None`` where the source asks for none."""
    budget: int
    seed: int
    max_failed: float = 1.0
    memory: dict[str, list[float]] = field(default_factory=dict)
    """What the recipe remembers of prompts, by their id, or of roles."""
    held: list[Held] = field(default_factory=list)
    """What is still being written."""
    player: Player | None = None
    """Plays the episodes, where the task is an environment."""
    run: str = "run"
    """What distinguishes the run from others: letters and digits."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the rollout program remembers from step to step."""
    _ranked: tuple[int, list[int]] | None = None
    """A step and what its curriculum has left; worked out anew in every step."""

    def draw(self, recipe: Recipe, step: int, prompts: int) -> Drawn:
        """A batch of ``prompts`` prompts that pass the recipe's filters, as far as ``source.rounds`` rounds of
        drawing find them.

        A response without a reward leaves its group before anything is computed over it. Raises
        :class:`~policyopt.errors.UserError` when the judge fails on more than ``max_failed`` of the responses.
        """
        pieces: list[Batch] = []
        stats = {
            "prompts": 0.0,
            "prompts/unanswered": 0.0,
            "responses": 0.0,
            "tokens": 0.0,
            "time/rollout": 0.0,
            "time/score": 0.0,
        }
        groups, skipped, answered = 0, self.stream.skipped, list[Answered]()
        opinions = Opinions(self.judge, self.engine.text, self.max_failed)
        draws = "sampler" in recipe.source.services
        computed = self.engine.sampler.computed if draws else 0
        for _ in range(recipe.source.rounds):
            if groups >= prompts:
                break
            piece = self._round(recipe, step, prompts - groups, int(stats["prompts"]), stats, answered, opinions)
            if piece is None:
                continue
            pieces.append(piece)
            groups += len(set(piece.group.tolist()))
        stats["filtered"] = 1 - (groups + opinions.unrewarded) / stats["prompts"]
        stats["prompts/skipped"] = float(self.stream.skipped - skipped)
        piece = self._beside(recipe, step, answered, int(stats["prompts"]), stats, opinions)
        if piece is not None:
            pieces.append(piece)
        if episodes := stats.pop("episodes", 0.0):
            stats["rollout/turns"] = stats.pop("turns") / episodes
        if draws:
            stats["tokens/computed"] = float(self.engine.sampler.computed - computed)
        batch = join(pieces) if any(map(len, pieces)) else None
        return Drawn(batch, stats | opinions.stats(), opinions.lost, opinions.tally.remark())

    def _round(
        self, recipe: Recipe, step: int, prompts: int, first: int, stats: dict[str, float], answered: list[Answered],
        opinions: Opinions,
    ) -> Batch | None:  # fmt: skip
        """One round of drawing; groups are numbered from ``first`` and added to ``answered``. No batch where every
        response is still under way."""
        going = [h for h in self.held if h.step != step]
        self.held = [h for h in self.held if h.step == step]
        fresh = self._fresh(recipe, step, max(0, prompts - len(going)), going)
        taken = [*((h.example, h.tokens) for h in going), *fresh]
        start = time.perf_counter()
        judge: Between[Example, Verdict] = Between(opinions)
        critic, together = Between(self._values), Round()
        source, held = recipe.source, dict(enumerate(going))
        at, known = (self.seed, step), partial(self._history, recipe)
        asked = [
            self._asked(source, example, tokens, (*at, first + i), held.get(i), judge, critic, together, known(example))
            for i, (example, tokens) in enumerate(taken)
        ]
        drawn = self._rows(recipe.source, asked)
        stats["time/rollout"] += time.perf_counter() - start - judge.seconds
        for (example, tokens), (question, _), responses in zip(taken, asked, drawn, strict=True):
            if any(r.later for r in responses):
                self.held.append(Held(example, tokens, question.key, [r for r in responses if r.later], step))
        log = "rollout" if "sampler" in recipe.source.services else "source"
        for _, context in asked:
            for name, x in context.tally.items():
                stats[f"{log}/{name}"] = stats.get(f"{log}/{name}", 0.0) + x
        stats["prompts"] += len(taken)
        stats["prompts/unanswered"] += unanswered(recipe.source, drawn)
        if "solutions" in recipe.source.uses:
            unsolved = sum(not question.solution for question, _ in asked)
            stats["prompts/unsolved"] = stats.get("prompts/unsolved", 0.0) + unsolved
        groups = [Answered(e, q, r) for (e, _), (q, _), r in zip(taken, asked, drawn, strict=True)]
        rows = [r for group in groups for r in group.responses if r.use != "wait"]
        stats["responses"] += len(rows)
        written(rows, stats)
        if turns := [len(ends) for r in rows if isinstance(ends := r.columns.get("turn_end"), list)]:
            stats["turns"] = stats.get("turns", 0.0) + sum(turns)
            stats["episodes"] = stats.get("episodes", 0.0) + len(turns)
        stats["tokens"] += sum(sum(r.own) if r.own else len(r.tokens) for r in rows)
        groups = opinions.settle(groups)
        answered += groups
        return self._piece(recipe, groups, first, stats)

    def _fresh(self, recipe: Recipe, step: int, n: int, going: Sequence[Held]) -> list[tuple[Example, tuple[int, ...]]]:
        """The next prompts: in the order of the stream, or as the curriculum ranks those of the step."""
        if recipe.curriculum is None:
            return self.stream.take(n)
        if self._ranked is None or self._ranked[0] != step:
            width = recipe.memory.width if recipe.memory is not None else 0
            order = ranking(recipe.curriculum, self.stream.examples, self.memory, width, (self.seed, step))
            self._ranked = (step, order)
        busy = {h.example.id for h in going}
        order = [i for i in self._ranked[1] if self.stream.examples[i].id not in busy] if busy else self._ranked[1]
        self._ranked = (step, order)
        return self.stream.take_ranked(order, n)

    def _history(self, recipe: Recipe, example: Example, origin: int = 0) -> list[float]:
        """What the recipe's memory holds of a prompt, or of a role in it."""
        return recalled(recipe.memory, self.memory, example.id, example.source, origin)

    def texts(self, recipe: Recipe, taken: Sequence[tuple[Example, tuple[int, ...]]], first: int) -> Batch:
        """Held-out examples with their prompts as rows of the recipe's source, which takes given texts, scored and
        nothing more; groups are numbered from ``first``."""
        judge: Between[Example, Verdict] = Between(lambda groups: [])
        critic, together = Between(self._values), Round()
        asked = [
            self._asked(recipe.source, example, ids, (self.seed, -1, first + i), None, judge, critic, together)
            for i, (example, ids) in enumerate(taken)
        ]
        drawn = self._rows(recipe.source, asked)
        groups = [Answered(e, q, r) for (e, _), (q, _), r in zip(taken, asked, drawn, strict=True)]
        return self._scored(recipe, groups, first, {"time/score": 0.0})[0]

    def _rows(self, source: Source, asked: Sequence[tuple[Question, Context]]) -> list[list[Response]]:
        """What a source returns for questions."""
        programs = [source.draw(question, context) for question, context in asked]
        if "sampler" in source.services:
            return self._run(programs)

        async def together() -> list[list[Response]]:
            return await asyncio.gather(*programs)

        return asyncio.run(together())

    def _run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """What programs return; no sampler holds anything from one run to the next."""
        for other in self.engine.samplers.values():
            other.forget()
        return self.engine.sampler.run(programs)

    def _beside(
        self, recipe: Recipe, step: int, answered: list[Answered], first: int, stats: dict[str, float],
        opinions: Opinions,
    ) -> Batch | None:  # fmt: skip
        """The groups that the program has beside those of the step's prompts."""
        if "sampler" not in recipe.source.services:
            return None
        judge: Between[Example, Verdict] = Between(opinions)
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
            question, context = self._asked(recipe.source, example, tokens, key, None, judge, critic, together)
            return question, dataclasses.replace(context, encode=self.engine.text.literal)

        asked: list[Example] = []
        spec = getattr(self.judge, "judge", JudgeSpec("custom"))
        sampler, text = self.engine.sampler, self.engine.text
        at = Step((self.seed, step), self.run, spec, sampler, text.decode, ask, self.notes, stats)
        program = recipe.source.beside(answered, at)
        if program is None:
            return None
        start = time.perf_counter()
        [groups] = self._run([program])
        stats["time/rollout"] += time.perf_counter() - start - judge.seconds
        return self._piece(recipe, opinions.settle(groups), first, stats)

    def _piece(self, recipe: Recipe, groups: Sequence[Answered], first: int, stats: dict[str, float]) -> Batch | None:
        """Groups, all of them judged, as a batch: scored, shaped and filtered."""
        if not any(r.use != "wait" for group in groups for r in group.responses):
            return None
        batch, responses = self._scored(recipe, groups, first, stats)
        batch = shaped(recipe, batch)
        if "baseline_reward" in recipe.source.provides and batch.baseline_reward is None:
            batch = with_baseline(batch, [r.use for r in responses])
        batch = batch[torch.tensor([r.use == "train" for r in responses], device=self.engine.device)]
        return batch[kept(recipe, batch)]

    def _scored(
        self, recipe: Recipe, groups: Sequence[Answered], first: int, stats: dict[str, float]
    ) -> tuple[Batch, list[Response]]:
        """Groups, all of them judged, as a batch: scored; and the response of each row."""
        rows = [(i, r) for i, group in enumerate(groups) for r in group.responses if r.use != "wait"]
        texts = self.engine.text.told([r for _, r in rows])
        verdicts = [cast(Verdict, r.verdict) for _, r in rows]
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
        start, read = time.perf_counter(), self.engine.passes.get(("reference", False), 0)
        batch = self.engine.annotate(batch.to(self.engine.device), recipe)
        stats["time/score"] += time.perf_counter() - start
        if not recipe.source.services:
            batch = unjudged(batch, self.engine.version)
            if batch.ref_logp is not None:
                read = self.engine.passes.get(("reference", False), 0) - read
                stats["tokens/reference"] = stats.get("tokens/reference", 0.0) + read
        return batch, responses

    def _completed(
        self, recipe: Recipe, batch: Batch, groups: Sequence[Answered], rows: Sequence[tuple[int, Response]],
        verdicts: Sequence[Verdict],
    ) -> Batch:  # fmt: skip
        """The batch with what the recipe asks for beyond responses and verdicts: noise, lines, spans, what is remembered."""
        if "noise" in recipe.needs:
            places = [(i, j, r) for i, group in enumerate(groups) for j, r in enumerate(group.responses)]
            keys = [(*groups[i].question.key, j) for i, j, r in places if r.use != "wait"]
            batch = batch.replace(noise=noise(keys, batch.mask))
        if "step_end" in recipe.needs or batch.step_reward is not None:
            lines = [[end - 1 for end in line_ends(r.tokens, self.engine.text.line_breaks)] for _, r in rows]
            batch = with_steps(batch, [r for _, r in rows], verdicts, lines)
        for look in recipe.looks:
            batch = batch.replace(**contexts(look, groups, self.engine.text, self.stream.longest))
        if spans := [span for span in recipe.spans if span.column in recipe.needs]:
            batch = with_spans(batch, spans, [r for _, r in rows], self.engine.text.located)
        if recipe.memory is not None:
            known = [self._history(recipe, groups[i].example, r.origin) for i, r in rows]
            batch = batch.replace(history=torch.tensor(known, dtype=self.engine.dtype))
        return batch

    def _asked(
        self, source: Source, example: Example, tokens: tuple[int, ...], key: tuple[int, ...], held: Held | None,
        judge: Between[Example, Verdict] | None, critic: Between[tuple[int, ...], float], together: Round,
        history: Sequence[float] = (),
    ) -> tuple[Question, Context]:  # fmt: skip
        """An example as the program sees it, with what was held of it at an earlier step, and what serves it."""
        text = self.engine.text
        question = Question(
            tokens,
            self.budget,
            key if held is None else held.key,
            text.solution(example.solution) if "solutions" in source.uses else None,
            example.prompt[-1]["content"],
            example.answer,
            () if held is None else tuple(held.responses),
            tuple(history),
            {
                name: text.given(said)
                for name in TEXTS
                if name in source.reads and (said := getattr(example, name)) is not None
            },
            bool(example.label),
            tuple((text.given(r), x) for r, x in zip(example.responses, example.scores, strict=True))
            if "responses" in source.reads
            else (),
            example.numbers if source.reads else {},
            example.id,
        )
        context = Context(
            self._sampler(source),
            source,
            None if judge is None else partial(judge, example),
            partial(critic, tokens),
            self.engine.samplers,
            encode=text.encode,
            decode=text.decode,
            end=text.eos[:1],
            frame=lambda instead: text.prompt(asked_instead(example.prompt, instead)),
            breaks=lambda: text.line_breaks,
            room=self.stream.longest,
            episodes=None if self.player is None else partial(self.player.play, example),
            notes=self.notes,
            round=together,
        )
        return question, context

    def _sampler(self, source: Source) -> Sampler:
        """What a program draws from the policy with, truncated as it says."""
        if "sampler" not in source.services:
            return cast(Sampler, None)
        sampler = self.engine.sampler
        return truncated(sampler, source.truncation) if isinstance(source, Rollout) else sampler

    def decoded(self, program: Rollout, examples: Sequence[Example]) -> float:
        """The share of questions that a program answers right with the first response that it returns, of those that the
        judge gives a reward.

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
        answers = [(example, rows[:1]) for (example, _), rows in zip(asked, drawn, strict=True) if rows]
        opinions = Opinions(self.judge, self.engine.text, self.max_failed)
        verdicts = [r.verdict for _, rows in answers for r in rows if r.verdict is not None]  # what a world has said
        opinions.tally.add(verdicts)
        asked_of = [(example, [r for r in rows if r.verdict is None]) for example, rows in answers]
        verdicts += [verdict for said in opinions(asked_of) for verdict in said]
        opinions.tally.limit(self.max_failed, TRAINING)
        return sum(v.correct for v in verdicts) / max(1, len(examples) - sum(not v.rewarded for v in verdicts))

    def _values(self, groups: Sequence[tuple[tuple[int, ...], Sequence[Response]]]) -> list[list[float]]:
        """What the critic thinks of responses to prompts; of one that has ended, before its end token."""
        rows = [(*prompt, *r.tokens[: len(r.tokens) - r.finished]) for prompt, responses in groups for r in responses]
        found = iter(self.engine.values(rows))
        return [[next(found) for _ in responses] for _, responses in groups]
