"""The engine of several trainer ranks, as the driver of a run has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from policyopt.capability import CAPABILITIES
from policyopt.engine import Models
from policyopt.engine.plan import UpdateReport
from policyopt.engine.protocol import EngineSampler, Size, at_once
from policyopt.engine.sharded.crew import Crew
from policyopt.engine.sharded.rank import Opened
from policyopt.engine.sharded.sampler import DealtSampler
from policyopt.models.text import Text
from policyopt.recipe import Recipe
from policyopt.rows import Batch

X = TypeVar("X")

LEFT_OUT = frozenset({"routing replay", "group statistics", "gradient noise"})
"""What the ranks cannot do of what one process can; the rows of a prompt may lie on several of them."""


class ShardedEngine:
    """An :class:`~policyopt.engine.protocol.Engine` whose models are spread over the ranks of a crew.

    ``optimiser`` are the keywords of :class:`~policyopt.engine.local.engine.LocalEngine`. Raises
    :class:`~policyopt.errors.UserError` for a model that cannot be used or spread, and for a device that the ranks cannot have.
    """

    capabilities = frozenset(CAPABILITIES) - LEFT_OUT
    device = torch.device("cpu")
    """Batches come and go on the CPU."""
    policy = None

    def __init__(self, crew: Crew, models: Models, recipe: Recipe, **optimiser: Any) -> None:
        self.crew, self._roles = crew, recipe.roles
        crew.call("load", models)
        self.opened: Opened = crew.call("open", recipe, optimiser)[0]
        self.version = 0
        self.lr = crew.call("set_lr", 1.0)[0]
        self.samplers = self._role_samplers(recipe)

    def _role_samplers(self, recipe: Recipe) -> dict[str, EngineSampler]:
        """What draws from the roles that programs draw from."""
        return {role: DealtSampler(self.crew, self.opened.vocab, role) for role in sorted(recipe.sampled_roles)}

    @property
    def text(self) -> Text:
        """From text to the policy's tokens and back."""
        return self.opened.text

    @property
    def context(self) -> int:
        """How many tokens the policy reads at most, prompt and response together."""
        return self.opened.context

    @property
    def dtype(self) -> torch.dtype:
        """Of all floating columns of a batch."""
        return self.opened.dtype

    @property
    def start(self) -> Mapping[str, Tensor]:
        """What is trained as it was before the first step, where the recipe has probes."""
        return self.opened.start

    @cached_property
    def sampler(self) -> EngineSampler:
        """Draws from the policy, on all ranks."""
        return DealtSampler(self.crew, self.opened.vocab)

    @property
    def passes(self) -> Mapping[tuple[str, bool], int]:
        """Tokens of responses that each model has scored so far, on all ranks."""
        return sum((Counter(found) for found in self.crew.call("passes")), Counter[tuple[str, bool]]())

    def ahead(self, draw: Callable[[], X]) -> Callable[[], X]:
        """Draw at once: the ranks that draw are those that train."""
        return at_once(draw)

    # Scoring and updating ------------------------------------------------------------------------------------------

    def annotate(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return self._scored("annotate", batch, recipe)

    def prepare(self, batch: Batch, recipe: Recipe) -> Batch:
        """See :class:`~policyopt.engine.protocol.Engine`."""
        return self._scored("prepare", batch, recipe)

    def _scored(self, how: str, batch: Batch, recipe: Recipe) -> Batch:
        found: Batch = self.crew.call(how, _columns(batch), recipe)[0]
        return Batch(found.columns(), batch.records)

    def values(self, states: Sequence[Sequence[int]]) -> list[float]:
        """What the critic thinks of texts, given as ids. Raises :class:`~policyopt.errors.UserError` without a critic."""
        found: list[float] = self.crew.call("values", [tuple(state) for state in states])[0]
        return found

    def update(self, recipe: Recipe, batch: Batch) -> UpdateReport:
        """One optimiser step on a mini-batch. Nothing changes where the loss or a gradient is not finite."""
        report: UpdateReport = self.crew.call("update", recipe, _columns(batch))[0]
        self.version += report.applied
        return report

    def follow(self, fraction: float, role: str = "reference") -> None:
        """Move a role by a fraction of its way towards the policy."""
        if fraction and role in self._roles:
            self.crew.call("follow", fraction, role)

    def set_lr(self, factor: float) -> None:
        """Put the learning rates at ``factor`` times their base."""
        self.lr = self.crew.call("set_lr", factor)[0]

    def update_size(self) -> float:
        """See :meth:`~policyopt.engine.local.weights.Weights.update_size`."""
        return float(self.crew.call("update_size")[0])

    # State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        """What is trained of the policy, by name, whole and on the CPU."""
        found: Mapping[str, Tensor] = self.crew.call("parameters")[0]
        return found

    def write(self, folder: Path) -> None:
        """Have every rank write its share into a folder, which all of them see."""
        self.crew.call("write", folder.absolute())

    def read(self, folder: Path, version: int) -> None:
        """Put back what :meth:`write` wrote, on whatever number of ranks, or what the local engine did. Raises ``KeyError`` for
        a tensor that is missing or of another shape."""
        self.crew.call("read", folder.absolute(), version)
        self.version = version

    def size(self) -> Size:
        """What a checkpoint (parameters, and what the optimiser keeps) and the model take on the disk."""
        return self.opened.size

    def save(self, folder: Path) -> None:
        """Have the first rank write the policy as a folder."""
        self.crew.call("save", folder.absolute())

    def close(self) -> None:
        """Send the ranks home."""
        self.crew.close()


def _columns(batch: Batch) -> Batch:
    """A batch without its texts, which the ranks do not read."""
    return Batch(batch.cpu().columns())
