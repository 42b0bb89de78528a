r"""One block of attention: its outputs with their sums, and its gradients as part of a larger whole.

For queries q [S, H, Q, D], keys k and values v [S, H', K, D] (H a multiple of H', a group of heads shares its keys):

.. math:: \ell_i = \log\sum_j e^{s\, q_i \cdot k_j}, \qquad o_i = \sum_j e^{s\, q_i \cdot k_j - \ell_i} v_j

over all keys, or with ``causal`` (Q = K) over those up to i. Given :math:`o` and :math:`\ell` of a union of blocks,
:math:`P_{ij} = e^{s\, q_i \cdot k_j - \ell_i}` are the probabilities within the union, and with :math:`g` the gradient by o

.. math::
    \frac{\partial L}{\partial v_j} = \sum_i P_{ij} g_i, \qquad
    D_{ij} = P_{ij}\,(g_i \cdot v_j - g_i \cdot o_i), \qquad
    \frac{\partial L}{\partial q_i} = s \sum_j D_{ij} k_j, \qquad \frac{\partial L}{\partial k_j} = s \sum_i D_{ij} q_i

(the backward of FlashAttention, arXiv:2307.08691; that it may be given the sums of a larger whole is how ring attention
works, arXiv:2310.01889). PyTorch's kernels take it so on the CPU and on CUDA; elsewhere, and in float64 on CUDA, it is written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Three = tuple[Tensor, Tensor, Tensor]

_aten = torch.ops.aten


def configurations(model: nn.Module) -> list[Any]:
    """Those that the modules of a model of transformers look at when they are called."""
    return list({id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}.values())


@contextmanager
def attending(configs: Sequence[Any], name: str) -> Iterator[None]:
    """While it lasts, modules with these configurations attend by the function that is registered with transformers under a name."""
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, own in zip(configs, before, strict=True):
            config._attn_implementation_internal = own


def block(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs [S, H, Q, D] and sums [S, H, Q]."""
    kind = _kernel(q)
    if kind == "cpu":
        out, total = _aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=None, scale=scale
        )
        return out, total
    if kind == "cuda":
        k, v = _expanded(q, k, v)
        out, total, _, _ = _aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
        return out, total[..., : q.shape[2]]
    scores = _scores(q, _expanded(q, k, v)[0], causal, scale)
    total = scores.logsumexp(-1)
    return (scores - total[..., None]).exp() @ _expanded(q, k, v)[1], total


def block_gradients(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, total: Tensor, *, causal: bool, scale: float
) -> Three:
    """The gradients by q, k and v, given the gradient g by ``out`` [S, H, Q, D], which is that of the whole, as the sums
    ``total`` [S, H, Q] are."""
    kind = _kernel(q)
    if kind == "cpu":
        found: Three = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, v, out, total.contiguous(), 0.0, causal, attn_mask=None, scale=scale
        )
        return found
    wide_k, wide_v = _expanded(q, k, v)
    if kind == "cuda":
        sums = torch.nn.functional.pad(total.float(), (0, -total.shape[-1] % 32))  # as the kernel itself gives them
        nothing = torch.zeros((), dtype=torch.long, device=q.device)
        dq, dk, dv, _ = _aten._scaled_dot_product_efficient_attention_backward(
            g, q, wide_k, wide_v, None, out, sums, nothing, nothing, 0.0, [True, True, True, False], causal, scale=scale
        )
    else:
        p = (_scores(q, wide_k, causal, scale) - total[..., None]).exp()
        dv = p.transpose(-1, -2) @ g
        d = p * (g @ wide_v.transpose(-1, -2) - (g * out).sum(-1, keepdim=True))
        dq, dk = scale * (d @ wide_k), scale * (d.transpose(-1, -2) @ q)
    groups = q.shape[1] // k.shape[1]
    dk, dv = (x.unflatten(1, (-1, groups)).sum(2) for x in (dk, dv))
    return dq, dk, dv


def _kernel(q: Tensor) -> str:
    if q.device.type == "cpu":
        return "cpu"
    return "cuda" if q.device.type == "cuda" and q.dtype != torch.float64 else "plain"


def _expanded(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    groups = q.shape[1] // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))


def _scores(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    scores = scale * (q @ k.transpose(-1, -2))
    if causal:
        after = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(after, -torch.inf)
    return scores
