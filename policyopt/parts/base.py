"""What a part is, and the slots of a recipe that parts fill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as _dataclass
from torch import Tensor
from typing_extensions import dataclass_transform

from policyopt.batch import Batch

if TYPE_CHECKING:
    from policyopt.recipe import Recipe

Unit = Literal["token", "row", "group", "batch"]
UNITS: tuple[Unit, ...] = ("token", "row", "group", "batch")

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


@dataclass_transform(frozen_default=True)
def part(cls: type) -> Any:
    """Make a class a part: a frozen dataclass whose fields are checked against their types and ranges.

    Raises ``pydantic.ValidationError`` when a part is made with a field of the wrong type or out of its range.
    """
    return _dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)


@part
class Part:
    """Pure mathematics on a :class:`~policyopt.batch.Batch`; its fields are its hyper-parameters."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Columns beyond ``logp`` that the part reads: "entropy", "ref_logp", "value", "baseline_reward", "correct"."""
    unit: ClassVar[Unit] = "token"
    """The smallest piece of a batch on which the part gives the same numbers as on the whole."""
    min_group: ClassVar[int] = 1
    """How many responses to one prompt the part needs for its statistic to exist."""


class Shape(Part):
    """Reward shaping: returns the batch with ``reward`` [N] or ``token_reward`` [N, T] changed."""

    def __call__(self, batch: Batch) -> Batch:
        raise NotImplementedError


class Filter(Part):
    """Which rows are trained on: returns a boolean [N]."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Advantage(Part):
    """How much better than expected each token was: returns [N, T], zero on padding."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Ratio(Part):
    """The logarithm of an importance ratio: returns [N, T]."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Surrogate(Part):
    """The loss of each token, to be minimised: takes the log-ratio [N, T] and the batch, returns [N, T]."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """What the log should say of this part: name -> [N, T], averaged over the tokens of the batch."""
        return {}


class Weight(Part):
    """A detached factor on the surrogate of each token: takes the log-ratio [N, T] and the batch, returns [N, T]."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        raise NotImplementedError

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """What the log should say of this part: name -> [N, T], averaged over the tokens of the batch."""
        return {}


class Aggregate(Part):
    """How token losses become one number: returns the share [N, T] of each token, so that ``loss = (share *
    token_loss).sum()``.

    Shares depend on masks and lengths alone. They are made once on the whole mini-batch, which is why splitting
    it into micro-batches changes nothing.
    """

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Regularizer(Part):
    """A further loss per token, aggregated like the surrogate: returns [N, T], its coefficient included."""

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError


class Critic(Part):
    """The loss of a learned value function and the target that it is trained towards."""

    def target(self, batch: Batch) -> Tensor:
        """What the critic should have predicted, [N, T]; computed once when the batch is drawn."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> Tensor:
        """Loss per token [N, T], a function of ``value``, ``old_value`` and ``returns``."""
        raise NotImplementedError


class Controller(Part):
    """Changes a field of the recipe between steps.

    A controller is pure too: what it remembers is a dictionary of numbers that the loop keeps and checkpoints.
    """

    def start(self) -> dict[str, float]:
        """The state before the first step."""
        return {}

    def __call__(
        self, recipe: Recipe, metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[Recipe, dict[str, float]]:
        """The recipe and the state for the next step, given the metrics of the last (empty before the first)."""
        raise NotImplementedError
