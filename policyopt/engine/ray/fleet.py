"""The samplers of a run as its driver sees them: who gets which request, who has died, and which weights they hold."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from policyopt.engine.programs import hand_over
from policyopt.engine.ray.actors import Published
from policyopt.engine.ray.cluster import need_ray
from policyopt.engine.sent import Asked
from policyopt.errors import UserError, first_line
from policyopt.sources.program import Response

TURNS = 8
"""Turns of the event loop in which programs that have an answer may ask for more before the next round."""
DEATHS = 3
"""So many samplers in a row may die of the same requests."""

Request = tuple[str, Asked]
"""The model, by its role ("" for the policy), and what is asked of it."""


class Fleet:
    """Sampler processes, all with the same weights.

    With ``rounds``, what programs ask for at the same time goes out together, and the next round when all of it is answered:
    what runs beside what then follows from the programs alone, so that every bit does. Without, each request goes out at
    once. Requests with the same first three numbers in their keys, those of a prompt, go to the same sampler, which holds what
    they share. ``start`` starts samplers by their numbers, has them load their models, and returns their handles.
    """

    def __init__(self, start: Callable[[Sequence[int]], list[Any]], count: int, *, rounds: bool) -> None:
        self._ray, self._start, self._rounds = need_ray(), start, rounds
        self.actors = start(range(count))
        self.held: Published | None = None
        """What all of them hold."""
        self.computed, self.drawn = Counter[str](), Counter[str]()
        """Tokens, by the role of the model."""
        self.deaths = 0
        """How many samplers were replaced."""
        self._closed = False
        self._lock = threading.RLock()
        self._homes: dict[tuple[int, ...], int] = {}
        self._load = [0] * count
        self._waiting: list[tuple[Request, int, asyncio.Future[Any]]] = []
        self._worker: asyncio.Task[None] | None = None

    # Weights ---------------------------------------------------------------------------------------------------------

    def hand_over(self, published: Published) -> None:
        """Give weights to all samplers, and see that they hold them. Raises :class:`~policyopt.errors.UserError` where one does
        not."""
        with self._lock:
            self.held = published
            sent = [actor.load.remote(published.version, *published.weights) for actor in self.actors]
            for i, (actor, answer) in enumerate(zip(list(self.actors), sent, strict=True)):
                try:
                    self._check(i, self._ray.get(answer), published)
                except self._ray.exceptions.RayActorError as error:
                    self._replace(i, actor, error)

    def _check(self, i: int, held: tuple[int, str], published: Published) -> None:
        if held != (published.version, published.checksum):
            raise UserError(
                f"sampler {i} holds weights of version {held[0]} with the checksum {held[1]}, and the trainers have published "
                f"version {published.version} with {published.checksum}: what it draws would not be the policy's. The run "
                "stops here; go on with --resume, and where it happens again, look for a broken device"
            )

    def _replace(self, i: int, dead: Any, error: Exception) -> None:
        """Put a new sampler into the place of one that has died."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed") from error
            if self.actors[i] is not dead:  # somebody else has done it
                return
            self._ray.kill(dead)
            self.deaths += 1
            [actor] = self._start([i])
            self.actors[i] = actor
            if self.held is not None:
                self._check(i, self._ray.get(actor.load.remote(self.held.version, *self.held.weights)), self.held)

    # Requests --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a run of programs, with nothing held from earlier ones."""
        self._homes.clear()
        self._load = [0] * len(self.actors)
        self._waiting, self._worker = [], None
        for actor in self.actors:
            actor.forget.remote()

    async def ask(self, role: str, asked: Asked) -> list[Response]:
        """The responses to a request to the model in a role."""
        prompt = tuple(asked.options.get("key", (-1, *asked.tokens))[:3])
        home = self._homes.setdefault(prompt, min(range(len(self._load)), key=self._load.__getitem__))
        self._load[home] += asked.size
        try:
            answer = await (self._in_round if self._rounds else self._alone)((role, asked), home)
        finally:
            self._load[home] -= asked.size
        if isinstance(answer, BaseException):
            raise answer
        found: list[Response] = answer
        return found

    async def _alone(self, request: Request, home: int) -> Any:
        return (await self._answered(home, [request]))[0]

    async def _in_round(self, request: Request, home: int) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((request, home, done))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await done

    async def _work(self) -> None:
        """Round after round, until nobody asks for anything."""
        asked: list[tuple[Request, int, asyncio.Future[Any]]] = []
        try:
            while True:
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                asked, self._waiting = self._waiting, []
                if not asked:
                    return
                shares: dict[int, list[int]] = {}
                for place, (_, home, _) in enumerate(asked):
                    shares.setdefault(home, []).append(place)
                found = await asyncio.gather(
                    *(self._answered(home, [asked[p][0] for p in places]) for home, places in sorted(shares.items()))
                )
                for (_, places), answers in zip(sorted(shares.items()), found, strict=True):
                    for place, answer in zip(places, answers, strict=True):
                        if not asked[place][2].done():  # else its program was cancelled meanwhile
                            asked[place][2].set_result(answer)
        except BaseException as error:
            hand_over(error, [done for _, _, done in [*asked, *self._waiting]])
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._worker = None

    async def _answered(self, home: int, requests: list[Request]) -> list[Any]:
        """The answers of a sampler; where it dies, those of the one that takes its place, to the same requests."""
        for _ in range(DEATHS):
            actor, before = self.actors[home], self.held
            try:
                answers, counted = await actor.answer.remote(requests)
            except self._ray.exceptions.RayActorError as error:
                last = error
                self._replace(home, actor, error)
                continue
            for role, (computed, drawn) in counted.items():
                self.computed[role] += computed
                self.drawn[role] += drawn
            self._check_versions(home, requests, answers, before)
            return list(answers)
        raise UserError(
            f"{DEATHS} samplers in a row have died of the same requests ({first_line(last, 300)}): mostly that is memory; take "
            "fewer samplers, a smaller --batch or --max-tokens, then go on with --resume"
        )

    def _check_versions(self, home: int, requests: list[Request], answers: list[Any], before: Published | None) -> None:
        """What the policy drew must come from weights that were handed over, none older than when it was asked."""
        assert before is not None and self.held is not None
        for (role, asked), answer in zip(requests, answers, strict=True):
            if role or isinstance(answer, BaseException):
                continue
            resumed = asked.options.get("resume")
            earlier = 0 if resumed is None else len(resumed.tokens)
            for response in answer:
                new = response.versions[earlier:]
                if new and not before.version <= min(new) <= max(new) <= self.held.version:
                    raise UserError(
                        f"sampler {home} drew tokens with weights of version {min(new)}, and was given version {before.version}: "
                        "the run stops, for what it draws is not the policy's; go on with --resume"
                    )

    def close(self) -> None:
        """End the samplers."""
        self._closed = True
        for actor in self.actors:
            self._ray.kill(actor)
