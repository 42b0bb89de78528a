"""What runs in the processes of the engine ``ray``: a trainer rank and a sampler."""

from __future__ import annotations

import asyncio
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.engine import Models
from policyopt.engine.checksum import checksum
from policyopt.engine.local import LocalSampler
from policyopt.engine.local.roles import fill_roles
from policyopt.engine.ray.cluster import need_ray, versions
from policyopt.engine.sent import Asked
from policyopt.engine.sharded.rank import Member, Rank
from policyopt.errors import UserError
from policyopt.models.load import Policy
from policyopt.qualified import load_file
from policyopt.recipe import Recipe


@dataclass(frozen=True)
class Published:
    """Weights as the trainers give them to the samplers."""

    version: int
    checksum: str
    weights: tuple[Any, ...]
    """A reference to the tensors by name in Ray's object store."""


class Worker:
    """A process of the engine, before it has a model."""

    def prepare(self, paths: Sequence[str], files: Sequence[str], threads: int) -> dict[str, str]:
        """Make the code of the user's own importable. Returns the :func:`versions` that are installed here.

        Raises :class:`~policyopt.errors.UserError` for a file that is not there.
        """
        sys.path[:] = dict.fromkeys([*sys.path, *paths])
        for file in files:
            load_file(Path(file))
        torch.set_num_threads(threads)
        return versions()


class TrainerActor(Worker):
    """The process of a trainer: alone, or one rank of several."""

    rank: Member

    def place(self) -> tuple[str, int]:
        """An address and a port of this machine at which ranks may meet."""
        host = need_ray().util.get_node_ip_address()
        with socket.socket() as found:
            found.bind(("", 0))
            return host, int(found.getsockname()[1])

    def join(self, rank: int, size: int, host: str, port: int) -> None:
        """Become rank ``rank`` of ``size``, that meet at an address."""
        if size == 1:
            self.rank = Member()
            return
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, init_method=f"tcp://{host}:{port}", rank=rank, world_size=size)
        self.rank = Rank()

    def call(self, name: str, *args: Any) -> Any:
        """Call a method of the rank."""
        if name in ("write", "save") and not args[0].parent.is_dir():
            raise UserError(
                f"{args[0].parent} is not seen from the machine of a trainer ({platform.node()}): put the run's folder (--out) on "
                "a file system that all machines of the cluster share"
            )
        return getattr(self.rank, name)(*args)

    def frozen(self) -> str | None:
        """A checksum of what is never trained of the policy; ``None`` where it is spread over ranks."""
        return checksum(_frozen(self.rank.engine.policy)) if type(self.rank) is Member else None

    def publish(self, version: int) -> Published | None:
        """The trained weights as they are now, those of adapters alone where adapters are trained, in the object store."""
        found, trained = self.rank.weights(), {name for name, _ in self.rank.engine.policy.trainable()}
        if found is None:
            return None
        weights = {name: x for name, x in found.items() if name in trained}
        return Published(version, checksum(weights), (need_ray().put(weights),))


class SamplerActor(Worker):
    """A sampler with a whole copy of the policy, and of each other model that programs draw from."""

    policy: Policy
    samplers: dict[str, LocalSampler]

    async def prepare(self, paths: Sequence[str], files: Sequence[str], threads: int) -> dict[str, str]:  # type: ignore[override]
        """See :class:`Worker`."""
        return super().prepare(paths, files, threads)

    async def open(self, models: Models, recipe: Recipe) -> tuple[dict[str, tuple[str, int]], str]:
        """Load the models that are drawn from. Returns why it draws slowly, how many tokens it chooses from, by role, and a
        checksum of what is never trained. Raises :class:`~policyopt.errors.UserError`."""
        self.policy = policy = models.policy.load()
        self.samplers = {"": LocalSampler.of(policy)}
        named = {name: model.load() for name, model in models.roles.items() if name in recipe.sampled_roles}
        for name, role in fill_roles(policy, recipe, named, recipe.sampled_roles).items():
            if role.model is policy.model:
                raise UserError(f"a rollout program draws from the {name}, which with --lora is no model of its own: name one with --role {name}=PATH")  # fmt: skip
            with role as likelihood:
                self.samplers[name] = LocalSampler(
                    likelihood, policy.eos, self.samplers[""].device, stops=policy.text.stops
                )
        self._told = {name: (s.computed, s.drawn) for name, s in self.samplers.items()}
        said = {name: (s.slow, s.vocab) for name, s in self.samplers.items()}
        return said, checksum(_frozen(policy))

    async def load(self, version: int, weights: Mapping[str, Tensor]) -> tuple[int, str]:
        """Take published weights; what is under way goes on with them. Returns the version that is drawn from now, and the
        checksum of what is held."""
        held = dict(self.policy.trainable())
        with torch.no_grad():
            for name, x in weights.items():
                held[name].copy_(x)
        sampler = self.samplers[""]
        sampler.version = version
        sampler.reread()
        return sampler.version, checksum(held)

    async def answer(self, requests: Sequence[tuple[str, Asked]]) -> tuple[list[Any], dict[str, tuple[int, int]]]:
        """What was asked of models for together, in order, errors in their places; and for each model how many tokens were computed
        and drawn since it was last said."""
        asked = [one.answered(self.samplers[role]) for role, one in requests]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        now = {name: (s.computed, s.drawn) for name, s in self.samplers.items()}
        told, self._told = self._told, now
        return answers, {name: (now[name][0] - told[name][0], now[name][1] - told[name][1]) for name in now}

    async def embed(self, role: str, ids: Tensor) -> Tensor:
        """The input embeddings of ids."""
        return self.samplers[role].embed(ids)

    async def forget(self) -> None:
        """Let go of what is held for later requests, and of requests that nobody waits for any more."""
        for sampler in self.samplers.values():
            sampler.forget()


def _frozen(policy: Policy) -> dict[str, Tensor]:
    return {name: p for name, p in policy.model.named_parameters() if not p.requires_grad}
