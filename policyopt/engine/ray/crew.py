"""Processes of the cluster: how they are started, checked, and called by the driver."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.engine.ray.actors import TrainerActor
from policyopt.engine.ray.cluster import PATIENCE, Connection, versions
from policyopt.engine.sharded.crew import ALIKE
from policyopt.errors import UserError, first_line
from policyopt.judging.modules import import_path
from policyopt.qualified import loaded_files


class Hire:
    """Starts processes on a cluster, each with a place of its own, and sees that they run the same code as the driver."""

    def __init__(self, connection: Connection, device: str, processes: int) -> None:
        self.connection, self.ray, self.device = connection, connection.ray, device
        cores = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, (os.cpu_count() or 1) // processes)
        self.threads = cores if connection.local else 1

    def start(self, kind: type, names: Sequence[str]) -> list[Any]:
        """Start processes, by the names that errors call them. Returns their handles. Raises
        :class:`~policyopt.errors.UserError` where there is no place for one, or it runs other code; none is left then."""
        place = {"num_gpus": 1, "num_cpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        actors = [self.ray.remote(kind).options(**place).remote() for _ in names]
        try:
            asked = [actor.prepare.remote(import_path(), loaded_files(), self.threads) for actor in actors]
            for name, answer in zip(names, asked, strict=True):
                self._same(name, self.get(answer, name, timeout=PATIENCE))
        except BaseException:
            for actor in actors:
                self.ray.kill(actor)
            raise
        return actors

    @staticmethod
    def _same(name: str, found: Mapping[str, str]) -> None:
        mine = versions()
        if other := [
            f"{what} {found.get(what)} instead of {mine[what]}" for what in mine if found.get(what) != mine[what]
        ]:
            raise UserError(f"{name} runs {', '.join(other)}: install the same versions on all machines of the cluster")

    def get(self, answer: Any, what: str, timeout: float | None = None) -> Any:
        """What a process answers. Its errors are raised as they are; its death as a :class:`~policyopt.errors.UserError`."""
        try:
            return self.ray.get(answer, timeout=timeout)
        except self.ray.exceptions.GetTimeoutError as error:
            raise UserError(
                f"the Ray cluster found no place for {what} in {timeout:g} s: it is busy (`ray status` says with what); wait, or "
                "take fewer --trainers or --samplers"
            ) from error
        except self.ray.exceptions.RayError as error:
            raise self.said(error, what) from error

    def said(self, error: Exception, what: str) -> BaseException:
        """An error that a process raised, as it raised it; its death in words."""
        cause = getattr(error, "cause", None)
        if isinstance(error, self.ray.exceptions.RayTaskError) and isinstance(cause, BaseException):
            return cause
        return UserError(
            f"{what} has died ({first_line(error, 300)}): mostly memory has run out, or a machine is gone; the run goes on from "
            "its newest checkpoint with --resume"
        )


class Trainers:
    """The trainer processes as a :class:`~policyopt.engine.sharded.crew.Crew`. Any thread may call them; all get the calls in
    the same order."""

    def __init__(self, hire: Hire, count: int) -> None:
        self._hire, self._order = hire, threading.Lock()
        self.actors = hire.start(TrainerActor, [f"trainer {i}" for i in range(count)])
        host, port = hire.get(self.actors[0].place.remote(), "trainer 0")
        self._all([actor.join.remote(i, count, host, port) for i, actor in enumerate(self.actors)])

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.actors)

    def call(self, name: str, *args: Any) -> list[Any]:
        """See :class:`~policyopt.engine.sharded.crew.Crew`."""
        with self._order:
            asked = [actor.call.remote(name, *args) for actor in self.actors]
        return self._all(asked)

    def publish(self, version: int) -> Any:
        """Have the weights of now, and their version, put where samplers get them."""
        with self._order:
            asked = [actor.publish.remote(version) for actor in self.actors]
        return self._all(asked)[0]

    def frozen(self) -> str | None:
        """A checksum of what is never trained."""
        found: str | None = self._hire.get(self.actors[0].frozen.remote(), "trainer 0")
        return found

    def _all(self, answers: list[Any]) -> list[Any]:
        left = answers
        while left:  # the first that fails is heard first, for the others may be waiting for it
            [done], left = self._hire.ray.wait(left)
            i = answers.index(done)
            try:
                self._hire.get(done, f"trainer {i}")
            except Exception as error:
                if self.size == 1 or isinstance(error, ALIKE):
                    raise
                raise UserError(
                    f"trainer {i} stopped: {first_line(error)}. Go on from the last checkpoint with --resume"
                ) from error
        return [self._hire.get(answer, "a trainer") for answer in answers]

    def close(self) -> None:
        """End them."""
        for actor in self.actors:
            self._hire.ray.kill(actor)
