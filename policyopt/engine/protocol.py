"""What an engine is: all that training, rollout programs and the lens ask of whatever runs the models.

A run calls an engine in this order: ``sampler.run`` with a program for each prompt; ``annotate`` for what was drawn;
``prepare`` for what is about to be trained on; ``update`` for each optimiser step; ``follow`` for the models that move.
Batches come and go whole, on ``device`` and in ``dtype``. How rows are spread over devices, processes or machines is the
engine's own matter, and so are the models; :func:`policyopt.engine.plan.accumulate` says what has to be gathered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from policyopt.engine.plan import UpdateReport
from policyopt.models.text import Text
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from policyopt.sources.program import Sampler

__all__ = ["Drawing", "Engine", "EngineSampler", "Sampler", "Size", "UpdateReport", "at_once"]

X = TypeVar("X")


class EngineSampler(Sampler, Protocol):
    """A sampler as the one who owns it sees it: it runs programs, and counts."""

    @property
    def computed(self) -> int:
        """Tokens that went through the model so far, prompts included; what is shared counts once."""
        ...

    @property
    def drawn(self) -> int:
        """Tokens that were drawn so far."""
        ...

    @property
    def slow(self) -> str:
        """Why it draws slowly and how, for people; empty where it does not."""
        ...

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end, together, and return what each returned, in order.

        Nothing is held from one run to the next: what is drawn depends on the weights, the programs and their keys
        alone. An error in one program ends the run and is raised.
        """
        ...

    def forget(self) -> None:
        """Let go of what is held for later requests."""
        ...


@dataclass(frozen=True)
class Size:
    """What an engine writes to the disk, in bytes."""

    checkpoint: int
    model: int


class Drawing(EngineSampler, Protocol):
    """A sampler that the engine makes and closes."""

    version: int
    """Of the weights that it draws from."""

    def close(self) -> None:
        """Let go of what it holds outside this process."""
        ...


class Engine(Protocol):
    """The models of a run and what is done with them.

    It holds a policy, the roles that the recipe reads (:attr:`~policyopt.recipe.Recipe.roles`) and a critic where the
    recipe has one. Whoever makes one calls :func:`policyopt.capability.refuse_missing` first.
    """

    capabilities: frozenset[str]
    """What it can do, of :data:`policyopt.capability.CAPABILITIES`."""

    @property
    def text(self) -> Text:
        """From text to the policy's tokens and back; says with which tokens (``eos``) and texts (``stops``) responses
        end."""
        ...

    @property
    def context(self) -> int:
        """How many tokens the policy reads at most, prompt and response together."""
        ...

    @property
    def device(self) -> torch.device:
        """Where batches are taken and given."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of all floating columns of a batch: float32, or float64 for tests of gradients."""
        ...

    @property
    def version(self) -> int:
        """Optimiser steps taken so far. Responses say at which version each of their tokens was drawn."""
        ...

    @property
    def sampler(self) -> EngineSampler:
        """Draws from the policy as it is at :attr:`version`."""
        ...

    @property
    def samplers(self) -> Mapping[str, EngineSampler]:
        """Draw from other models, for the roles among :attr:`~policyopt.recipe.Recipe.sampled_roles`."""
        ...

    @property
    def passes(self) -> Mapping[tuple[str, bool], int]:
        """Tokens of responses that each model has scored so far, by role ("policy", "critic", "reference" ...) and
        whether with gradient; what samplers do is not counted."""
        ...

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """Begin to draw a batch for a later step, with the policy as it is now; ``draw`` reads nothing that training changes.
        Returns what waits for the batch, once. An engine that can goes on with it beside training; another draws at once."""
        ...

    # Scoring

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """A batch that was just drawn, with the columns that ``recipe.needs`` of frozen models (``logp_of[NAME]``), the
        fixed statistics, and where ``rollout_logp`` is needed the policy's own ``old_logp``, the sampler's in
        ``rollout_logp``."""
        ...

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """A batch that is about to be trained on, with what the policy, the policy of one step before and the critic
        think of it now: ``prox_logp``, ``prev_logp``, ``old_value``, as far as they are needed."""
        ...

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """What the critic thinks of texts, given as ids. Raises :class:`~policyopt.errors.UserError` without a critic."""
        ...

    # Updating

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch, of policy and critic. Nothing changes where the loss or a gradient is not
        finite."""
        ...

    def follow(self, fraction: float, role: str = "reference") -> None:
        """Move a role by a fraction of its way towards the policy; 0 does nothing."""
        ...

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        ...

    @property
    def lr(self) -> float:
        """The learning rate of the policy now."""
        ...

    def update_size(self) -> float:
        r"""Relative size of the last optimiser step, :math:`|\Delta\theta|/|\theta|`; NaN where that is not known."""
        ...

    # State

    def parameters(self) -> Mapping[str, Tensor]:
        """What is trained of the policy, by name (capability "parameters")."""
        ...

    @property
    def start(self) -> Mapping[str, Tensor]:
        """The same before the first step, where the recipe has probes."""
        ...

    def write(self, folder: Path) -> None:
        """Write everything that training changes into the folder of a checkpoint, which is there: files of any name but
        those of :mod:`policyopt.training.checkpoint`, or where the state lies elsewhere, what finds it again."""
        ...

    def read(self, folder: Path, version: int) -> None:
        """Put back what :meth:`write` wrote at a version; from there on the same batches give the same bits. Raises
        ``KeyError`` for a tensor that is missing or of another shape."""
        ...

    def size(self) -> Size:
        """What a checkpoint and the model take on the disk."""
        ...

    def save(self, folder: Path) -> None:
        """Write the policy as a folder that plain ``AutoModelForCausalLM.from_pretrained`` loads, whole or not at all."""
        ...

    def close(self) -> None:
        """Let go of what it holds outside this process; nothing else is called afterwards."""
        ...

    @property
    def policy(self) -> Any:
        """The trained model where it is in this process (a :class:`~policyopt.models.load.Policy`), else ``None``."""
        ...


def at_once(draw: Callable[[], X]) -> Callable[[], X]:
    """:meth:`Engine.ahead` of an engine that cannot draw beside training."""
    drawn = draw()
    return lambda: drawn
