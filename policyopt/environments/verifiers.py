"""Environments of verifiers 0.4: ``verifiers:ID``, the id of a taskset that is installed.

Such an environment drives the model itself: its harness asks an OpenAI-compatible endpoint. So its rollouts are played as those of any
agent (:mod:`policyopt.environments.agent`): the endpoint is the policy's, and what the taskset's rewards say is what an episode was
worth."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic import ValidationError

from policyopt.environments.elsewhere import Held, elsewhere
from policyopt.environments.world import Environment
from policyopt.errors import UserError, explain, first_line

INSTALL = "pip install 'policyopt[verifiers]'"
MOST_TASKS = 100_000
"""Tasks of a taskset that are looked at, which may be without end."""


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Callable[[], Environment]:
    """What makes the rollouts of a taskset; options are fields of its configuration by their path, such as ``taskset.split=train`` or
    ``agent.harness.id=null``, and ``server``, the address of an environment server that plays them.

    Raises :class:`~policyopt.errors.UserError` for a taskset that is not installed or has no tasks, and for options that it does not
    take.
    """
    from policyopt.environments.agent import Agent

    rollouts = opened(rest, options)
    return lambda: Agent(rollouts.run, f"verifiers:{rest}")


def opened(rest: str, options: Mapping[str, Any]) -> Rollouts:
    """The rollouts of a taskset. Raises as :func:`maker` does."""
    try:
        from verifiers.v1.utils.loaders import load_environment, resolve_env_config
    except ImportError as error:
        raise UserError(f"--env verifiers:{rest} needs the package verifiers (0.4 or later): {INSTALL}") from error
    given = dict(options)
    server = given.pop("server", None)
    try:
        config = resolve_env_config(nested({**given, "taskset.id": rest}))
        env = load_environment(config)
        tasks = list(itertools.islice(env.taskset, MOST_TASKS))
    except Exception as error:  # a taskset is somebody else's program
        said = explain(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"--env verifiers:{rest}: {said}") from error
    if not tasks:
        raise UserError(f"--env verifiers:{rest}: the taskset has no tasks")
    check_agents(rest, env)
    return Rollouts(env, tasks, server)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by path, ``{"a.b": 1}``, as mappings in each other, ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {}
    for path, value in options.items():
        *folders, name = path.split(".")
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise UserError(f"--env-options {path}: {folder} is a value there already")
        place[name] = value
    return found


def check_agents(rest: str, env: Any) -> None:
    """Raises :class:`~policyopt.errors.UserError` for an environment of several agents, and for one that carries out on this
    machine, outside of any container, what the model writes."""
    roles = env.config.agent_harnesses()
    if len(roles) != 1:
        raise UserError(
            f"--env verifiers:{rest} has several agents ({', '.join(roles)}), of which one at most could be the policy"
        )
    [role] = roles
    spec = getattr(env.config, role)
    if env._harnesses[role].EXECUTES_CODE and spec.runtime.type == "subprocess":
        raise UserError(
            f"--env verifiers:{rest}: the harness {roles[role].id!r} runs what the model writes, and the runtime 'subprocess' does so on "
            f"this machine: take --env-options {role}.runtime.type=docker, or {role}.harness.id=null for a conversation without tools"
        )


class Rollouts:
    """Plays tasks of a taskset against the model at an address."""

    def __init__(self, env: Any, tasks: list[Any], server: str | None) -> None:
        self.env, self.tasks, self.server = env, tasks, server
        self._held: Held[Any] = Held(self._there)
        self._lock: asyncio.Lock | None = None

    @contextlib.asynccontextmanager
    async def _there(self) -> AsyncIterator[Any]:
        """What plays: the server's client, or the environment in this process."""
        if self.server is None:
            async with self.env.serving():
                yield self.env
            return
        from verifiers.v1.serve.client import EnvClient

        client = EnvClient(self.server)
        try:
            if not await client.health(timeout=10.0):
                raise ConnectionError(f"no environment server of verifiers answers at {self.server}")
            yield client
        finally:
            await client.close()

    async def run(self, base_url: str, model: str, seed: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """Play a task: the one of the row's column ``index``, or that on which the seed falls. What it was worth is the sum of its
        rewards, each with its weight; its metrics are logged.

        Raises ``RuntimeError`` where the rollout failed.
        """
        index = row.get("index")
        place = index if isinstance(index, int) and not isinstance(index, bool) else seed
        return outcome(await elsewhere(self._played(self.tasks[place % len(self.tasks)], base_url, model)))

    async def _played(self, task: Any, base_url: str, model: str) -> Any:
        from verifiers.v1 import EvalClientConfig, ModelContext, SamplingConfig

        self._lock = self._lock or asyncio.Lock()
        async with self._lock:  # the first one opens it for all
            try:
                there = self._held.it
            except ConnectionError:
                self._held = Held(self._there)
                there = await self._held.open()
        client = EvalClientConfig(base_url=base_url, api_key_var="POLICYOPT_ENDPOINT_KEY")  # the address has the key
        if self.server is not None:
            return await there.run(client, model, SamplingConfig(), task.data.model_dump(mode="json"))
        [slot] = there.slots(task)
        return await there.run_slot(slot, ModelContext(client=client, model=model, sampling=SamplingConfig()))


def outcome(episode: Any) -> dict[str, Any]:
    """What an episode was worth, with its rewards and metrics by name. Raises ``RuntimeError`` for one that failed."""
    errors = [*episode.errors, *(e for trace in episode.traces for e in trace.errors)]
    if errors or not episode.traces:
        raise RuntimeError(f"{errors[0].type}: {errors[0].message}" if errors else "the rollout has left no trace")
    [trace] = episode.traces
    numbers = {name: float(x) for name, x in trace.metrics.items() if x is not None}
    numbers |= {f"reward_{name}": float(r.score) for name, r in trace.rewards.items() if r is not None}
    return {**numbers, "reward": float(trace.reward)}
