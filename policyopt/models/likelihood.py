"""What is asked of a generative model: how likely its samples are, as a function of its parameters.

The loop, the parts and the engines know no more of a model than this. Whatever is autoregressive stands in
:mod:`policyopt.models.causal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from policyopt.models.routing import Routers
from policyopt.part import Statistic, Unit
from policyopt.rows import Batch

Leaves = dict[str, Tensor]
"""[N, T] by name: functions of the parameters that an objective is a function of."""

Others = Mapping[str, AbstractContextManager[Any]]
"""Other models of the same kind, by role; each is entered while it is used, as ``with others["reference"] as likelihood``."""


@dataclass(frozen=True)
class Weigh:
    """What an objective says of leaves: its gradient by each of them, [N, T] by name."""

    gradients: Callable[..., Mapping[str, Tensor]]
    unit: Unit = "token"
    """The smallest piece of a batch whose leaves can be weighed alone."""

    def __call__(
        self, leaves: Leaves, rows: Tensor | None = None, within: Tensor | None = None
    ) -> Mapping[str, Tensor]:
        """``leaves`` are those of some ``rows`` of a batch, by number [n], or of all, and of the tokens ``within`` [n, T], or of
        all of these rows; the gradient is 0 outside. Each token is asked for once."""
        return self.gradients(leaves, rows, within)


@dataclass(frozen=True)
class Wanted:
    """Which leaves are asked for beside ``logp``."""

    entropy: bool = False
    """[N, T] the entropy in nats of the distribution that each step of the sample comes from."""
    statistics: tuple[Statistic, ...] = ()
    """[N, T] each, by key: functions of whole distributions of a step."""

    @property
    def roles(self) -> frozenset[str]:
        """Whose distributions the statistics read beside the model's own."""
        return frozenset[str]().union(*(s.roles for s in self.statistics))


LOGP = Wanted()
"""``logp`` alone."""


class Likelihood(Protocol):
    """A model as the probability of what it draws, step by step: tokens of a text, denoising steps of an image."""

    def leaves(self, batch: Batch, wanted: Wanted = LOGP, others: Others | None = None) -> dict[str, Tensor]:
        """``logp`` [N, T] of the steps in ``batch.mask`` at the temperature of each row and over the ``support`` of each
        step, and what else is ``wanted``, by name; 0 on padding, float32 for 16-bit models. They carry gradient where gradient is enabled.

        ``others`` holds at least the models that the wanted statistics read; they get no gradient.
        """
        ...

    def weighed(
        self, batch: Batch, weigh: Weigh, wanted: Wanted = LOGP, others: Others | None = None
    ) -> tuple[Tensor, Tensor]:
        """One pass with gradient, in which the leaves of some of its units are weighed, and part of the way back is gone, before
        those of others are worked out: so little is held at once, and nothing is worked out twice.

        Adds to ``.grad`` of the parameters passed on that part of the way. Returns the tensor that the rest of it starts from,
        and the gradient by it; the tensor may have none to give.
        """
        ...


class Stepwise(Likelihood, Protocol):
    """A likelihood whose samples grow one token after the other, which is what the local sampler draws from."""

    @property
    def hidden(self) -> Callable[..., Any]:
        """From ids [B, Q] and what was computed before to hidden states: call it with ``input_ids``, ``past_key_values``
        and ``use_cache``, read ``last_hidden_state`` [B, Q, H]."""
        ...

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """From hidden states [..., H] to the logits [..., V] of the next token."""
        ...

    @property
    def vocab(self) -> int:
        """V, how many tokens there are to choose from."""
        ...

    def predicting(self, batch: Batch) -> Tensor:
        """The hidden states that predict the response tokens, [M, H] in the order of ``batch.mask.nonzero()``."""
        ...

    def pieces(self, batch: Batch, rows: int | None = None) -> Iterator[list[int]]:
        """The rows of a batch that are best passed together, each row once: ``rows`` at a time, or as many as
        :data:`~policyopt.models.pieces.MICRO_TOKENS` allow."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU and without gradient."""
        ...

    @property
    def routers(self) -> Routers:
        """Those of a mixture of experts. Raises :class:`~policyopt.errors.UserError` for a model without experts, and where
        their choice cannot be recorded and taken again."""
        ...

    def choices(self, batch: Batch) -> Tensor:
        """The experts that the tokens of each row go to, prompt included, as the column ``routes``; without gradient."""
        ...
