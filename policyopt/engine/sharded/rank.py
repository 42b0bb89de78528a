"""What each trainer rank does when the driver calls, whoever started it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from policyopt.engine import Model, Models
from policyopt.engine.local import LocalEngine
from policyopt.engine.plan import UpdateReport
from policyopt.engine.protocol import Size
from policyopt.engine.sent import Asked
from policyopt.engine.sharded.share import ShareEngine
from policyopt.errors import UserError
from policyopt.models.load import Policy
from policyopt.models.text import Text
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.program import Response


@dataclass(frozen=True)
class Opened:
    """What the driver learns of an engine that was opened."""

    text: Text
    context: int
    dtype: torch.dtype
    size: Size
    start: Mapping[str, Tensor]
    vocab: int


class Member:
    """What a trainer process of a :class:`~policyopt.engine.sharded.crew.Crew` does with its engine when the driver calls. Batches
    come and go on the CPU; what all would give alike, the first gives alone."""

    first = True
    """Whether it is the first, or the only one."""

    def __init__(self) -> None:
        self._loaded: tuple[Policy, dict[str, Policy]] | None = None
        self._opened: LocalEngine | None = None

    def load(self, models: Models) -> None:
        """Load the models. Raises :class:`~policyopt.errors.UserError` where one cannot be used."""
        self._loaded = models.load()

    def open(self, recipe: Recipe, optimiser: Mapping[str, Any]) -> Opened | None:
        """Make an engine of the models that are loaded."""
        assert self._loaded is not None, "nothing was loaded"
        (policy, roles), self._loaded = self._loaded, None
        self._opened = engine = self._made(policy, recipe, roles, **optimiser)
        start = {name: x.cpu() for name, x in engine.start.items()}
        opened = Opened(engine.text, engine.context, engine.dtype, engine.size(), start, engine.vocab)
        return opened if self.first else None

    _made: type[LocalEngine] = LocalEngine

    @property
    def engine(self) -> LocalEngine:
        """That of this process."""
        assert self._opened is not None, "nothing was opened"
        return self._opened

    # Scoring and updating ------------------------------------------------------------------------------------------

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch | None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = self.engine.annotate(batch.to(self.engine.device), recipe)
        return found.cpu() if self.first else None

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch | None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = self.engine.prepare(batch.to(self.engine.device), recipe)
        return found.cpu() if self.first else None

    def values(self, states: Sequence[Sequence[int]]) -> list[float] | None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found = self.engine.values(states)
        return found if self.first else None

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport | None:
        """See :class:`~policyopt.engine.protocol.Engine`; the report is of the whole mini-batch."""
        report = self.engine.update(recipe, batch.to(self.engine.device))
        return dataclasses.replace(report, weight=report.weight.cpu()) if self.first else None

    def follow(self, fraction: float, role: str) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        self.engine.follow(fraction, role)

    def set_lr(self, factor: float) -> float:
        """Put the learning rates at ``factor`` times their base. Returns that of the policy."""
        self.engine.set_lr(factor)
        return self.engine.lr

    def update_size(self) -> float:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return self.engine.update_size()

    def passes(self) -> Mapping[tuple[str, bool], int]:
        """Tokens that this process has scored."""
        return self.engine.passes

    # State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor] | None:
        """What is trained of the policy, whole, on the CPU."""
        found = self.engine.parameters()
        return {name: x.cpu() for name, x in found.items()} if self.first else None

    def weights(self) -> Mapping[str, Tensor] | None:
        """All weights of the policy, whole, on the CPU, in the precision that it computes in."""
        return {name: p.detach().cpu() for name, p in self.engine.policy.model.named_parameters()}

    def write(self, folder: Path) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`; members write their parts side by side."""
        self.engine.write(folder)

    def read(self, folder: Path, version: int) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        self.engine.read(folder, version)

    def save(self, folder: Path) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`; the first writes."""
        self.engine.save(folder)


class Rank(Member):
    """One of several members, in a process whose group of :mod:`torch.distributed` is there.

    Every method is called on all ranks at the same time with the same arguments.
    """

    _made = ShareEngine

    @property
    def engine(self) -> ShareEngine:
        """The share of this rank."""
        assert isinstance(self._opened, ShareEngine), "nothing was opened"
        return self._opened

    def __init__(self) -> None:
        super().__init__()
        self.first = dist.get_rank() == 0

    def load(self, models: Models) -> None:
        """Load the models, each rank on its own device. The ranks do not talk here, so that a model which one of them cannot use
        is an error that nobody waits behind."""
        if models.policy.options.get("compile"):
            raise UserError("--compile: compiled code is not spread over ranks; leave it out")
        if (chunks := models.policy.options.get("chunks")) is not None and chunks.tokens is not None:
            raise UserError("--chunks.tokens: rows in chunks are passed in one process alone so far; leave it out")
        super().load(models.placed(_here))

    def weights(self) -> Mapping[str, Tensor] | None:
        """See :class:`Member`."""
        found = self.engine.published()
        return found if self.first else None

    # Drawing -------------------------------------------------------------------------------------------------------

    def sampler(self, role: str | None) -> str | None:
        """Make the sampler of the policy, or of a role, ready. Returns why it draws slowly, or nothing."""
        slow = self.engine.sampler_of(role).slow
        return slow if self.first else None

    def forget(self, role: str | None) -> None:
        """Let go of what the sampler holds for later requests."""
        self.engine.sampler_of(role).forget()

    def draw(self, role: str | None, asked: Sequence[Sequence[Asked]]) -> tuple[list[list[Response]], int, int]:
        """Answer this rank's share of requests, ``asked[rank]``. Returns the responses to each, how many tokens were computed
        and how many drawn."""
        return self.engine.draw(role, asked[dist.get_rank()])

    def embed(self, role: str | None, ids: Tensor) -> Tensor | None:
        """The input embeddings of ids."""
        found = self.engine.sampler_of(role).embed(ids)
        return found if self.first else None


def _here(model: Model) -> Model:
    """A model with the device that is this rank's own.

    Raises :class:`~policyopt.errors.UserError` for a device that all ranks would share, and for a GPU that is not there.
    """
    asked = str(model.options.get("device", "auto"))
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return model.on("cpu")
    if asked not in ("auto", "cuda"):
        raise UserError(
            f"--device {asked}: {dist.get_world_size()} ranks train together, each on a device of its own: take --device "
            "auto, or cpu"
        )
    mine, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if mine >= count:
        raise UserError(
            f"--device {asked}: rank {dist.get_rank()} would be on GPU {mine}, and there are {count} here: start at most one "
            "rank for each GPU (--nproc-per-node), or take --device cpu"
        )
    torch.cuda.set_device(mine)
    return model.on(f"cuda:{mine}")
