"""The likelihood of causal language models, without ever holding logits for all positions at once."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from policyopt.errors import UserError
from policyopt.models.chunked import Chunked
from policyopt.models.head import (
    NEVER,
    SHORT,
    Support,
    at_once,
    gradients_of,
    kernels,
    linear_head,
    linear_logp,
    part_of,
    reachable,
)
from policyopt.models.likelihood import LOGP, Others, Wanted, Weigh
from policyopt.models.packed import can_pack, packed_hidden
from policyopt.models.pieces import packed_pieces, padded_pieces
from policyopt.models.places import alone, hidden_at, pack, read_length
from policyopt.models.proof import check_finite, near, pads_right
from policyopt.models.routing import Routers, find_routers, records_at
from policyopt.part import Unit
from policyopt.rows import Batch
from policyopt.spans import span


@dataclass(frozen=True)
class SplitModel:
    """A causal language model as two functions, ids to hidden states and hidden states to logits: a
    :class:`~policyopt.models.likelihood.Stepwise` likelihood."""

    hidden: Callable[..., Any]
    """The backbone: call with ``input_ids`` and keywords, read ``last_hidden_state``."""
    logits: Callable[[Tensor], Tensor]
    """[..., H] -> [..., V]."""
    vocab: int
    packs: int = 0
    """How long rows may be that are passed as one packed text; 0: none. See :mod:`policyopt.models.packed`."""
    pads: bool = True
    """Rows of unlike length can go side by side, padded on the right; otherwise they go one by one."""
    whole: Callable[..., Any] | None = None
    """The backbone for texts that are passed whole, where that is another function, as compiled code is."""
    replays: bool = True
    """The experts that a batch brings (``routes``) are this model's."""
    chunked: Chunked | None = None
    """What passes rows that are longer than a chunk; unset: they are passed like all others."""

    @cached_property
    def routers(self) -> Routers:
        """Those of a mixture of experts; see :func:`~policyopt.models.routing.find_routers`."""
        for option, other in {"--compile": self.whole, "--chunks.tokens": self.chunked}.items():
            if other is not None:
                raise UserError(f"--recipe.source.routing-replay: not together with {option}; leave out {option}")
        return find_routers(self.hidden, self.vocab)

    def leaves(self, batch: Batch, wanted: Wanted = LOGP, others: Others | None = None) -> dict[str, Tensor]:
        """See :class:`~policyopt.models.likelihood.Likelihood`.

        The head is applied to the hidden states of response tokens alone, in chunks whose float32 logits stay below 256
        MiB; where there is more than one chunk, backward recomputes each.
        """
        chunk = Chunk.of(self, wanted, others)
        return chunk.leaves(batch, *chunk.states(batch))

    def weighed(
        self, batch: Batch, weigh: Weigh, wanted: Wanted = LOGP, others: Others | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :class:`~policyopt.models.likelihood.Likelihood`.

        The backbone is passed once. The head takes as many rows, or tokens, at a time as have their logits in one chunk, and
        goes back while these are there, so that none are worked out twice; only what is larger than a chunk, and has to be
        weighed whole, is.
        """
        chunk = Chunk.of(self, wanted, others)
        hidden, *rest = chunk.states(batch)
        back = torch.zeros_like(hidden)
        for rows, within, places in chunk.stages(batch.mask.bool(), weigh.unit):
            state = hidden[places].detach().requires_grad_()
            piece = batch[rows].replace(mask=within.to(batch.mask))
            found = chunk.leaves(piece, state, *(x[places] for x in rest), learns=True)
            weights = weigh(found, rows, within)
            with span("backward"):
                torch.autograd.backward(list(found.values()), [weights[name].to(x.dtype) for name, x in found.items()])
            assert state.grad is not None
            back[places] = state.grad
        return hidden, back

    def pieces(self, batch: Batch, rows: int | None = None) -> Iterator[list[int]]:
        """See :class:`~policyopt.models.likelihood.Stepwise`."""
        if batch.tokens is None:  # texts whose value is asked for
            ids, length = batch.prompt, batch.prompt_mask.sum(1).long().cpu()
        else:
            ids, row, position = pack(batch)
            length = read_length(ids, row, position).cpu()
        if ids.shape[1] <= self.packs:
            return packed_pieces(ids.cpu().numpy(), length.numpy(), rows)
        return padded_pieces(length.tolist(), rows)

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings [..., E] of ids [...], on the CPU and without gradient."""
        table: Tensor = self.hidden.get_input_embeddings().weight  # type: ignore[attr-defined]
        return table[ids.to(table.device)].detach().cpu()

    @span("backbone")
    def predicting(self, batch: Batch) -> Tensor:
        """The hidden states that predict the response tokens, [M, H] in the order of ``batch.mask.nonzero()``."""
        return self.states(*pack(batch), batch.routes if self.replays else None)

    def states(self, ids: Tensor, row: Tensor, position: Tensor, routes: Tensor | None = None) -> Tensor:
        """The hidden states [M, H] at places (row, position), each [M] and row after row, of right-padded texts ids [N, L]; where
        the experts of their tokens are told (``routes`` [N, R]) they are taken."""
        if self.chunked is not None:
            return self.chunked(ids, row, position, plain=replace(self, chunked=None).states)
        routers = None if routes is None else self.routers
        if ids.shape[1] <= self.packs:
            records = None
            if routers is not None and routes is not None:
                table = routers.table(routes)
                first = torch.zeros(len(table), dtype=torch.long, device=table.device)
                records = records_at(table, first, ids.shape[1])
            return packed_hidden(self.hidden, ids, row, position, routers, records)
        # Not by its truth: what is compiled has that of a container.
        backbone = self.hidden if self.whole is None else self.whole
        within = alone if routers is None or routes is None else routers.within(routes)
        return hidden_at(backbone, ids, row, position, pads=self.pads, within=within)

    @torch.no_grad()
    def choices(self, batch: Batch) -> Tensor:
        """See :class:`~policyopt.models.likelihood.Stepwise`."""
        ids, _, _ = pack(batch)
        present = batch.mask if batch.present is None else batch.present
        length = (batch.prompt_mask.sum(1) + present.sum(1)).long()
        pieces = [ids] if self.pads else [row[:n][None] for row, n in zip(ids, length.tolist(), strict=True)]
        found: list[Tensor] = []
        for piece in pieces:
            with self.routers.recording() as seen:
                self.hidden(input_ids=piece, use_cache=False)
            found += seen.routes(len(piece))
        routes = nn.utils.rnn.pad_sequence(found, batch_first=True)
        there = torch.arange(routes.shape[1], device=routes.device) < length[:, None]
        return routes.masked_fill(~there[:, :, None], 0).flatten(1)


def split_model(model: nn.Module) -> SplitModel:
    """Separate the output head from the backbone, and prove on a probe that together they are the model.

    What some families do to their logits behind the head (soft-capping, scaling) or before it is left to them: their own
    forward is then called around a backbone whose hidden states are given. Raises
    :class:`~policyopt.errors.UserError` for a model whose logits are no function of its hidden states, and for one that
    gives numbers that are not finite.
    """
    inner = base_of(model)
    head, backbone, name = inner.get_output_embeddings(), backbone_of(inner), type(inner).__name__
    if head is None or backbone is inner:
        raise UserError(f"{name} has no output head apart from its backbone; a causal language model is needed")
    device = next(inner.parameters()).device
    probe = torch.arange(4, device=device)[None] % inner.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        whole = inner(input_ids=probe, use_cache=False).logits
        check_finite(name, whole)
        hidden = backbone(input_ids=probe, use_cache=False).last_hidden_state
        own = _behind(inner, backbone)
        # Where logits are large a cap shows that small ones hide.
        loud = hidden * (100 / whole.abs().max().clamp(min=1e-3)).to(hidden)
        if _gives(own, hidden, whole):
            logits = head if _gives(head, hidden, whole) and _gives(head, loud, own(loud)) else own
        elif _gives(head, hidden, whole):
            logits = head
        else:
            raise UserError(
                f"the logits of {name} are no function of the hidden states of its {type(backbone).__name__}: this model "
                "is not supported"
            )
    vocab = whole.shape[-1]
    pads = pads_right(backbone, vocab, device)
    return SplitModel(backbone, logits, vocab, can_pack(backbone, vocab, pads), pads)


def base_of(model: Any) -> Any:
    """The model that adapters are around, or the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone_of(inner: Any) -> Any:
    """The model within a model, also where a family calls it by another name than its own prefix."""
    found = inner.base_model
    within = (child for child in inner.children() if isinstance(child, PreTrainedModel))
    return next(within, inner) if found is inner else found


def _gives(logits: Callable[[Tensor], Tensor], hidden: Tensor, whole: Tensor) -> bool:
    try:
        return near(logits(hidden), whole)
    except Exception:  # whatever a model raises that was not made to be called around given hidden states
        return False


def _behind(inner: Any, backbone: Any) -> Callable[[Tensor], Tensor]:
    """All that a model does between its hidden states and its logits, by its own forward."""

    def logits(hidden: Tensor) -> Tensor:
        row = hidden.reshape(1, -1, hidden.shape[-1])
        with _given(backbone, row):
            out: Tensor = inner(input_ids=row.new_zeros(row.shape[:2], dtype=torch.long), use_cache=False).logits
        return out.reshape(*hidden.shape[:-1], -1)

    return logits


class _Given(BaseModelOutputWithPast):
    def __getattr__(self, name: str) -> None:  # families read what only they have, such as the logits of a router
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _given(backbone: Any, hidden: Tensor) -> Iterator[None]:
    """A backbone that gives these hidden states whatever it is asked."""
    own = backbone.__dict__.get("forward")
    backbone.forward = lambda *args, **keywords: _Given(last_hidden_state=hidden)
    try:
        yield
    finally:
        if own is None:
            del backbone.forward
        else:
            backbone.forward = own


def supports(batch: Batch) -> Support:
    """What the tokens of ``batch.mask`` were drawn from, in the order of ``mask.nonzero()``."""
    mask = batch.mask.bool()
    count, start = batch.support[mask], (batch.support.cumsum(1) - batch.support)[mask]
    row = mask.nonzero(as_tuple=True)[0].repeat_interleave(count)
    within = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count).repeat_interleave(count)
    return count, batch.support_ids[row, start.repeat_interleave(count) + within]


@dataclass(frozen=True)
class Chunk:
    """What is worked out for each response token from the hidden state that predicts it."""

    split: SplitModel
    roles: Mapping[str, AbstractContextManager[SplitModel]]
    """Other models whose distributions are read."""
    wanted: Wanted

    @classmethod
    def of(cls, split: SplitModel, wanted: Wanted, others: Others | None) -> Chunk:
        """What is wanted of a model, with those of the other models that it is read off."""
        return cls(split, {name: role for name, role in (others or {}).items() if name in wanted.roles}, wanted)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the batch that the statistics read."""
        return tuple(sorted({name for s in self.wanted.statistics for name in s.columns}))

    @property
    def size(self) -> int:
        """Tokens whose logits, of all models, are held at once; as many as there are where a GPU's kernels hold none."""
        head = None if self.wanted.statistics else linear_head(self.split.logits)
        if head is not None and kernels(head.weight, head.weight) is not None:
            return sys.maxsize
        return at_once(self.split.vocab, 1 + len(self.roles))

    def states(self, batch: Batch) -> list[Tensor]:
        """The hidden states [M, H] of the policy, with gradient, then those of the other models."""
        found = [self.split.predicting(batch)]
        for role in self.roles.values():
            with torch.no_grad(), role as other:
                found.append(other.predicting(batch))
        return found

    def stages(self, mask: Tensor, unit: Unit) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """What is weighed at once, given the mask [N, T]: numbers of rows [n], which of their tokens [n, T], and where these lie
        among all M. As many tokens, or rows, as fit in one chunk, or a single row; all where the unit is more than a row."""
        ends = mask.sum(1).cumsum(0).tolist()
        number = mask.flatten().cumsum(0).view_as(mask) - 1
        start = 0
        while ends and start < ends[-1]:
            end = min(start + self.size, ends[-1]) if unit in ("token", "row") else ends[-1]
            if unit == "row":  # the end of the last row that fits, or that of the one which does not
                end = ends[max(bisect_right(ends, end) - 1, bisect_right(ends, start))]
            rows = slice(bisect_right(ends, start), bisect_left(ends, end) + 1)
            within = mask[rows] & (start <= number[rows]) & (number[rows] < end)
            yield torch.arange(len(ends), device=mask.device)[rows], within, slice(start, end)
            start = end

    @span("head")
    def leaves(self, batch: Batch, hidden: Tensor, *others: Tensor, learns: bool = False) -> dict[str, Tensor]:
        """[N, T] by name, from the hidden states of a batch. Where the head ``learns`` on the way back, and is a matrix, what it
        learns is added to its ``.grad`` at once."""
        mask = batch.mask.bool()
        row = mask.nonzero(as_tuple=True)[0]
        target = batch.tokens[mask]
        heat = torch.ones_like(batch.mask) if batch.temperature is None else batch.temperature
        heat = heat[mask] if heat.dim() == 2 else heat[row]
        support = None if batch.support is None else supports(batch)
        head = None if self.wanted.statistics else linear_head(self.split.logits)
        found: tuple[Tensor | None, ...]
        if head is None:
            columns = (getattr(batch, name)[row] for name in self.columns)
            found = self._in_pieces(hidden, support, target, heat, *others, *columns)
        else:
            matrix, into = (head.weight, head.bias), gradients_of(head) if learns else None
            found = linear_logp(hidden, *matrix, target, heat, self.wanted.entropy, support=support, into=into)
        names = ["logp", *(["entropy"] if self.wanted.entropy else []), *(s.key for s in self.wanted.statistics)]
        return {name: _spread(x, mask) for name, x in zip(names, found, strict=False) if x is not None}

    def _in_pieces(self, hidden: Tensor, support: Support | None, *inputs: Tensor) -> tuple[Tensor, ...]:
        count = len(hidden)
        if count <= self.size:
            return self(hidden, support, *inputs)
        found = []
        for start in range(0, count, self.size):
            places = slice(start, start + self.size)
            within = None if support is None else part_of(support, places)
            piece = (x[places] for x in inputs)
            found.append(checkpoint(self, hidden[places], within, *piece, use_reentrant=False))
        return tuple(torch.cat(column) for column in zip(*found, strict=True))

    def __call__(
        self, hidden: Tensor, support: Support | None, target: Tensor, heat: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """``logp``, entropy where asked for, then the statistics, each [M], for M tokens: hidden states of the policy
        [M, H], what they were drawn from, ids [M], temperatures [M], the hidden states of the other models [M, H'], and
        ``columns`` [M]."""
        logits = heated(self.split.logits, hidden, heat, support)
        total = logits.logsumexp(-1)
        out = [logits.gather(-1, target[:, None])[:, 0] - total]
        if self.wanted.entropy:
            out.append(total - (torch.softmax(logits, -1) * logits).sum(-1))
        seen = dict(zip(self.columns, others[len(self.roles) :], strict=True))
        for (name, role), state in zip(self.roles.items(), others, strict=False):
            with torch.no_grad(), role as split:
                seen[name] = heated(split.logits, state, heat, support)
        out += [s(logits, target, seen).to(logits.dtype) for s in self.wanted.statistics]
        return tuple(out)


def heated(head: Callable[[Tensor], Tensor], hidden: Tensor, heat: Tensor, support: Support | None) -> Tensor:
    """The logits [M, V] that a head makes of hidden states [M, H], over the temperatures [M], and so low that they have no probability
    outside of what the tokens were drawn from; float32 at least."""
    logits = head(hidden)
    logits = logits.float() if logits.dtype in SHORT else logits
    logits = logits / heat[:, None].to(logits)
    return logits if support is None else torch.where(reachable(*support, logits.shape[-1]), logits, NEVER)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
