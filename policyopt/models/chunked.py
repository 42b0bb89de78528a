"""Rows that are longer than a chunk, passed chunk by chunk in training: activations of one chunk at a time, the same gradient."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from policyopt.errors import UserError
from policyopt.models.places import read_length
from policyopt.models.proof import near, probe_ids, reach
from policyopt.part import Count, part

Step = Callable[[slice, list[Tensor]], tuple[Tensor, list[Tensor]]]
"""A chunk of a sequence from the state of all that came before: what the loss reads of it, and its own state. States are
tensors [..., t, D] with t positions; what is read may have any shape."""


@part
class Chunks:
    """How rows that are longer than a chunk are passed in training."""

    tokens: Count | None = None
    """Pass rows of more tokens chunk by chunk, backward too: the gradient is the same, memory for activations is that of one
    chunk, and every token is computed once more. Unset: rows are passed whole."""
    kept: Count | None = None
    """Send the gradient through so many chunks of a row alone, drawn anew at every update: faster, and only nearly without
    bias (SpaCO). Unset: through all of them."""
    cap: Annotated[float, Field(gt=0)] = 2.0
    """The most by which the gradient that later chunks hand over is multiplied to make up for those that are left out."""
    drawn: Literal["subset", "independent"] = "subset"
    """``subset`` draws exactly ``kept`` chunks; ``independent`` each chunk by itself, so many on average, which has no bias at
    all where ``cap`` is large."""

    def __post_init__(self) -> None:
        if self.kept is not None and self.tokens is None:
            raise ValueError("chunks.kept is set, and chunks.tokens, how long a chunk is, is not: set both or neither")


WHOLE = Chunks()
"""No chunks: every row is passed whole."""


# The chain -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Through which chunks the gradient goes, and what makes up for the others."""

    chunks: Collection[int]
    own: float = 1.0
    """Multiplies the gradient of what the loss reads of a chunk."""
    handed: float = 1.0
    """Multiplies the gradient that later chunks leave on the state of a chunk."""


def backward_by_chunks(
    step: Step, pieces: Sequence[slice], state: Sequence[Tensor], gradients: Sequence[Tensor], selection: Selection
) -> None:
    r"""Backward through a sequence whose chunks see earlier ones by their state alone, with the graph of one chunk at a time.

    Chunk j makes :math:`(o_j, m_j) = f(x_j; m_1, \dots, m_{j-1})`. From the last chunk to the first it is computed once more from states
    that are cut from their graph, and

    .. math:: g_j = \sum_{l > j} \frac{\partial m_l}{\partial m_j}^T \gamma g_l + \frac{\partial o_l}{\partial m_j}^T \alpha
              \frac{\partial L}{\partial o_l}

    over the selected chunks is pushed into :math:`m_j` with :math:`\gamma` (``handed``), and :math:`\partial L/\partial o_j` into :math:`o_j` with
    :math:`\alpha` (``own``). That is the chain rule where all chunks are selected and both factors are 1. ``state`` holds what the chunks made when they were
    passed without gradient, each [..., T, D]; ``pieces`` their places in it, in order; ``gradients`` :math:`\partial L/\partial o_j` by chunk.
    What ``step`` depends on gets its gradient added to ``.grad``.

    Source: arXiv:2505.16710, algorithms 1 and 2, and the authors' training script (wenhaoli-xmu/seco), where the own loss is
    scaled too; without that algorithm 2 would shrink the gradient.
    """
    owed = [torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in state]
    for j in sorted(selection.chunks, reverse=True):
        piece = pieces[j]
        before = [_collecting(x[..., : piece.start, :], to) for x, to in zip(state, owed, strict=True)]
        with torch.enable_grad():
            out, new = step(piece, before)
        pushed = [(out, selection.own * gradients[j])]
        pushed += [(x, (selection.handed * g[..., piece, :]).to(x)) for x, g in zip(new, owed, strict=True)]
        pushed = [(x, g) for x, g in pushed if x.requires_grad]  # adapters may leave some layers as they are
        if pushed:
            torch.autograd.backward([x for x, _ in pushed], [g for _, g in pushed])


