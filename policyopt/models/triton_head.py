"""Log-probabilities from hidden states on a GPU, fused with the output head: Triton kernels that never write logits.

Logits are worked out tile by tile in registers, in float32 whatever the inputs have. Forward leaves three numbers for each
token (log-probability, log-sum-exp, entropy); backward works the tiles out again and turns each into the gradient of its
logits at once. That gradient stands in memory for one panel of the vocabulary at a time, in the precision of the inputs, and
two matrix products take it to the hidden states and to the head.

Nothing is added by atomic operations and no tile size is chosen by a stopwatch, so that the same inputs give the same bits.
"""

# A kernel's arguments are pointers and numbers of the device, for which there are no types here.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""What the kernels take; wider numbers are for the plain way."""

PANEL_BYTES = 128 << 20
"""Of the gradient of logits that are held at once in backward."""

SPLITS = 16
"""Pieces of the vocabulary that are summed up apart in forward, so that few tokens fill a large card too."""


@triton.jit
def _scaled_logits(
    hidden, weight, bias, tokens, ids, heat, m, v, width,
    BIASED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile [BLOCK_M, BLOCK_V] of logits over temperature, in float32."""
    total = tl.zeros((BLOCK_M, BLOCK_V), dtype=tl.float32)
    for start in range(0, width, BLOCK_H):
        at = start + tl.arange(0, BLOCK_H)
        x = tl.load(
            hidden + tokens.to(tl.int64)[:, None] * width + at[None, :],
            mask=(tokens < m)[:, None] & (at < width)[None, :], other=0.0,
        )  # fmt: skip
        w = tl.load(
            weight + ids.to(tl.int64)[None, :] * width + at[:, None],
            mask=(ids < v)[None, :] & (at < width)[:, None], other=0.0,
        )  # fmt: skip
        total = tl.dot(x, w, total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias + ids, mask=ids < v, other=0.0).to(tl.float32)[None, :]
    return total / tl.load(heat + tokens, mask=tokens < m, other=1.0)[:, None]


@triton.jit
def _summed(
    hidden, weight, bias, target, heat, top, mass, mean, chosen, m, v, width, each,
    BIASED: tl.constexpr, ENTROPY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Over one piece of the vocabulary, for each token: the largest logit, the sum of ``exp(logit - largest)``, the same sum
    weighted by the logits, and the logit of the target (0 where another piece has it)."""
    tokens = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    first = tl.program_id(1) * each
    wanted = tl.load(target + tokens, mask=tokens < m, other=-1)
    largest = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    weighted = tl.zeros((BLOCK_M,), dtype=tl.float32)
    found = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(first, min(first + each, v), BLOCK_V):
        ids = start + tl.arange(0, BLOCK_V)
        x = _scaled_logits(
            hidden, weight, bias, tokens, ids, heat, m, v, width, BIASED, BLOCK_M, BLOCK_V, BLOCK_H, PRECISION
        )
        found += tl.sum(tl.where(ids[None, :] == wanted[:, None], x, 0.0), 1)
        seen = tl.where((ids < v)[None, :], x, float("-inf"))
        now = tl.maximum(largest, tl.max(seen, 1))
        scale = tl.exp(largest - now)
        e = tl.exp(seen - now[:, None])
        total = total * scale + tl.sum(e, 1)
        if ENTROPY:
            weighted = weighted * scale + tl.sum(e * x, 1)
        largest = now
    at = tl.program_id(1) * m + tokens
    tl.store(top + at, largest, mask=tokens < m)
    tl.store(mass + at, total, mask=tokens < m)
    tl.store(chosen + at, found, mask=tokens < m)
    if ENTROPY:
        tl.store(mean + at, weighted, mask=tokens < m)


@triton.jit
def _differentiated(
    hidden, weight, bias, target, heat, lse, entropy, by_logp, by_entropy, out, m, v, width, first, panel,
    BIASED: tl.constexpr, ENTROPY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of logits, into its place in a panel [M, panel] that begins at the id ``first``."""
    tokens = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    ids = first + column
    there = tokens < m
    x = _scaled_logits(
        hidden, weight, bias, tokens, ids, heat, m, v, width, BIASED, BLOCK_M, BLOCK_V, BLOCK_H, PRECISION
    )
    logp = x - tl.load(lse + tokens, mask=there, other=0.0)[:, None]
    p = tl.exp(logp)
    hit = ids[None, :] == tl.load(target + tokens, mask=there, other=-1)[:, None]
    g = tl.load(by_logp + tokens, mask=there, other=0.0)[:, None] * (tl.where(hit, 1.0, 0.0) - p)
    if ENTROPY:
        spread = tl.load(entropy + tokens, mask=there, other=0.0)[:, None]
        g -= tl.load(by_entropy + tokens, mask=there, other=0.0)[:, None] * p * (logp + spread)
    g = g / tl.load(heat + tokens, mask=there, other=1.0)[:, None]
    place = out + tokens.to(tl.int64)[:, None] * panel + column[None, :]
    tl.store(place, g.to(out.dtype.element_ty), mask=there[:, None] & (column < panel)[None, :])


Places = tuple[Tensor, Tensor | None]
"""Where gradients of weight and bias are added up."""


def fits(hidden: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take hidden states [M, H] and a head [V, H]."""
    return hidden.dtype == weight.dtype and hidden.dtype in DTYPES


def linear_logp(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, entropy: bool = False,
    *, into: Places | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    r"""Log-probabilities [M] of targets, and the entropies [M] of their distributions where asked for, in nats and float32.

    .. math:: x_{m} = \frac{W h_m + b}{\tau_m},\quad \ell_m = x_{m,y_m} - \log\sum_v e^{x_{m,v}},\quad
              H_m = -\sum_v p_{m,v}\log p_{m,v}

    ``hidden`` [M, H], ``weight`` [V, H] and ``bias`` [V] of one 16- or 32-bit type, ids ``target`` [M], temperatures
    ``heat`` [M], which get no gradient; ``into`` as in :func:`policyopt.models.head.linear_logp`. With :math:`g^\ell, g^H` the gradients of the two results backward is, by logit,

    .. math:: \tau_m \frac{\partial L}{\partial (Wh_m+b)_v} = g^\ell_m (1[v = y_m] - p_{m,v}) - g^H_m\, p_{m,v} (\log p_{m,v} + H_m)

    Tiles that are worked out again in backward are the idea of Cut Cross-Entropy (Wijmans et al., arXiv:2411.09009, section
    4); it adds tiles of the gradient by atomic operations, ours takes panels of the vocabulary, and drops no small ones.
    """
    if into is not None:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    logp, spread = _LinearLogp.apply(hidden, weight, bias, target, heat, entropy, into)
    return logp, (spread if entropy else None)


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, entropy: bool,
        into: Places | None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        hidden, weight, heat = hidden.contiguous(), weight.contiguous(), heat.float().contiguous()
        (m, width), v, sizes = hidden.shape, len(weight), _sizes(hidden)
        each = triton.cdiv(triton.cdiv(v, SPLITS), sizes["BLOCK_V"]) * sizes["BLOCK_V"]
        top, mass, mean, chosen = heat.new_empty(4, pieces := triton.cdiv(v, each), m)
        if m:
            _summed[(triton.cdiv(m, sizes["BLOCK_M"]), pieces)](
                hidden, weight, weight if bias is None else bias, target, heat, top, mass, mean, chosen, m, v, width, each,
                BIASED=bias is not None, ENTROPY=entropy, **sizes,
            )  # fmt: skip
        lse = (top + mass.log()).logsumexp(0)
        spread = lse - (mean * (top - lse).exp()).sum(0) if entropy else None
        ctx.save_for_backward(hidden, weight, bias, target, heat, lse, spread)
        ctx.into = into
        return chosen.sum(0) - lse, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logp: Tensor, by_entropy: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, heat, lse, spread = ctx.saved_tensors
        (m, width), v, sizes = hidden.shape, len(weight), _sizes(hidden)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.zeros_like(hidden, dtype=torch.float32) if wants_hidden else None
        d_weight, d_bias = ctx.into or (
            torch.zeros_like(weight) if wants_weight else None, torch.zeros_like(bias) if wants_bias else None
        )  # fmt: skip
        block = sizes["BLOCK_V"]
        panel = max(block, PANEL_BYTES // (max(1, m) * hidden.element_size()) // block * block)
        for first in range(0, v if m else 0, panel):
            here = slice(first, min(first + panel, v))
            g = hidden.new_empty(m, here.stop - first)
            _differentiated[(triton.cdiv(m, sizes["BLOCK_M"]), triton.cdiv(g.shape[1], block))](
                hidden, weight, weight if bias is None else bias, target, heat, lse, lse if spread is None else spread,
                by_logp.contiguous(), by_logp if spread is None else by_entropy.contiguous(), g, m, v, width, first,
                g.shape[1], BIASED=bias is not None, ENTROPY=spread is not None, **sizes,
            )  # fmt: skip
            if d_hidden is not None:
                d_hidden += g @ weight[here]
            if d_weight is not None:
                d_weight[here].addmm_(g.T, hidden)
            if d_bias is not None:
                d_bias[here] += g.sum(0, dtype=torch.float32)
        handed = (d_weight, d_bias) if ctx.into is None else (None, None)
        return None if d_hidden is None else d_hidden.to(hidden), *handed, *[None] * 4


def _sizes(hidden: Tensor) -> dict[str, Any]:
    """The sides of a tile, and how products of float32 are taken: as torch takes them."""
    short = hidden.element_size() == 2
    exact = short or torch.get_float32_matmul_precision() == "highest"
    side, depth = (128, 64) if short else (64, 32)
    return {
        "BLOCK_M": side, "BLOCK_V": side, "BLOCK_H": depth, "PRECISION": "ieee" if exact else "tf32",
        "num_warps": 8 if short else 4, "num_stages": 3,
    }  # fmt: skip
