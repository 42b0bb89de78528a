"""The engine ``ray`` in the process of the run: it calls the trainers, hands their weights to the samplers, and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from policyopt.engine import Models
from policyopt.engine.plan import UpdateReport
from policyopt.engine.protocol import EngineSampler
from policyopt.engine.ray import CAPABILITIES
from policyopt.engine.ray.actors import SamplerActor
from policyopt.engine.ray.ahead import Drawing
from policyopt.engine.ray.cluster import Connection
from policyopt.engine.ray.crew import Hire, Trainers
from policyopt.engine.ray.fleet import Fleet
from policyopt.engine.ray.sampler import RaySampler
from policyopt.engine.settings import Cluster
from policyopt.engine.sharded import ShardedEngine
from policyopt.errors import UserError
from policyopt.recipe import Recipe
from policyopt.rows import Batch

X = TypeVar("X")

ENDING = 15.0
"""Seconds that a draw beside training may take to end when the engine is closed."""


class RayEngine(ShardedEngine):
    """An :class:`~policyopt.engine.protocol.Engine` over processes of a Ray cluster.

    One trainer is a local engine in a process of its own; several share the model. Samplers have whole copies of the policy; new
    weights go to them before the next draw, each time with a checksum that they have to come to as well. With
    ``continue_in_flight`` they go to them after every update instead, whatever is under way.

    Raises :class:`~policyopt.errors.UserError` as :func:`policyopt.engine.ray.open_engine` says; nothing is left behind then.
    """

    capabilities = CAPABILITIES

    def __init__(self, models: Models, recipe: Recipe, settings: Cluster, **optimiser: Any) -> None:
        _need_still_roles(recipe)
        self._in_flight = settings.continue_in_flight
        self._drawing = Drawing()
        self._fleet: Fleet | None = None
        self._trainers: Trainers | None = None
        self._connection = connection = Connection(settings)
        try:
            asked = str(models.policy.options.get("device", "auto"))
            device = connection.need_places(settings.trainers, settings.samplers, asked)
            self._hire = Hire(connection, device, settings.trainers + settings.samplers)
            self._models, self._recipe = models.placed(lambda model: model.on(device)), recipe
            self._trainers = Trainers(self._hire, settings.trainers)
            super().__init__(self._trainers, self._models, recipe, **optimiser)
            self._frozen = self._trainers.frozen()
            self._draw_with(settings.samplers)
        except BaseException:
            self.close()
            raise

    def _role_samplers(self, recipe: Recipe) -> dict[str, EngineSampler]:
        """None: trainers do not draw."""
        return {}

    def _draw_with(self, count: int) -> None:
        """Start the samplers."""
        self._said: dict[str, tuple[str, int]] = {}
        self._fleet = fleet = Fleet(self._samplers, count, rounds=not self._in_flight)
        made = {name: RaySampler(fleet, name, slow, vocab, self._begin) for name, (slow, vocab) in self._said.items()}
        self.sampler: EngineSampler = made.pop("")
        self.samplers = dict(made)

    def _samplers(self, numbers: Sequence[int]) -> list[Any]:
        """Start samplers and have them load their models."""
        names = [f"sampler {i}" for i in numbers]
        actors = self._hire.start(SamplerActor, names)
        asked = [actor.open.remote(self._models, self._recipe) for actor in actors]
        for name, answer in zip(names, asked, strict=True):
            self._said, frozen = self._hire.get(answer, name)
            if self._frozen not in (None, frozen):
                raise UserError(
                    f"{name} has other files of the model {self._models.policy.name} than the trainer (checksums {frozen} and "
                    f"{self._frozen}): put the same ones on all machines of the cluster"
                )
        return actors

    # Drawing -------------------------------------------------------------------------------------------------------

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """See :class:`~policyopt.engine.protocol.Engine`; what it draws with stays as it is until it ends, unless weights are
        handed over in flight."""
        if not self._in_flight:
            self._drawing.wait()
        self._hand_over()
        return self._drawing.start(draw)

    def _hand_over(self) -> None:
        """Give the weights of now to the samplers, where they have them not."""
        assert self._fleet is not None and self._trainers is not None
        held = self._fleet.held
        if held is None or held.version != self.version:
            self._fleet.hand_over(self._trainers.publish(self.version))

    def _begin(self) -> None:
        assert self._fleet is not None
        if not self._drawing.busy:
            self._hand_over()
        self._fleet.begin()

    # Updating --------------------------------------------------------------------------------------------------------

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch. Nothing changes where the loss or a gradient is not finite."""
        report = super().update(recipe, batch)
        if self._in_flight:
            self._hand_over()
        return report

    def read(self, folder: Path, version: int) -> None:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        super().read(folder, version)
        assert self._fleet is not None
        self._fleet.held = None  # whatever it was

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