def _collecting(state: Tensor, owed: Tensor) -> Tensor:
    """The state of earlier chunks [..., t, D], cut from its graph; its gradient is added to the first places of ``owed`` [..., T, D]."""

    def collect(leaf: Tensor) -> None:
        assert leaf.grad is not None
        owed[..., : state.shape[-2], :] += leaf.grad
        leaf.grad = None

    leaf = state.detach().requires_grad_()
    leaf.register_post_accumulate_grad_hook(collect)
    return leaf


def selected(count: int, chunks: Chunks, key: int) -> Selection:
    r"""The chunks of a row that the gradient goes through, t of k: a function of ``key``.

    With share t/k of the chunks :math:`\alpha = k/t` and :math:`\gamma = \min(k/t, cap)`: a chain through p chunks
    is scaled by about the inverse of the probability that all of them are selected. Independent draws make that exact, and so
    the expectation the full gradient; of t-of-k draws a chain survives less often,
    :math:`\frac{t(t-1)\cdots}{k(k-1)\cdots}` in the place of :math:`(t/k)^p`, so that long chains come out too small.
    """
    if chunks.kept is None or chunks.kept >= count:
        return Selection(range(count))
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(key), dtype=torch.float64)
    if chunks.drawn == "subset":
        chosen = uniform.argsort()[: chunks.kept].tolist()
    else:
        chosen = (uniform < chunks.kept / count).nonzero()[:, 0].tolist()
    return Selection(chosen, count / chunks.kept, min(count / chunks.kept, chunks.cap))


# Of a language model --------------------------------------------------------------------------------------------------


