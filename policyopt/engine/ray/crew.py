"""Processes of the cluster: how they are started, checked, and called by the driver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from policyopt.engine.ray.cluster import PATIENCE, Connection, versions
from policyopt.errors import UserError, first_line
from policyopt.judging.modules import import_path
from policyopt.qualified import loaded_files


class Hire:
    """Starts processes on a cluster, each with a place of its own, and sees that they run the same code as the driver."""

    def __init__(self, connection: Connection, device: str, processes: int) -> None:
        self.connection, self.ray, self.device = connection, connection.ray, device
        cores = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, (os.cpu_count() or 1) // processes)
        self.threads = cores if connection.local else 1

    def start(self, kind: type, what: str) -> Any:
        """Start a process. Returns its handle. Raises :class:`~policyopt.errors.UserError` where there is no place for it, or
        it runs other code."""
        place = {"num_gpus": 1, "num_cpus": 1} if self.device == "cuda" else {"num_cpus": 1}
        actor = self.ray.remote(kind).options(**place).remote()
        try:
            prepared = actor.prepare.remote(import_path(), loaded_files(), self.threads)
            found = self.ray.get(prepared, timeout=PATIENCE)
        except self.ray.exceptions.GetTimeoutError as error:
            self.ray.kill(actor)
            raise UserError(
                f"the Ray cluster found no place for {what} in {PATIENCE:g} s: it is busy (`ray status` says with what); wait, "
                "or take fewer --trainers or --samplers"
            ) from error
        except self.ray.exceptions.RayError as error:
            raise self.said(error, what) from error
        mine = versions()
        if other := [f"{name} {found.get(name)} instead of {mine[name]}" for name in mine if found.get(name) != mine[name]]:
            self.ray.kill(actor)
            raise UserError(f"{what} runs {', '.join(other)}: install the same versions on all machines of the cluster")
        return actor

    def get(self, answer: Any, what: str) -> Any:
        """What a process answers. Its errors are raised as they are; its death as a :class:`~policyopt.errors.UserError`."""
        try:
            return self.ray.get(answer)
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
    """The trainer processes; see :class:`policyopt.engine.sharded.crew.Crew`."""

    def __init__(self, hire: Hire, actors: Sequence[Any]) -> None:
        self._hire, self.actors = hire, list(actors)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.actors)

    def call(self, name: str, *args: Any) -> list[Any]:
        """Call a method of all at the same time; what each gave."""
        return self._all([actor.call.remote(name, *args) for actor in self.actors])

    def publish(self, version: int) -> Any:
        """Have the weights of now put where samplers get them."""
        return self._all([actor.publish.remote(version) for actor in self.actors])[0]

    def _all(self, answers: list[Any]) -> list[Any]:
        ready = answers
        while ready:  # the first that fails, for the others may be waiting for it
            done, ready = self._hire.ray.wait(ready)
            self._hire.get(done[0], f"trainer {answers.index(done[0])}")
        return [self._hire.get(answer, "a trainer") for answer in answers]

    def close(self) -> None:
        """End them."""
        for actor in self.actors:
            self._hire.ray.kill(actor)
