"""Groups that other runs have drawn, taken in as text and trained on as if the policy had drawn them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from policyopt.errors import UserError
from policyopt.items import JudgeSpec
from policyopt.judging.judges import inner_judges
from policyopt.methods.sampling.sapo_swarm.channel import Channel, Folder, Package, Unusable, package
from policyopt.part import Count, Positive, Whole, part
from policyopt.sources.draw import Group
from policyopt.sources.program import Answered, Response, Step

TRIES = 32
"""Packages that are looked at in one step for each that is wanted."""


REASONS = ("gone", "large", "malformed", "foreign", "long", "unjudged", "equal")
"""Why a package is left: it went while it was looked for; is too large; is no package; brings metadata that the run's
own questions do not have; has fewer than two responses that fit; the judge fails on it; its rewards are all equal."""


def reads_data(judge: JudgeSpec) -> bool:
    """Whether a judge takes what comes with a question for data. The datasets of reasoning-gym with their own prompts
    unpack it as Python objects, and their scoring may run it."""
    if inner := inner_judges(judge):
        return all(map(reads_data, inner.values()))
    return judge.name != "reasoning-gym" or bool(judge.options.get("builtin"))


@part
class Swarm(Group):
    """A group; and groups of other runs, which share theirs through a folder as questions, answers and texts.

    After each step a run publishes its groups. Up to ``external`` groups of others join its own: their texts are
    encoded by this run's tokenizer, scored by its policy (``old_logp``) and judged by its judge, in the context of the
    foreign question; what the other run thought of them never matters. Their rows have ``origin`` 1. Rows that do not
    fit into the budget are dropped, of more than ``size`` the first are taken; a group whose rewards are all equal has
    no gradient and takes no place. Every package is looked at once by a run. The order in which they are is a random
    one that follows from seed, step and name: with the same packages there, a run and a resumed run take the same ones.
    Where others publish meanwhile, they do not. Nobody waits: where there is nothing to take, the run trains alone.

    Whoever can write to the folder decides what the run learns from; that is all that it can do. Files are read as JSON
    within limits, and a judge sees nothing but text and data. Raises :class:`~policyopt.errors.UserError` for judges
    that run what comes with a question. Source: SAPO, arXiv:2509.08721, and the authors' code (gensyn-ai/rl-swarm).
    Our reading: groups with equal rewards are dropped before the draw, as in the paper; a group of any size is taken,
    where the code wants the size of its own; no group is taken twice.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})
    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    folder: str | None = None
    """Where runs share; unset: nothing is shared, nothing taken."""
    external: Whole | None = None
    """Most groups of others in a step; unset: as many as the run's own."""
    keep: Count = 4
    """How many steps the packages of this run stay in the folder."""
    max_age: Positive = 3600.0
    """Age in seconds after which the packages of others are left."""

    def channel(self, run: str) -> Channel | None:
        """Where a run of this name shares; ``None`` for nowhere. Another transport is a subclass with another one."""
        return None if self.folder is None else Folder(Path(self.folder).expanduser(), run, self.keep, self.max_age)

    def order(self, names: Iterable[str], key: tuple[int, ...]) -> list[str]:
        """A random order that follows from the key; that of two names does not depend on the others."""
        return sorted(names, key=lambda name: hashlib.blake2b(repr((key, name)).encode(), digest_size=8).digest())

    def beside(self, drawn: Sequence[Answered], step: Step) -> Coroutine[Any, Any, list[Answered]] | None:
        channel = self.channel(step.run)
        if channel is None:
            return None
        if not reads_data(step.judge):
            raise UserError(
                f"the judge {step.judge.name!r} of this task runs what comes with a question, which must not come from others: "
                "take a built-in task or a dataset, or leave the shared folder away"
            )
        return self._exchange(channel, drawn, step)

    async def _exchange(self, channel: Channel, drawn: Sequence[Answered], step: Step) -> list[Answered]:
        step.counts.update(
            {f"swarm/{name}": 0.0 for name in ("taken", "rows_dropped", "unpublished", "unreachable", *REASONS)}
        )
        try:
            pool = set(channel.collect(step.key[-1]))
        except OSError as error:
            if "seen" not in step.notes:
                raise UserError(f"--folder {self.folder}: runs cannot share there ({error})") from error
            step.counts["swarm/unreachable"] = 1.0  # the run goes on without the others
            return []
        for group in drawn:
            try:
                channel.publish(step.key[-1], group.question.key[-1], packed(group, step))
            except (OSError, ValueError):  # others do without
                step.counts["swarm/unpublished"] += 1
        seen = pool & set(step.notes.get("seen", ()))
        wanted = len(drawn) if self.external is None else self.external
        metadata = {frozenset(a.example.meta) for a in drawn}
        groups: list[Answered] = []
        for name in self.order(pool - seen, step.key)[: TRIES * wanted]:
            if len(groups) == wanted or step.counts["swarm/unjudged"]:  # a judge that fails may have taken long
                break
            seen.add(name)
            try:
                content = channel.read(name)
                if frozenset(content.meta) not in metadata:
                    raise Unusable("foreign")
                groups.append(await self._taken(name, content, step))
            except Unusable as reason:
                step.counts[f"swarm/{reason}"] += 1
        await asyncio.gather(*(self._annotate(group, step) for group in groups))
        step.notes["seen"], step.counts["swarm/taken"] = sorted(seen), float(len(groups))
        return groups

    async def _taken(self, name: str, content: Package, step: Step) -> Answered:
        """A package in tokens of this run, judged. Raises :class:`Unusable` where nothing can be learned from it."""
        example = content.example(f"swarm:{name}")
        asked = step.ask(example)
        if asked is None:
            raise Unusable("long")
        question, context = asked
        rows = [[*context.encode(w.text), *(context.end if w.finished else ())] for w in content.responses]
        fit = [row for row in rows if 0 < len(row) <= question.budget]
        step.counts["swarm/rows_dropped"] += len(rows) - len(fit)
        if len(fit) < 2:
            raise Unusable("long")
        responses = [Response(row, [], [], "eos") for row in fit[: self.size]]
        verdicts = await context.judge(responses)
        if not all(v.rewarded for v in verdicts):
            raise Unusable("unjudged")
        if len({v.score for v in verdicts}) == 1:
            raise Unusable("equal")
        return Answered(example, question, responses)

    async def _annotate(self, group: Answered, step: Step) -> None:
        """Give the responses of a group what the policy thinks of them."""
        tokens, heat = group.question.tokens, self.temperature
        scored = await asyncio.gather(
            *(step.sampler.logprobs(tokens, tuple(r.tokens), temperature=heat) for r in group.responses)
        )
        for ours, theirs in zip(scored, group.responses, strict=True):
            ours.origin, ours.verdict = 1, theirs.verdict
        group.responses[:] = scored


def packed(group: Answered, step: Step) -> Package:
    """A group as others get it."""
    return package(group.example, [(step.decode(r.tokens), r.finished) for r in group.responses])