class ChunkLayer(DynamicLayer):
    """Keys and values of a layer, [1, H, t, D], of a chunk after those of all chunks before it."""

    def __init__(self, before: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.before = before
        self.new: tuple[Tensor, Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What the chunk attends to."""
        self.new = (key_states, value_states)
        if self.before is None:
            return self.new
        keys, values = self.before
        return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    def get_seq_length(self) -> int:
        """Positions before the chunk."""
        return 0 if self.before is None else self.before[0].shape[-2]


class _Row:
    """A text as a sequence of chunks: the step of :func:`backward_by_chunks`, whose state is keys and values of every layer,
    and of which the loss reads hidden states."""

    def __init__(self, backbone: Any, ids: Tensor, position: Tensor, size: int) -> None:
        self.backbone, self.ids, self.position = backbone, ids, position
        self.layers = len(DynamicCache(config=backbone.config).layers)
        self.pieces = [slice(start, min(start + size, len(ids))) for start in range(0, len(ids), size)]

    def __call__(self, piece: slice, before: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        cache: Any = DynamicCache()
        held = list(zip(before[::2], before[1::2], strict=True)) if piece.start else [None] * self.layers
        cache.layers = layers = [ChunkLayer(pair) for pair in held]
        ids = self.ids[None, piece]
        hidden = self.backbone(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state[0]
        return hidden[self.position[self.within(piece)] - piece.start], [x for layer in layers for x in layer.new]

    def within(self, piece: slice) -> Tensor:
        """Which of the places that are read lie in a chunk, boolean [M]."""
        return (self.position >= piece.start) & (self.position < piece.stop)

    @torch.no_grad()
    def passed(self) -> tuple[Tensor, list[Tensor]]:
        """The hidden states [M, H] and the whole state, chunk after chunk."""
        found: list[Tensor] = []
        state: list[Tensor] = []
        for piece in self.pieces:
            out, new = self(piece, [x[..., : piece.start, :] for x in state])
            state = state or [x.new_empty(*x.shape[:-2], len(self.ids), x.shape[-1]) for x in new]
            for whole, x in zip(state, new, strict=True):
                whole[..., piece, :] = x
            found.append(out)
        return torch.cat(found), state


class _ByChunks(torch.autograd.Function):
    """The hidden states [M, H] of a row, whose backward goes chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, row: _Row, selection: Selection) -> Tensor:
        hidden, state = row.passed()
        ctx.row, ctx.selection, ctx.state = row, selection, state
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        row = ctx.row
        backward_by_chunks(
            row, row.pieces, ctx.state, [gradient[row.within(piece)] for piece in row.pieces], ctx.selection
        )
        del ctx.state
        return None, None, None


@dataclass(frozen=True)
class Chunked:
    """The hidden states of rows, of which those that are longer than a chunk go one by one and chunk by chunk.

    ``version`` counts the updates: which chunks of a row are selected follows from it and from the tokens of the row, so
    that it is the same in any micro-batch and after a resume.
    """

    backbone: Any
    chunks: Chunks
    version: Callable[[], int] = int

    def __call__(self, ids: Tensor, row: Tensor, position: Tensor, plain: Callable[..., Tensor]) -> Tensor:
        """The hidden states [M, H] at places (row, position), each [M], of right-padded texts ids [N, L]. ``plain`` takes the
        same and gives those of the rows that are no longer than a chunk."""
        length = read_length(ids, row, position)
        long = length > (self.chunks.tokens or ids.shape[1])
        if not bool(long.any()):
            return plain(ids, row, position)
        parts, places = list[Tensor](), list[Tensor]()
        short = ~long[row]
        if bool(short.any()):
            number = (~long).cumsum(0) - 1
            width = int(length[~long].max())
            parts.append(plain(ids[~long, :width], number[row[short]], position[short]))
            places.append(short.nonzero()[:, 0])
        for i in long.nonzero()[:, 0].tolist():
            places.append((row == i).nonzero()[:, 0])
            parts.append(self._long(ids[i, : int(length[i])], position[places[-1]]))
        return torch.cat(parts)[torch.cat(places).argsort()]

    def _long(self, ids: Tensor, position: Tensor) -> Tensor:
        assert self.chunks.tokens is not None
        row = _Row(self.backbone, ids, position, self.chunks.tokens)
        if not torch.is_grad_enabled():
            return row.passed()[0]
        said = ",".join(map(str, [self.version(), *ids.tolist()])).encode()
        key = int.from_bytes(hashlib.blake2b(said, digest_size=7).digest(), "little")
        # Autograd calls the backward of what depends on something that wants a gradient.
        anchor = torch.empty(0, device=ids.device, requires_grad=True)
        hidden: Tensor = _ByChunks.apply(anchor, row, selected(len(row.pieces), self.chunks, key))
        return hidden


def check_chunks(backbone: nn.Module, vocab: int) -> None:
    """Prove on a probe that a text can be passed chunk by chunk, past any window that the probe can reach.

    Raises :class:`~policyopt.errors.UserError` for a model that keeps another state than the keys and values of all
    positions, and for one that comes out another.
    """
    name, far = type(backbone).__name__, reach(backbone)
    config: Any = getattr(backbone, "config", None)
    plain = config is not None and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    if not plain or far.beyond:
        raise UserError(
            f"--chunks.tokens: {name} keeps another state than the keys and values of all tokens before, and a chunk can "
            "be handed nothing else; leave it out, and take --gradient-checkpointing to save memory"
        )
    ids = probe_ids(far.length, vocab, next(backbone.parameters()).device)[0]
    try:
        with torch.no_grad():
            ours, _ = _Row(backbone, ids, torch.arange(len(ids), device=ids.device), -(-len(ids) // 3)).passed()
            same = near(ours, backbone(input_ids=ids[None], use_cache=False).last_hidden_state[0])
    except Exception:  # whatever a model raises that takes no such cache
        same = False
    if not same:
        raise UserError(
            f"--chunks.tokens: {name} gives other numbers when a text comes in chunks; leave it out, and take "
            "--gradient-checkpointing to save memory"
        )
