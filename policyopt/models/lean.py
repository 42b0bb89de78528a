"""Decoders of the Llama kind as plain functions of their weights, for drawing: a step of the model without its modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policyopt.errors import UserError
from policyopt.models.head import SHORT
from policyopt.models.proof import probe_ids

MERGED_BYTES = 8 << 30
"""Of weights that adapters are added to: beyond, a second copy of them costs more memory than it saves time."""

BACKBONE = ({"embed_tokens", "layers", "norm", "rotary_emb"}, set[str]())
LAYER = ({"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}, set[str]())
ATTENTION = ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"q_norm", "k_norm"})
FEED_FORWARD = ({"gate_proj", "up_proj", "down_proj"}, {"act_fn"})
"""The modules that there must be, and those that there may be."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""From the number of a layer, queries [N, H, D], and keys and values [N, K, D] of N tokens, to what they attend to, [N, H, D]."""
Norm = Callable[[Tensor], Tensor]
Linear = tuple[Tensor, Tensor | None]
"""Weight and bias."""


@dataclass(frozen=True)
class Layer:
    """The weights of one layer."""

    before: Norm
    q: Linear
    k: Linear
    v: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    o: Linear
    between: Norm
    gate: Linear
    up: Linear
    down: Linear
    act: Callable[[Tensor], Tensor]


