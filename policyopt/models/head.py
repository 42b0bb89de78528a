r"""The output head in training: log-probabilities and entropy straight from hidden states, and their gradients.

For the logits :math:`z = (W h + b)/\tau` of a token y, with :math:`p = softmax(z)` and :math:`H = -\sum_j p_j \log p_j`,

.. math:: \frac{\partial \log p_y}{\partial z_j} = 1[j = y] - p_j, \qquad \frac{\partial H}{\partial z_j} = -p_j (\log p_j + H)

so one distribution of a token serves every objective: it is made forward, and weighed on the way back in the place where it
stands. Kept until then it takes three products with the matrix W in all, without gradient for W two; where all tokens do not
fit at once, the distributions are made a second time.

The same idea as in Cut Cross-Entropy (arXiv:2411.09009) and the fused linear cross-entropy of Liger (arXiv:2410.10989), here for
any weight of each token, for entropies, temperatures, and what tokens were drawn from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 256 << 20
"""Of logits in float32 that are held at once."""

SHORT = (torch.bfloat16, torch.float16)
"""Types of 16 bits: what is summed up or compared of them has float32, and weights that learn have a float32 copy that the
optimiser moves, since they have too few bits to add a small step to."""

Support = tuple[Tensor, Tensor]
"""What M tokens were drawn from: how many tokens each, [M], 0 for the whole vocabulary; and the ids of all of them, one
token's after the other's."""

NEVER = -1e9
"""The logit of a token that could not be drawn: its probability is 0, and so is its product with any logit, which that of
minus infinity is not."""


def at_once(vocab: int, models: int = 1) -> int:
    """Of how many tokens the logits of so many models are held at once."""
    return max(1, CHUNK_BYTES // (4 * vocab * models))


def linear_head(logits: Callable[[Tensor], Tensor]) -> nn.Linear | None:
    """The head of a model as a matrix, where calling it is the product with that matrix and nothing else: no class of its own,
    no hook, no forward put in its place."""
    plain = type(logits) is nn.Linear and not (
        logits._forward_hooks or logits._forward_pre_hooks or "forward" in logits.__dict__
    )
    return logits if plain else None  # type: ignore[return-value]


def gradients_of(head: nn.Linear) -> tuple[Tensor, Tensor | None] | None:
    """The ``.grad`` of weight and bias, begun with 0, where they learn; ``None`` where the weight does not."""
    weight, bias = head.weight, head.bias
    if not weight.requires_grad:
        return None
    for p in head.parameters():
        if p.requires_grad and p.grad is None:
            p.grad = torch.zeros_like(p)
    assert weight.grad is not None
    return weight.grad, bias.grad if bias is not None and bias.requires_grad else None


def linear_logp(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, entropy: bool = False,
    *, support: Support | None = None, into: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    r"""``logp`` [M] of tokens ``target`` [M] at temperatures ``heat`` [M], and the entropy [M] in nats where it is asked for, by a
    linear head: :math:`\log softmax((W h + b)/\tau)_y` with hidden states [M, H], weight [V, H] and bias [V].

    Gradients are exact, of any dtype; products have that of the weight, all else has at least float32. ``support`` is what the
    tokens were drawn from, where not from the whole vocabulary. ``into`` are the places [V, H] and [V] that the gradients of
    weight and bias are added to on the way back, in the place of being handed on: a copy as large as the head is spared.
    """
    if support is None and (fused := kernels(hidden, weight)) is not None:
        done: tuple[Tensor, Tensor | None] = fused.linear_logp(hidden, weight, bias, target, heat, entropy, into=into)
        return done
    if into is not None:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    heat = heat.to(_wide(weight))
    logp, found = _LinearLogp.apply(hidden, weight, bias, target, heat, entropy, support, into)
    return logp, found if entropy else None


def kernels(hidden: Tensor, weight: Tensor) -> Any:
    """The same function as kernels of a GPU (:mod:`policyopt.models.triton_head`), where there is one, Triton, and they take
    inputs of this kind; else ``None``."""
    if not hidden.is_cuda or find_spec("triton") is None:
        return None
    from policyopt.models import triton_head

    return triton_head if triton_head.fits(hidden, weight) else None


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, entropy: bool,
        support: Support | None, into: tuple[Tensor, Tensor | None] | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        by_head = into is not None or any(ctx.needs_input_grad[1:3])
        size = at_once(len(weight))
        keeps, units = by_head or ctx.needs_input_grad[0], None
        if keeps and len(hidden) > size:
            # The gradient by hidden states is linear in two weights that are not known yet: without one by the head, that is all.
            keeps, units = False, None if by_head else heat.new_empty(1 + entropy, *hidden.shape)
        logp, total, found = heat.new_zeros(3, len(hidden))
        buffer = heat.new_empty(min(size, len(hidden)), len(weight))
        for places, within in _pieces(len(hidden), size, support):
            state, chosen = hidden[places], target[places]
            p = buffer[: len(state)]
            logp[places], total[places] = _exponentials(p, state, weight, bias, chosen, heat[places], within)
            if entropy:
                found[places] = _entropy(p, total[places])
            if units is not None:
                _unit_gradients(units[:, places], p, weight, chosen, heat[places], total[places], found[places])
        ctx.save_for_backward(hidden, weight, bias, target, heat, total, found, units)
        ctx.buffer, ctx.rest = buffer if keeps else None, (size, entropy, support, into)
        return logp, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logp: Tensor, by_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, heat, total, found, units = ctx.saved_tensors
        size, entropy, support, into = ctx.rest
        if units is not None:
            weights = torch.stack([by_logp, by_entropy][: len(units)])
            return (weights[:, :, None] * units).sum(0).to(hidden.dtype), *[None] * 7
        buffer, ctx.buffer = ctx.buffer, None  # it is written over; who goes back twice has it made again
        kept = buffer is not None
        if not kept:
            buffer = heat.new_empty(min(size, len(hidden)), len(weight))
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight, by_bias = into if into is not None else _places(ctx.needs_input_grad, weight, bias)
        for places, within in _pieces(len(hidden), size, support):
            state, chosen = hidden[places], target[places]
            p, at = buffer[: len(state)], heat[places]
            if not kept:
                _exponentials(p, state, weight, bias, chosen, at, within)
            a, e = by_logp[places] / at, by_entropy[places] / at if entropy else None
            rate = _pull(p, chosen, a, e, total[places], found[places])
            pull = p.to(weight.dtype)
            if by_hidden is not None:
                by_hidden[places] = (rate[:, None] * (pull @ weight)).to(hidden.dtype)
            if by_weight is not None:
                by_weight.addmm_(pull.t(), (rate[:, None] * state).to(weight.dtype))
            if by_bias is not None:
                by_bias.add_(rate @ p)
        handed = (by_weight, by_bias) if into is None else (None, None)
        return by_hidden, *handed, *[None] * 5


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in SHORT else x.dtype


def _pieces(count: int, size: int, support: Support | None) -> Iterator[tuple[slice, Support | None]]:
    """At most ``size`` of so many tokens each, with what they were drawn from."""
    for start in range(0, max(count, 1), size):
        places = slice(start, min(start + size, count))
        yield places, None if support is None else part_of(support, places)


def part_of(support: Support, places: slice) -> Support:
    """What some of the tokens were drawn from."""
    count, ids = support
    first = int(count[: places.start].sum())
    here = count[places]
    return here, ids[first : first + int(here.sum())]


def _places(needed: tuple[bool, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    by_weight = torch.zeros_like(weight) if needed[1] else None
    return by_weight, torch.zeros_like(bias) if bias is not None and needed[2] else None


def _exponentials(
    p: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor,
    support: Support | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill ``p`` [m, V] with the probabilities of all tokens, each over the largest of its row. Returns the logarithm [m] of those
    of ``target``, and the sums [m] of the rows."""
    if weight.dtype == p.dtype:
        torch.mm(hidden / heat[:, None], weight.t(), out=p)
        if bias is not None:
            p.addr_(1 / heat, bias)
    else:
        torch.div(nn.functional.linear(hidden, weight, bias), heat[:, None], out=p)
    if support is not None:
        p.masked_fill_(~reachable(*support, p.shape[-1]), NEVER)
    p.sub_(p.amax(-1, keepdim=True))
    picked = p.gather(-1, target[:, None])[:, 0]
    total = p.exp_().sum(-1)  # by torch.softmax a sum over 150,000 tokens would be off by some 1e-5
    return picked - total.log(), total


