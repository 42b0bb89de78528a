"""The critic: a value for each token of a response."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from policyopt.models.chunked import WHOLE, Chunked, Chunks
from policyopt.models.head import SHORT
from policyopt.models.packed import can_pack, packed_hidden
from policyopt.models.places import hidden_at, pack
from policyopt.models.proof import pads_right
from policyopt.rows import Batch


class ValueModel(nn.Module):
    """A copy of a model's backbone with a scalar head that starts at zero.

    The value of token t is read off the hidden state that predicts it: it sees the prompt and the tokens before t,
    never t itself. Rows go through it as through the policy; ``chunks`` and ``version`` are as in
    :class:`~policyopt.models.chunked.Chunked`.
    """

    def __init__(self, backbone: Any, chunks: Chunks = WHOLE, version: Callable[[], int] = int) -> None:
        super().__init__()
        self.backbone: Any = copy.deepcopy(backbone).requires_grad_(True)
        self._chunked = None if chunks.tokens is None else Chunked(self.backbone, chunks, version)
        like = next(self.backbone.parameters())
        with torch.no_grad():  # the width is not always that of the configuration: some families project it at the end
            probe = self.backbone(input_ids=torch.zeros(1, 1, dtype=torch.long, device=like.device), use_cache=False)
        self.head = nn.Linear(probe.last_hidden_state.shape[-1], 1, device=like.device, dtype=like.dtype)
        vocab = backbone.get_input_embeddings().weight.shape[0]
        self._pads = pads_right(self.backbone, vocab, like.device)
        self.packs = can_pack(self.backbone, vocab, self._pads)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        """Values [N, T], 0 on padding; float32 for 16-bit models."""
        ids, row, position = pack(batch)
        values = self._at(ids, row, position)
        mask = batch.mask.bool()
        return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)

    def after(self, ids: Tensor, length: Tensor) -> Tensor:
        """Values [N] of the states that texts lead to: ids [N, L], right-padded, of which the first ``length`` [N] count."""
        return self._at(ids, torch.arange(len(ids), device=ids.device), length.long() - 1)

    def _whole(self, ids: Tensor, row: Tensor, position: Tensor) -> Tensor:
        if ids.shape[1] <= self.packs:
            return packed_hidden(self.backbone, ids, row, position)
        return hidden_at(self.backbone, ids, row, position, pads=self._pads)

    def _at(self, ids: Tensor, row: Tensor, position: Tensor) -> Tensor:
        hidden = self._whole if self._chunked is None else partial(self._chunked, plain=self._whole)
        values = self.head(hidden(ids, row, position))[:, 0]
        return values.float() if values.dtype in SHORT else values