class Decoder:
    r"""A backbone with normalised inputs, rotary positions, grouped attention and a gated feed-forward layer:

    .. math:: x \mathrel{+}= W_o\,\mathrm{attend}(R\,W_q \bar x, R\,W_k \bar x, W_v \bar x),\quad
              x \mathrel{+}= W_d(\mathrm{act}(W_g \bar x) \cdot W_u \bar x)

    Weights are read where they lie, so that whatever is done to a parameter in place is seen at once. Those that low-rank
    adapters (PEFT) change are worked out by :meth:`refresh`, :math:`W + s B A` in float32 at least, which has to be called
    after every change of an adapter; they stay where they were.

    What it looks at are the names and the kinds of the modules. Raises :class:`~policyopt.errors.UserError` for a backbone that
    is built otherwise, one whose modules are watched or replaced, and one that a probe shows to compute something else.
    """

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self._merged: dict[nn.Module, Tensor] = {}
        """The weights of modules with adapters on them."""
        for module in backbone.modules():
            if "forward" in module.__dict__ or module._forward_hooks or module._forward_pre_hooks:
                raise UserError(f"the {type(module).__name__} of the model is watched or replaced")
        self.layers = self.refresh()
        attention = backbone.layers[0].self_attn
        self.dim: int = attention.head_dim
        self.heads, self.kv_heads = (len(w) // self.dim for w, _ in (self.layers[0].q, self.layers[0].k))
        self.scale: float = getattr(attention, "scaling", self.dim**-0.5)
        self.dtype, self.device = self.layers[0].q[0].dtype, self.layers[0].q[0].device
        self._norm = _norm(backbone.norm)
        self._table = torch.empty(0, 2, self.dim, dtype=self.dtype, device=self.device)
        self._check()

    @torch.no_grad()
    def refresh(self) -> list[Layer]:
        """Read the weights anew."""
        _has(self._backbone, *BACKBONE)
        merged = [m for m in self._backbone.modules() if hasattr(m, "base_layer")]
        if sum(_bytes(m.base_layer.weight) for m in merged if hasattr(m.base_layer, "weight")) > MERGED_BYTES:
            raise UserError("the weights under its adapters are too many to be held twice")
        self.layers = [_layer(module, self._merged) for module in self._backbone.layers]
        return self.layers

    def addresses(self) -> tuple[int, ...]:
        """Where all lies that a call reads. What was recorded holds as long as nothing of it has moved."""
        read = (*self._backbone.parameters(), *self._merged.values(), self._table)
        return tuple(x.data_ptr() for x in read)

    def __call__(self, ids: Tensor, where: Tensor, attend: Attend, last: Tensor | None = None) -> Tensor:
        """The hidden states [N, E] of tokens ids [N] at positions [N], or those of the tokens ``last`` [M] alone."""
        x: Tensor = self._backbone.embed_tokens(ids)
        turn = self._table[where]
        cos, sin = turn[:, :1], turn[:, 1:]
        for i, layer in enumerate(self.layers):
            y = layer.before(x)
            q, k, v = (F.linear(y, *w).unflatten(-1, (-1, self.dim)) for w in (layer.q, layer.k, layer.v))
            q = q if layer.q_norm is None else layer.q_norm(q)
            k = k if layer.k_norm is None else layer.k_norm(k)
            both = torch.cat([q, k], 1)
            both = torch.addcmul(both * cos, both.roll(self.dim // 2, -1), sin)
            seen = attend(i, both[:, : self.heads], both[:, self.heads :], v)
            x = x + F.linear(seen.reshape(len(x), -1), *layer.o)
            y = layer.between(x)
            x = x + F.linear(layer.act(F.linear(y, *layer.gate)) * F.linear(y, *layer.up), *layer.down)
        return self._norm(x if last is None else x[last])

    def reserve(self, length: int) -> None:
        """Make the table of rotations reach so many positions."""
        if length > len(self._table):
            self._table = self._rotations(torch.arange(max(length, 2 * len(self._table)), device=self.device))

    def _rotations(self, where: Tensor) -> Tensor:
        """For positions [P], the cosines, and the sines with the sign of the half that they turn, [P, 2, D]."""
        cos, sin = self._backbone.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), where[None])
        sign = torch.ones(self.dim, dtype=self.dtype, device=self.device)
        sign[: self.dim // 2] = -1
        return torch.stack([cos[0], sin[0] * sign], 1)

    @torch.no_grad()
    def _check(self) -> None:
        """Whether whole texts come out as from the model, and positions turn the same however long the text is."""
        config = self._backbone.config
        ids = probe_ids(12, len(self._backbone.embed_tokens.weight), self.device)[0]
        where = torch.arange(len(ids), device=self.device)
        far = where.new_tensor([2 * (getattr(config, "max_position_embeddings", None) or 1 << 14)])
        if not torch.equal(self._rotations(torch.cat([where, far]))[:-1], self._rotations(where)):
            raise UserError("the rotations of its positions depend on the length of the text")
        self.reserve(len(ids))

        def attend(_: int, *qkv: Tensor) -> Tensor:
            q, k, v = (x.transpose(0, 1)[None] for x in qkv)
            return causal(q, k, v, self.scale)[0].transpose(0, 1)

        ours = self(ids, where, attend).double()
        whole = self._backbone(input_ids=ids[None], use_cache=False).last_hidden_state[0].double()
        tolerance = max(torch.finfo(self.dtype).eps ** 0.6, 1e-6)
        if not bool(((ours - whole).norm(dim=-1) <= tolerance * whole.norm(dim=-1)).all()):
            raise UserError("its modules compute something else than their names say")


def causal(q: Tensor, k: Tensor, v: Tensor, scale: float, seen: Tensor | None = None) -> Tensor:
    """Attention of texts, queries [B, H, Q, D] to [B, H, Q, D], to their own keys and values [B, K, Q, D], each to those before it;
    or to keys [B, K, L, D] as far as they are ``seen``, [B, 1, Q, L]."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None, scale=scale, enable_gqa=grouped)


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    r"""Attention of queries [B, K, Q, D] to keys and values [B, K, L, D] under a mask that is added, [B, 1, 1, L], with the logarithm
    of its normaliser: :math:`\sum_l p_l v_l` [B, K, Q, D] and :math:`\log\sum_l e^{s_l}` [B, K, Q], in float32 at least."""
    if q.device.type == "cpu":
        out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=scale
        )
        return out, total
    wide = torch.promote_types(q.dtype, torch.float32)
    score = (q * scale).to(wide) @ k.to(wide).transpose(-1, -2)
    score = score if mask is None else score + mask
    total = score.logsumexp(-1)
    return (score - total[..., None]).exp().to(v.dtype) @ v, total


def alone(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The first of what :func:`attended` gives. For a few queries of a row two products are quicker than its kernel."""
    if q.device.type != "cpu" or q.dtype in SHORT:
        return attended(q, k, v, mask, scale)[0]
    score = torch.bmm((q * scale).flatten(0, 1), k.flatten(0, 1).transpose(1, 2))
    score = score if mask is None else score.unflatten(0, q.shape[:2]).add_(mask).flatten(0, 1)
    return torch.bmm(score.softmax(-1), v.flatten(0, 1)).view(q.shape)


def joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    r"""Attention to two sets of keys from the attention to each, with the logarithms of their normalisers:
    :math:`o_1 + \sigma(\ell_2 - \ell_1)(o_2 - o_1)`."""
    (mine, a), (theirs, b) = one, other
    return torch.lerp(mine, theirs, torch.sigmoid(b - a)[..., None].to(mine.dtype))


# Looking at modules ----------------------------------------------------------------------------------------------------


def _has(module: nn.Module, needed: set[str], allowed: set[str]) -> None:
    there = {name for name, _ in module.named_children()}
    if not needed <= there or not there <= needed | allowed:
        odd = ", ".join(sorted((needed - there) | (there - needed - allowed)))
        raise UserError(f"its {type(module).__name__} is built otherwise ({odd})")


def _layer(module: Any, merged: dict[nn.Module, Tensor]) -> Layer:
    _has(module, *LAYER)
    attention, mlp = module.self_attn, module.mlp
    _has(attention, *ATTENTION)
    _has(mlp, *FEED_FORWARD)
    return Layer(
        before=_norm(module.input_layernorm),
        q=_linear(attention.q_proj, merged),
        k=_linear(attention.k_proj, merged),
        v=_linear(attention.v_proj, merged),
        q_norm=_norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
        k_norm=_norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
        o=_linear(attention.o_proj, merged),
        between=_norm(module.post_attention_layernorm),
        gate=_linear(mlp.gate_proj, merged),
        up=_linear(mlp.up_proj, merged),
        down=_linear(mlp.down_proj, merged),
        act=mlp.act_fn,
    )


def _norm(module: Any) -> Norm:
    """What a module for normalising does, in one operation where that gives the same to the precision of its numbers: in
    float64 many modules work in float32."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if weight is None or eps is None or weight.dim() != 1 or getattr(module, "bias", None) is not None:
        return cast(Norm, module)
    fused = partial(F.rms_norm, normalized_shape=weight.shape, weight=weight, eps=eps)
    probe = torch.linspace(-1, 2, 2 * len(weight), dtype=weight.dtype, device=weight.device).view(2, -1)
    near = 4 * torch.finfo(weight.dtype).eps
    with torch.no_grad():
        return fused if torch.allclose(fused(probe), module(probe), rtol=near, atol=near) else cast(Norm, module)


def _linear(module: Any, merged: dict[nn.Module, Tensor]) -> Linear:
    """The weight of a module, with the adapters on it that count now, which are added up in ``merged``."""
    base = getattr(module, "base_layer", module)
    if type(base) is not nn.Linear or type(base.weight) not in (nn.Parameter, Tensor):
        raise UserError(f"its {type(base).__name__} is no plain matrix")
    if base is module:
        return module.weight, module.bias
    from peft.tuners.lora.layer import Linear as Adapted

    from policyopt.models.lowrank import LowRankLinear

    if type(module) not in (Adapted, LowRankLinear) or module.lora_variant or any(module.lora_bias.values()):
        raise UserError(f"its adapters ({type(module).__name__}) add more than a product of two matrices")
    on = [] if module.disable_adapters or module.merged else [a for a in module.active_adapters if a in module.lora_A]
    if not on:
        return base.weight, base.bias
    wide = torch.promote_types(base.weight.dtype, torch.float32)
    weight = base.weight.to(wide, copy=True)
    for name in on:
        weight += module.get_delta_weight(name).to(wide)
    if module not in merged:
        merged[module] = torch.empty_like(base.weight, requires_grad=False)
    return merged[module].copy_(weight), base.bias


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