def reachable(count: Tensor, ids: Tensor, vocab: int) -> Tensor:
    """[M, V] which tokens could be drawn."""
    could = (count == 0)[:, None].repeat(1, vocab)
    could[torch.arange(len(count), device=count.device).repeat_interleave(count), ids.long()] = True
    return could


def _rows(p: Tensor) -> Iterator[slice]:
    """Some rows at a time, where a number for each probability has to be held beside it."""
    size = max(1, CHUNK_BYTES // (16 * 4 * p.shape[-1]))
    yield from (slice(start, start + size) for start in range(0, len(p), size))


def _entropy(p: Tensor, total: Tensor) -> Tensor:
    spread = [torch.special.entr(p[rows]).sum(-1) for rows in _rows(p)]
    return torch.cat([total[:0], *spread]) / total + total.log()


def _pull(p: Tensor, target: Tensor, a: Tensor, e: Tensor | None, total: Tensor, entropy: Tensor) -> Tensor:
    r"""Turn what :func:`_exponentials` has made, in its place, into the gradient of :math:`\sum_i a_i \log p_{i,y_i} + e_i H_i` by
    logits, up to a factor of each row, [m], which is returned."""
    a = a / total
    if e is None or not bool(e.any()):
        # Subtracted before anything is weighed: a token that is all but certain keeps its digits, and V is passed no more.
        p.scatter_add_(-1, target[:, None], -total[:, None])
        return -a
    e = e / total
    for rows in _rows(p):
        spread = torch.special.entr(p[rows]).mul_(e[rows, None])
        p[rows].mul_((e * (total.log() - entropy) - a)[rows, None]).add_(spread)
    p.scatter_add_(-1, target[:, None], (a * total)[:, None])
    return torch.ones_like(a)


def _unit_gradients(
    units: Tensor, p: Tensor, weight: Tensor, target: Tensor, heat: Tensor, total: Tensor, entropy: Tensor
) -> None:
    """Fill [1 or 2, m, H] with the gradients of log-probability and entropy by hidden states."""
    chosen, one = p.gather(-1, target[:, None]), 1 / heat
    for unit, a, e in zip(units, (one, torch.zeros_like(one)), (None, one), strict=False):
        rate = _pull(p, target, a, e, total, entropy)
        unit.copy_(rate[:, None] * (p.to(weight.dtype) @ weight))
        p.scatter_(-1, target[:, None], chosen)  # as it was
