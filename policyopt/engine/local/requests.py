"""What a local sampler is asked for: responses to draw, and texts to score."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Heat, Processor, Response
from policyopt.sources.truncation import Truncation


@dataclass
class Request:
    """What rows have in common."""

    prompt: tuple[int, ...]
    temperature: float | Heat
    stop: Mapping[int, Sequence[tuple[int, ...]]]
    """Stop sequences by their last token: there may be thousands, as where every token with a line break is one."""
    forced: tuple[int, ...]
    processor: Processor | None
    top: int
    keep: bool
    truncation: Truncation | None
    done: asyncio.Future[list[Response]]
    until: Callable[[Sequence[int]], bool] | None = None
    """Says after each token whether the response ends by it, in the place of the sampler's own ends."""
    rows: list[Row] = field(default_factory=list)
    open: int = 0
    """Rows that have not ended."""

    @property
    def plain(self) -> bool:
        """Nothing but a temperature changes what is drawn, and nothing but a token or the budget ends it."""
        asks = self.processor, self.truncation, self.until
        return not (any(asks) or self.forced or self.stop or self.top or callable(self.temperature))


@dataclass(eq=False)
class Row:
    """A response under way."""

    request: Request
    key: int
    response: Response
    end: int
    """How many tokens the response may have in all."""
    context: tuple[int, ...]
    """What has to be read before the next token is drawn."""


@dataclass
class Written:
    """A response of somebody else that is to be scored."""

    tokens: tuple[int, ...]
    written: tuple[int, ...]
    temperature: float
    done: asyncio.Future[Response]

    def __len__(self) -> int:
        return len(self.tokens) + len(self.written)


def as_batch(asked: Sequence[Written], dtype: torch.dtype, device: torch.device) -> Batch:
    """Responses of somebody else as rows."""

    def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids = [torch.tensor(row, device=device) for row in rows]
        ones = [torch.ones(len(row), dtype=dtype, device=device) for row in rows]
        return pad_sequence(ids, batch_first=True), pad_sequence(ones, batch_first=True)

    prompt, prompt_mask = padded([x.tokens for x in asked])
    tokens, mask = padded([x.written for x in asked])
    heat = torch.tensor([x.temperature for x in asked], dtype=dtype, device=device)
    return make_batch(mask=mask, tokens=tokens, prompt=prompt, prompt_mask=prompt_mask, temperature=heat)
