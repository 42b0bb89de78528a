"""Rows of a batch as texts, and the places in them whose hidden states predict what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from policyopt.models.routing import Within
from policyopt.rows import Batch


def alone(rows: slice, width: int) -> AbstractContextManager[Any]:
    """Nothing that a model would have to be called within."""
    return nullcontext()


def hidden_at(
    backbone: Callable[..., Any],
    ids: Tensor,
    row: Tensor,
    position: Tensor,
    *,
    pads: bool = True,
    within: Within = alone,
) -> Tensor:
    """The hidden states [M, H] at places (row, position), each [M], of right-padded texts ids [N, L]; row by row where
    padding is not without effect. Places come row after row. Each call of the backbone stands ``within`` what is asked
    for its rows and width."""
    if pads:
        with within(slice(None), ids.shape[1]):
            out: Tensor = backbone(input_ids=ids, use_cache=False).last_hidden_state
        return out[row, position]
    found = []
    for i in row.unique().tolist():
        there = position[row == i]
        text = ids[i : i + 1, : int(there.max()) + 1]
        with within(slice(i, i + 1), text.shape[1]):
            found.append(backbone(input_ids=text, use_cache=False).last_hidden_state[0, there])
    return torch.cat(found)


def pack(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and response of each row, joined and right-padded.

    Returns ids [N, L], and for every token of the mask (in the order of ``batch.mask.nonzero()``) its row and the
    position of the hidden state that predicts it. With right padding a causal model needs no attention mask: real
    tokens never look at padding.
    """
    prompt_mask, mask = batch.prompt_mask.bool(), batch.mask.bool()
    present = mask if batch.present is None else batch.present.bool()
    ids = torch.cat([batch.prompt, batch.tokens], 1)
    there = torch.cat([prompt_mask, present], 1)
    order = torch.argsort((~there).to(torch.int8), dim=1, stable=True)
    width = int(there.sum(1).max())
    ids = ids.masked_fill(~there, 0).gather(1, order)[:, :width]
    row, position = mask.nonzero(as_tuple=True)
    before = prompt_mask.sum(1)[row] + present.cumsum(1)[row, position] - 1
    return ids, row, before - 1


def read_length(ids: Tensor, row: Tensor, position: Tensor) -> Tensor:
    """[N] how many tokens of each text have to be read for places (row, position)."""
    length = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    return length.scatter_reduce(0, row, position + 1, "amax")
