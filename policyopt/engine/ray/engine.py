"""The engine ``ray`` in the process of the run: it calls the trainers, hands their weights to the samplers, and draws."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from policyopt.engine import Models
from policyopt.engine.plan import UpdateReport
from policyopt.engine.protocol import Size
from policyopt.engine.ray import CAPABILITIES
from policyopt.engine.ray.actors import Opened, SamplerActor, TrainerActor, placed
from policyopt.engine.ray.ahead import Drawing
from policyopt.engine.ray.cluster import Connection
from policyopt.engine.ray.crew import Hire, Trainers
from policyopt.engine.ray.fleet import Fleet
from policyopt.engine.ray.sampler import RaySampler
from policyopt.engine.settings import Cluster
from policyopt.errors import UserError
from policyopt.models.text import Text
from policyopt.recipe import Recipe
from policyopt.rows import Batch

X = TypeVar("X")

ENDING = 15.0
"""Seconds that a draw beside training may take to end when the engine is closed."""


class RayEngine:
    """An :class:`~policyopt.engine.protocol.Engine` over processes of a Ray cluster.

    One trainer is a local engine in a process of its own. Samplers have whole copies of the policy; new weights go
    to them before the next draw, each time with a checksum that they have to come to as well. With ``continue_in_flight`` they go
    to them after every update instead, whatever is under way.

    Raises :class:`~policyopt.errors.UserError` as :func:`policyopt.engine.ray.open_engine` says; nothing is left behind then.
    """

    capabilities = CAPABILITIES
    policy = None
    device = torch.device("cpu")

    def __init__(self, models: Models, recipe: Recipe, settings: Cluster, **optimiser: Any) -> None:
        _need_still_roles(recipe)
        self._settings = settings
        self._order = threading.Lock()
        self._drawing = Drawing()
        self._trainers: Trainers | None = None
        self._fleet: Fleet | None = None
        self.version, self._lr = 0, optimiser.get("lr", 0.0)
        self._connection = Connection(settings)
        try:
            self._open(models, recipe, optimiser)
        except BaseException:
            self.close()
            raise

    def _open(self, models: Models, recipe: Recipe, optimiser: Mapping[str, Any]) -> None:
        settings = self._settings
        device = self._connection.need_places(
            settings.trainers, settings.samplers, str(models.policy.options.get("device", "auto"))
        )
        self._hire = hire = Hire(self._connection, device, settings.trainers + settings.samplers)
        self._models, self._recipe = placed(models, device), recipe
        self._trainers = trainers = Trainers(hire, [hire.start(TrainerActor, "the trainer")])
        hire.get(trainers.actors[0].start.remote(), "the trainer")
        opened: Opened = trainers.call("open", self._models, recipe, optimiser)[0]
        self.text: Text = opened.text
        self.context, self.dtype, self._size, self.start = opened.context, opened.dtype, opened.size, opened.start
        self._frozen = opened.frozen
        self._said: dict[str, tuple[str, int]] = {}
        self._fleet = Fleet(self._sampler, settings.samplers, rounds=not settings.continue_in_flight)
        made = {
            role: RaySampler(self._fleet, role, slow, vocab, self._begin) for role, (slow, vocab) in self._said.items()
        }
        self.sampler, self.samplers = made.pop(""), made

    def _sampler(self, i: int) -> Any:
        """Start a sampler and have it load its models."""
        actor = self._hire.start(SamplerActor, f"sampler {i}")
        self._said, frozen = self._hire.get(actor.open.remote(self._models, self._recipe), f"sampler {i}")
        if self._frozen not in (None, frozen):
            raise UserError(
                f"sampler {i} has other files of the model {self._models.policy.name} than the trainer (checksums {frozen} and "
                f"{self._frozen}): put the same ones on all machines of the cluster"
            )
        return actor

    def _call(self, name: str, *args: Any) -> Any:
        """Call the trainers, all in the same order, whichever thread asks; what the first gives."""
        assert self._trainers is not None
        with self._order:
            return self._trainers.call(name, *args)[0]

    # Drawing -------------------------------------------------------------------------------------------------------

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """See :class:`~policyopt.engine.protocol.Engine`; what it draws with stays as it is until it ends, unless weights are
        handed over in flight."""
        if not self._settings.continue_in_flight:
            self._drawing.wait()
        self._hand_over()
        return self._drawing.start(draw)

    def _hand_over(self) -> None:
        """Give the weights of now to the samplers, where they have them not."""
        assert self._fleet is not None and self._trainers is not None
        held = self._fleet.held
        if held is None or held.version != self.version:
            with self._order:
                published = self._trainers.publish(self.version)
            self._fleet.hand_over(published)

    def _begin(self) -> None:
        assert self._fleet is not None
        if not self._drawing.busy:
            self._hand_over()
        self._fleet.begin()

    # Scoring and updating --------------------------------------------------------------------------------------------

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return self._scored("annotate", batch, recipe)

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return self._scored("prepare", batch, recipe)

    def _scored(self, name: str, batch: Batch, recipe: Recipe) -> Batch:
        found: Batch = self._call(name, batch.with_records(None), recipe)
        return found.with_records(batch.records)

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found: list[float] = self._call("values", states)
        return found

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        report: UpdateReport = self._call("update", recipe, batch.with_records(None))
        self.version += report.applied
        if self._settings.continue_in_flight:
            self._hand_over()
        return report

    def follow(self, fraction: float, role: str = "reference") -> None:
        """Move a role by a fraction of its way towards the policy."""
        self._call("follow", fraction, role)

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        self._lr = self._call("set_lr", factor)

    @property
    def lr(self) -> float:
        """The learning rate of the policy now."""
        return self._lr

    def update_size(self) -> float:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return float(self._call("update_size"))

    @property
    def passes(self) -> Mapping[tuple[str, bool], int]:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        found: Mapping[tuple[str, bool], int] = self._call("passes")
        return found

    # State -----------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        """What is trained of the policy, by name."""
        found: Mapping[str, Tensor] = self._call("parameters")
        return found

    def write(self, folder: Path) -> None:
        """Have the trainers write into the folder, which they have to see."""
        self._call("write", folder.resolve())

    def read(self, folder: Path, version: int) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        self._call("read", folder.resolve(), version)
        self.version = version
        assert self._fleet is not None
        self._fleet.held = None

    def size(self) -> Size:
        """What a checkpoint and the model take on the disk."""
        return self._size

    def save(self, folder: Path) -> None:
        """Have the first trainer write the policy as a folder."""
        self._call("save", folder.resolve())

    def close(self) -> None:
        """End all processes, and the Ray that was started for them."""
        try:
            for part in (self._fleet, self._trainers):
                if part is not None:
                    part.close()
            self._drawing.close(ENDING)
        finally:
            self._connection.close()


def _need_still_roles(recipe: Recipe) -> None:
    """Raises :class:`~policyopt.errors.UserError` where programs draw from a model that training moves."""
    moving = {"previous"} | ({"reference"} if recipe.reference.moves else set())
    if found := sorted(recipe.sampled_roles & moving):
        raise UserError(f"{recipe.name} draws from the {found[0]}, which moves, and the samplers of --engine ray have it as it was at the start: take --engine local")  # fmt: skip

