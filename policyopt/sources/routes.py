"""The record of the experts that the tokens of a text were sent to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routes:
    """The experts that a mixture of experts sent the tokens of a text to, from its first token on.

    It belongs to these tokens in this order: what a program makes of them (a piece, a continuation, another question before
    them) has the records of as many first tokens as are the same.
    """

    ids: tuple[int, ...]
    """The text."""
    experts: Tensor
    """[len(ids), R] small whole numbers; see :class:`~policyopt.models.routing.Routers`."""

    def of(self, text: Sequence[int]) -> Tensor:
        """[n, R] the records of the first n tokens of a text, as far as it is this one."""
        n = min(len(text), len(self.ids))
        if self.ids[:n] != tuple(text[:n]):
            n = next(i for i in range(n) if self.ids[i] != text[i])
        return self.experts[:n]

    def followed(self, ids: tuple[int, ...], experts: Tensor) -> Routes:
        """The record of a longer text: what is known of its beginning stays as it was."""
        known = self.of(ids)
        return Routes(ids, torch.cat([known, experts[len(known) :]]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; :meth:`from_dict` reads it back."""
        return {"ids": list(self.ids), "experts": self.experts.tolist(), "dtype": str(self.experts.dtype)}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Routes:
        """Read back what :meth:`to_dict` made."""
        dtype = getattr(torch, saved["dtype"].removeprefix("torch."))
        return cls(tuple(saved["ids"]), torch.tensor(saved["experts"], dtype=dtype))
