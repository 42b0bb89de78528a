r"""Rows as one packed text: no padding, and every beginning that rows share passes the model once, in training too.

All layers but attention look at tokens one by one, so N rows become one row of T tokens, the segments of a
:class:`~policyopt.models.forest.Forest`, each token at the position that it has in its own row. Attention of a token is over its own
segment and over the segments that come before that in its row. Each of these blocks is computed by itself, a segment that is
shared once for all tokens after it, and they are brought together by their sums: with :math:`o_b` the output over block b and
:math:`\ell_b` the logarithm of the sum of its exponentials,

.. math:: \ell = \log\sum_b e^{\ell_b}, \qquad o = \sum_b e^{\ell_b - \ell}\, o_b

which is attention over the union. In backward each block is given :math:`o` and :math:`\ell` of the whole, whence its
probabilities are those within the whole, and gradients of queries, keys and values add up over blocks. For G responses of
length T to a prompt of length P this computes P + GT tokens in the place of G(P + T), and no key is copied for a row
(arXiv:2506.05433 packs one prompt with its responses; that a forest of any depth works by the same two kernels is our reading).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from policyopt.models.attention import attending, block, block_gradients, configurations
from policyopt.models.forest import Forest, Numbers, grow
from policyopt.models.places import hidden_at, read_length
from policyopt.models.proof import near, probe_ids, reach, with_gradients
from policyopt.models.routing import Routers

NAME = "policyopt_packed"
"""Of the attention among those of transformers."""

ALIKE = 1.25
"""Segments whose lengths are within this factor are attended to side by side, the shorter ones padded."""


@dataclass(frozen=True)
class Shared:
    """Segments of ``length`` tokens, each with ``after`` tokens behind it that look back at it; ``count`` of them, one every
    ``step`` tokens from ``start`` on."""

    start: int
    count: int
    step: int
    length: int
    after: int

    def seen(self, x: Tensor) -> Tensor:
        """[n, length, ...] what of a column [T, ...] is seen."""
        return self._each(x)[:, : self.length]

    def looking(self, x: Tensor) -> Tensor:
        """[n, after, ...] what of a column [T, ...] looks back."""
        return self._each(x)[:, self.length : self.length + self.after]

    def _each(self, x: Tensor) -> Tensor:
        return x[self.start : self.start + self.count * self.step].unflatten(0, (self.count, self.step))


@dataclass(frozen=True)
class Layout:
    """Which tokens attend to which, as blocks."""

    sizes: tuple[tuple[int, int], ...]
    """Segments that stand side by side, and their common length, for each call that attends within segments."""
    order: Tensor | None
    """[sum of sizes] the tokens of the segments as those calls take them, each padded by tokens of no matter; ``None`` where that
    is all tokens as they stand."""
    real: Tensor | None
    """Which of those are no padding."""
    back: Tensor | None
    """[T] where each token stands among them."""
    shared: tuple[Shared, ...]
    """Segments that others come after."""
    longest: int
    """Tokens in the longest row."""


def lay_out(forest: Forest, device: torch.device | str = "cpu") -> Layout:
    """The blocks of a forest."""
    turn = np.argsort(-forest.length, kind="stable")
    sizes, order = list[tuple[int, int]](), list[Numbers]()
    while len(turn):
        width = int(forest.length[turn[0]])
        count = int((forest.length[turn] * ALIKE + 8 > width).sum())
        mine, turn = turn[:count], turn[count:]
        place = np.arange(width)
        order.append(np.where(place < forest.length[mine, None], forest.start[mine, None] + place, -1).reshape(-1))
        sizes.append((count, width))
    padded = np.concatenate([*order, np.zeros(0, dtype=np.int64)])
    where = tuple(_shared(forest))
    longest = int(forest.position.max(initial=-1)) + 1
    if len(padded) == len(forest) and (padded == np.arange(len(padded))).all():
        return Layout(tuple(sizes), None, None, None, where, longest)
    back = np.empty(len(forest), dtype=np.int64)
    real = padded >= 0
    back[padded[real]] = real.nonzero()[0]
    taken, there, stands = (torch.from_numpy(x).to(device) for x in (padded.clip(0), real, back))
    return Layout(tuple(sizes), taken, there, stands, where, longest)


def _shared(forest: Forest) -> Iterator[Shared]:
    """Neighbours of one form, as the groups of a batch of equal lengths are, go together."""
    places = (x.tolist() for x in (forest.start, forest.length, forest.end - forest.start - forest.length))
    now: Shared | None = None
    for start, length, after in zip(*places, strict=True):
        if not after:
            continue
        if now is not None and (now.length, now.after) == (length, after):
            step = now.step if now.count > 1 else start - now.start
            if start == now.start + now.count * step and step >= length + after and start + step <= len(forest):
                now = replace(now, count=now.count + 1, step=step)
                continue
        if now is not None:
            yield now
        now = Shared(start, 1, length + after, length, after)
    if now is not None:
        yield now


class Attention(torch.autograd.Function):
    """Attention over a layout: queries [T, H, D], keys and values [T, H', D] with H a multiple of H' to outputs [T, H, D]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        """Outputs and sums of every block, brought together."""
        exact = query.dtype if query.dtype == torch.float64 else torch.float32
        outs, sums = [], []
        for q, k, v in _side_by_side(layout, query, key, value):
            out, total = block(q, k, v, causal=True, scale=scale)
            outs.append(_flat(out))
            sums.append(total.transpose(1, 2).flatten(0, 1))
        whole, total = _back(layout, torch.cat(outs)).to(exact), _back(layout, torch.cat(sums)).to(exact)
        for shared in layout.shared:
            q, k, v = (x.transpose(1, 2) for x in (shared.looking(query), shared.seen(key), shared.seen(value)))
            out, more = block(q, k, v, causal=False, scale=scale)
            mine, more = shared.looking(total), more.transpose(1, 2).to(exact)
            both = torch.logaddexp(mine, more)
            there = out.transpose(1, 2).to(exact)
            shared.looking(whole).mul_((mine - both).exp_()[..., None]).addcmul_(there, (more - both).exp_()[..., None])
            mine.copy_(both)
        found = whole.to(query.dtype)
        ctx.save_for_backward(query, key, value, found, total)
        ctx.layout, ctx.scale = layout, scale
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Each block, given outputs and sums of the whole."""
        query, key, value, out, total = ctx.saved_tensors
        layout, scale = ctx.layout, ctx.scale
        pieces = zip(
            _side_by_side(layout, query, key, value),
            _side_by_side(layout, out, gradient, cut=True),
            _side_by_side(layout, total[..., None]),
            strict=True,
        )
        found = [
            tuple(map(_flat, block_gradients(g, q, k, v, o, s[..., 0], causal=True, scale=scale)))
            for (q, k, v), (o, g), (s,) in pieces
        ]
        parts = tuple(_back(layout, torch.cat(column)) for column in zip(*found, strict=True))
        for shared in layout.shared:
            q, o, g, sums = (shared.looking(x).transpose(1, 2) for x in (query, out, gradient, total))
            k, v = (shared.seen(x).transpose(1, 2) for x in (key, value))
            by_q, by_k, by_v = block_gradients(g, q, k, v, o, sums, causal=False, scale=scale)
            shared.looking(parts[0]).add_(by_q.transpose(1, 2))
            for whole, part in zip(parts[1:], (by_k, by_v), strict=True):
                shared.seen(whole).add_(part.transpose(1, 2))
        return (*parts, None, None)


def _side_by_side(layout: Layout, *columns: Tensor, cut: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """Columns [T, H, D] as [S, H, L, D] for each call; with ``cut`` padding is 0."""
    if layout.order is not None:
        columns = tuple(x.index_select(0, layout.order) for x in columns)
        if cut:
            columns = tuple(x.mul_(layout.real[:, None, None]) for x in columns)  # type: ignore[index]
    split = (x.split([count * width for count, width in layout.sizes]) for x in columns)
    for (count, width), *mine in zip(layout.sizes, *split, strict=True):
        yield tuple(x.view(count, width, *x.shape[1:]).transpose(1, 2) for x in mine)


def _flat(x: Tensor) -> Tensor:
    """[S, H, L, D] as [S L, H, D]."""
    return x.transpose(1, 2).flatten(0, 1)


def _back(layout: Layout, x: Tensor) -> Tensor:
    return x if layout.back is None else x.index_select(0, layout.back)


# Within a model of transformers ----------------------------------------------------------------------------------------


@dataclass
class Now:
    """What the model that is being called packs."""

    configs: Sequence[Any]
    """Of the model."""
    layout: Layout
    windows: set[int]
    """Those that its layers say they have."""


_NOW: ContextVar[Now | None] = ContextVar("packed", default=None)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as transformers calls it: queries [1, H, T, D], keys and values [1, H', T, D] to [1, T, H, D]. Raises
    ``NotImplementedError`` for what it does not do."""
    now = _NOW.get()
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if now is None or mask is not None or dropout or unknown or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"packed attention: {unknown or 'a mask, dropout or no packing'}")
    if sliding_window:
        now.windows.add(sliding_window)
        if now.layout.longest > sliding_window:
            raise NotImplementedError(f"packed attention: a window of {sliding_window}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Attention.apply(q, k, v, now.layout, scale)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)


def packing(backbone: nn.Module, layout: Layout) -> AbstractContextManager[Now]:
    """While it lasts, the attention of a model is over a layout."""
    return _while(Now(configurations(backbone), layout, set()))


@contextmanager
def _while(now: Now) -> Iterator[Now]:
    token = _NOW.set(now)
    try:
        with attending(now.configs, NAME):
            yield now
    finally:
        _NOW.reset(token)


def again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What goes around a layer that is passed again in backward, at its first pass and at the second, which has to attend as
    the first did; ``context_fn`` of :func:`torch.utils.checkpoint.checkpoint`."""
    now = _NOW.get()
    return nullcontext(), nullcontext() if now is None else _while(now)


def packed_hidden(
    backbone: Any, ids: Tensor, row: Tensor, position: Tensor,
    routers: Routers | None = None, records: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The hidden states [M, H] at places (row, position), each [M], of right-padded texts ids [N, L]. Tokens behind the last place
    of a text are not read. With ``routers`` tokens go to the experts of ``records`` [N, L, R], and are the same only where
    their experts are."""
    length = read_length(ids, row, position)
    symbols = ids if records is None else torch.cat([ids[..., None], records.long()], -1)
    forest, layout = _planted(*(x.cpu().numpy().tobytes() for x in (symbols, length)), tuple(symbols.shape), ids.device)
    source, place, positions = (
        torch.from_numpy(x).to(ids.device) for x in (forest.source, forest.place, forest.position)
    )
    replay = nullcontext()
    if routers is not None and records is not None:
        replay = routers.replaying(records.flatten(0, 1)[source][None])  # type: ignore[assignment]
    with replay, packing(backbone, layout):
        keywords = {"input_ids": ids.flatten()[source][None], "position_ids": positions[None]}
        hidden: Tensor = backbone(**keywords, use_cache=False).last_hidden_state[0]
    return hidden.index_select(0, place[row, position])


@lru_cache(maxsize=16)  # policy, roles and critic read the same rows
def _planted(symbols: bytes, length: bytes, shape: tuple[int, ...], device: torch.device) -> tuple[Forest, Layout]:
    ids, count = np.frombuffer(symbols, dtype=np.int64).reshape(shape), np.frombuffer(length, dtype=np.int64)
    forest = grow(ids, count)
    return forest, lay_out(forest, device)


def can_pack(backbone: nn.Module, vocab: int, pads: bool) -> int:
    """How long rows may be that are packed; 0 where a model cannot be. ``pads`` says that rows can go side by side, padded on the
    right, which spares calls.

    It can where its attention goes through the interface of transformers and all else looks at tokens one by one. The proof is
    a probe, in which rows that share beginnings have to come out as when each is passed whole, past any other window than
    those that its layers tell of, as far as the probe can reach; on other devices than a CPU with the gradient.
    """
    takes = inspect.signature(backbone.forward).parameters
    config: Any = getattr(backbone, "config", None)
    if not {"position_ids"} <= takes.keys() or getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return 0
    device, far = next(backbone.parameters()).device, reach(backbone)
    try:
        with torch.no_grad():
            windows = _windows(backbone, vocab, device)
            most = min(windows, default=1 << 30)
            if far.beyond - ({"sliding_window"} if windows else set()):
                return 0
            whole = probe_ids(min(far.length, most), vocab, device)[0]
        rows = [whole, whole[: len(whole) // 2], torch.cat([whole[:3], whole[4:]]), whole[5:], whole[:3]]
        learns = device.type != "cpu"
        return most if _comes_out(backbone, rows, pads, learns) else 0
    except Exception:  # whatever a model raises that does not look at tokens one by one
        return 0


def _windows(backbone: Any, vocab: int, device: torch.device) -> set[int]:
    """The windows that the layers of a model tell of, when they are asked to attend."""
    ids = probe_ids(1, vocab, device)
    with packing(backbone, lay_out(grow(ids.cpu().numpy(), np.ones(1, dtype=np.int64)), device)) as now:
        backbone(input_ids=ids, position_ids=torch.zeros_like(ids), use_cache=False)
    return now.windows


def _comes_out(backbone: Any, rows: Sequence[Tensor], pads: bool, learns: bool) -> bool:
    """Whether rows that are packed come out as each of them alone; where it ``learns``, the gradient too."""
    length = torch.tensor([len(r) for r in rows], device=rows[0].device)
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    row, position = (torch.arange(ids.shape[1], device=ids.device) < length[:, None]).nonzero(as_tuple=True)
    trained = [p for p in backbone.parameters() if p.requires_grad] if learns else []
    with torch.set_grad_enabled(bool(trained)):
        ours = with_gradients(packed_hidden(backbone, ids, row, position), trained)
        apart = with_gradients(hidden_at(backbone, ids, row, position, pads=pads), trained)
    return all(map(near, ours, apart))
