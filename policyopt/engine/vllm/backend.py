"""What is asked of a vLLM, wherever it runs: to draw, and to take weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Params = dict[str, Any]
"""Fields of vLLM's ``SamplingParams`` by name."""


@dataclass
class Drawn:
    """What vLLM gave for one request."""

    tokens: list[int]
    logp: list[float]
    """Of each token, in the distribution that it was drawn from."""
    top: list[tuple[list[int], list[float]]] = field(default_factory=list)
    """The likeliest tokens at each place with their log-probabilities, the likeliest first, where they were asked for."""
    masks: list[list[int]] | None = None
    """The ids of the tokens that each token was drawn from; ``None`` where vLLM does not say."""
    prompt: list[float] = field(default_factory=list)
    """Of each token of the prompt but the first, at temperature 1, where they were asked for."""
    versions: list[str] | None = None
    """The name of the weights that drew each token; ``None`` where vLLM does not say."""
    cached: int = 0
    """Tokens of the prompt that did not have to be computed."""


class Backend(Protocol):
    """A vLLM that is reached. Every method raises :class:`~policyopt.errors.UserError` where vLLM refuses or is gone."""

    name: str
    """For people: where it is."""

    def session(self) -> AbstractAsyncContextManager[None]:
        """Requests are made within one, all in one event loop; what is still in flight at its end is dropped."""
        ...

    async def draw(self, tokens: Sequence[int], params: Params, adapter: str | None) -> Drawn:
        """One response to a prompt, by the model or by one of its adapters."""
        ...

    def pause(self) -> None:
        """Draw nothing more, and forget what was computed with the weights as they are."""
        ...

    def init_transfer(self) -> None:
        """Once, before the first update."""
        ...

    def start_update(self) -> None:
        """First phase: make ready for weights."""
        ...

    def update(self, folder: Path) -> None:
        """Second phase: take the weights in a folder."""
        ...

    def finish_update(self, version: str) -> None:
        """Third phase: they are complete, under a name."""
        ...

    def resume(self) -> None:
        """Fourth phase: draw again."""
        ...

    def version(self) -> str:
        """The name of the weights that it has."""
        ...

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each of its weights, by its own names."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Take the adapters in a folder under a name, and let go of those before."""
        ...

    def sleep(self, level: int) -> None:
        """Give its memory back: at level 1 its weights wait on the host, at level 2 they are dropped."""
        ...

    def wake(self, tag: str) -> None:
        """Take its memory again: "weights", then "kv_cache"."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
