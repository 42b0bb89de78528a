"""LeMo, published as Jenga."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from policyopt.errors import UserError
from policyopt.models.attention import attending, configurations
from policyopt.models.causal import SplitModel
from policyopt.part import Count, Fraction, Probe, part
from policyopt.parts import Normalise
from policyopt.registry import study
from policyopt.rows import Batch

LEVELS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the blocks that are kept."""

# Which tokens -------------------------------------------------------------------------------------------------------


def block_scores(query: Tensor, key: Tensor, block: int) -> Tensor:
    r"""How much blocks of ``block`` tokens have to do with each other, symmetric [n, n], from queries and keys [H, N, D].

    .. math:: P_{ab} = \max_{i \in a, j \in b, j \le i}\ \sum_h \max(0, q_i^h \cdot k_j^h / \sqrt D) \qquad (b \le a)
    """
    pairs = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).clamp(min=0).sum(0).tril()
    short = -pairs.shape[0] % block
    blocks = nn.functional.pad(pairs, (0, short, 0, short)).unflatten(1, (-1, block)).unflatten(0, (-1, block))
    lower = blocks.amax((1, 3))
    return lower + lower.tril(-1).T


def informativeness(scores: Tensor) -> Tensor:
    """How much each block is used, as key and as query, [n]: the sum of its scores [n, n]."""
    return scores.sum(0)


def kept_blocks(informative: Tensor, remain: float) -> Tensor:
    """The numbers, rising, of the most informative blocks of [n]: ``remain`` of them, rounded down, and at least one."""
    count = max(1, math.floor(len(informative) * remain + 1e-9))
    return informative.topk(count).indices.sort().values


def blocks_above(informative: Tensor, threshold: float) -> Tensor:
    """The numbers, rising, of blocks of [n] that are at least ``threshold`` times as informative as the most informative one."""
    return (informative >= threshold * informative.max()).nonzero()[:, 0]


def positions_in(blocks: Tensor, block: int, length: int) -> Tensor:
    """The positions below ``length`` that lie in blocks, rising; they stay what they are when the others are left out."""
    within = torch.arange(block, device=blocks.device)
    found = (blocks[:, None] * block + within).flatten()
    return found[found < length]


# A model without them -----------------------------------------------------------------------------------------------

NAME = "policyopt_dropping"
"""Of the attention among those of transformers."""


@dataclass
class _Dropping:
    """What leaves tokens out while it lasts."""

    remain: float
    block: int
    first: float
    layers: list[nn.Module] = field(default_factory=list)
    """The modules that attend, from below."""
    rotation: Any = None
    """Cosines and sines, each [1, N, D], of the layer that is passed; ``None`` where positions do not rotate."""
    kept: Tensor | None = None
    """Positions that the layer which is passed attends within."""

    def choose(self, module: nn.Module, query: Tensor, key: Tensor) -> Tensor:
        """The positions that a layer keeps, given queries [H, N, D] and keys [H', N, D]."""
        length, number = query.shape[1], self.layers.index(module)
        if number < int(self.first * len(self.layers)) or number == len(self.layers) - 1 or self.remain >= 1:
            return torch.arange(length, device=query.device)
        query, key = (x if self.rotation is None else _turned_back(x, *self.rotation) for x in (query, key))
        scores = block_scores(query, key.repeat_interleave(query.shape[0] // key.shape[0], 0), self.block)
        return positions_in(kept_blocks(informativeness(scores), self.remain), self.block, length)


def _turned_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[H, N, D] before its first coordinates were rotated with its position, half against half as in Llama."""
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
    one, other = turned.chunk(2, -1)
    return torch.cat([turned * cos[0] - torch.cat([-other, one], -1) * sin[0], rest], -1)


_NOW: ContextVar[_Dropping | None] = ContextVar("dropping", default=None)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *,
    scaling: float | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as transformers calls it, of one text: queries [1, H, N, D], keys and values [1, H', N, D] to [1, N, H, D], 0
    for tokens that are left out."""
    now = _NOW.get()
    others = {name: x for name, x in others.items() if name in ("sliding_window", "softcap", "s_aux") and x is not None}
    if others or mask is not None:
        raise UserError(
            f"--with lemo: attention of {type(module).__name__} is not plain ({', '.join(others) or 'a mask'}); leave it out"
        )
    assert now is not None
    if module not in now.layers:
        now.layers.append(module)
    with torch.no_grad():
        now.kept = now.choose(module, query[0], key[0])
    q, k, v = (x.index_select(2, now.kept) for x in (query, key, value))
    out = nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    whole = out.new_zeros(query.shape[:3] + out.shape[3:]).index_copy(2, now.kept, out)
    return whole.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)


def _note_rotation(module: nn.Module, args: Any, keywords: Any) -> None:
    now = _NOW.get()
    assert now is not None
    now.rotation = keywords.get("position_embeddings")


def _silence(module: nn.Module, args: Any, output: Any) -> Any:
    """A sub-layer adds nothing to a token that it leaves out, not even the bias of its projection."""
    now = _NOW.get()
    assert now is not None and now.kept is not None
    out, *rest = output
    there = torch.zeros(out.shape[1], dtype=out.dtype, device=out.device).index_fill(0, now.kept, 1)
    return (out * there[:, None], *rest)


@contextmanager
def dropping(backbone: nn.Module, remain: float, block: int, first: float = 0.0) -> Iterator[None]:
    """While it lasts, attention of a model is within the most informative blocks of a text: the other tokens pass the residual
    as they are, with the positions that they have. The first layers (a share ``first`` of them) and the last keep all. Texts
    go one by one."""
    now = _Dropping(remain, block, first)
    token = _NOW.set(now)
    hooks = []
    try:
        with attending(configurations(backbone), NAME):
            with torch.no_grad():  # the modules that attend are those that ask
                now.remain = 1.0
                device = next(backbone.parameters()).device
                backbone(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
                now.remain = remain
            if not now.layers:
                raise UserError(
                    f"--with lemo: the attention of {type(backbone).__name__} cannot be reached; leave it out"
                )
            for layer in now.layers:
                hooks.append(layer.register_forward_pre_hook(_note_rotation, with_kwargs=True))
                hooks.append(layer.register_forward_hook(_silence))
            yield
    finally:
        for hook in hooks:
            hook.remove()
        _NOW.reset(token)


# What comes of it ---------------------------------------------------------------------------------------------------


@part
class DroppedTokens(Probe):
    r"""How far log-probabilities, ratios and the gradient move when attention leaves uninformative tokens out.

    For each share of the blocks that is kept (1, 0.75, 0.5, 0.25), over responses :math:`y` with advantage :math:`A` (``Normalise``):
    ``lemo/logp@SHARE``, the mean of :math:`|\log\tilde\pi(y_t) - \log\pi(y_t)|`; ``lemo/low@SHARE`` and ``lemo/high@SHARE``, where the
    smallest and the largest twentieth of the ratios :math:`\tilde\pi(y_t)/\pi(y_t)` begin, which are 1 without a bias; ``lemo/cosine@SHARE`` and
    ``lemo/norm@SHARE``, the cosine of :math:`\tilde g` to the gradient :math:`g = \nabla\sum_t A_t \log\pi(y_t)`, and :math:`|\tilde g|/|g|`.
    """

    block: Count = 4
    """Tokens in a block."""
    first: Fraction = 15 / 32
    """Share of the layers, from below, that keep all tokens; so does the last."""
    rows: Count = 32
    """How many responses are measured, the first ones whose advantage is not 0."""

    def model(self, policy: Any, batch: Batch) -> dict[str, float]:
        batch = batch.replace(advantage=Normalise()(batch))
        chosen = ((batch.advantage * batch.mask) != 0).any(1).nonzero()[: self.rows, 0]
        if not len(chosen):
            return {}
        split = policy.likelihood()
        plain = SplitModel(split.hidden, split.logits, split.vocab)
        parameters = [p for _, p in policy.trainable()]
        rows = [batch[i[None]] for i in chosen]
        found: dict[str, float] = {}
        exact = scored(plain, rows, parameters)
        for remain in LEVELS:
            with dropping(plain.hidden, remain, self.block, self.first):  # type: ignore[arg-type]
                dropped = scored(plain, rows, parameters)
            found |= {f"lemo/{name}@{remain:g}": x for name, x in bias(dropped, exact).items()}
        return found


def scored(model: SplitModel, rows: Sequence[Batch], parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all tokens of rows, [M], and the gradient of their sum, each times its advantage, as one vector."""
    logps: list[Tensor] = []
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for row in rows:
        with torch.enable_grad():
            logp = model.leaves(row)["logp"]
            gradients = torch.autograd.grad((logp * row.advantage * row.mask).sum(), parameters, allow_unused=True)
        logps.append(logp.detach()[row.mask.bool()])
        total = [t if g is None else t + g for t, g in zip(total, gradients, strict=True)]
    return torch.cat(logps).double(), torch.cat([t.flatten() for t in total])


def bias(dropped: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> dict[str, float]:
    """What :class:`DroppedTokens` says of one share."""
    gap, (mine, theirs) = dropped[0] - exact[0], (dropped[1], exact[1])
    low, high = gap.exp().quantile(gap.new_tensor([0.05, 0.95])).tolist()
    return {
        "logp": float(gap.abs().mean()),
        "low": low,
        "high": high,
        "cosine": float(nn.functional.cosine_similarity(mine, theirs, 0)),
        "norm": float(mine.norm() / theirs.norm()),
    }


@study(
    arxiv="2501.09767",
    code="Pairshoe/Jenga-AE",
    confidence="code",
    use="policyopt train grpo --steps 1 --batch 32 --with lemo",
)
def lemo(block: int = 4, first: float = 15 / 32, rows: int = 32) -> tuple[Probe, ...]:
    r"""What it does to a policy gradient when attention leaves out the tokens that matter least.

    .. math:: P_{ab} = \max_{i \in a, j \in b, j \le i}\ \sum_h \max(0, q_i^h \cdot k_j^h / \sqrt D), \qquad I_b = \sum_a P_{ab},
              \qquad \text{keep the } \lfloor n r \rfloor \text{ largest } I_b

    To fine-tune on long texts in less memory, each layer keeps blocks of tokens that are used much as keys or queries, and leaves
    the others out of its attention; they pass the residual unchanged, and positions stay. Here this is measured and not
    offered: policy optimisation compares log-probabilities of a model with its own, and a model without some tokens is another
    model. Ratios are then off even where no weight has moved, and clipping acts on them. At the evaluations before and after training
    :class:`~policyopt.methods.analysis.lemo.DroppedTokens` compares log-probabilities, ratios and the gradient with those of the whole
    model, for shares r from 1 to 0.25.

    With all blocks log-probabilities were the same to the bit. On the embedded model (``policyopt train grpo --steps 1 --batch 32 --with
    lemo``, seed 0, two of whose four layers left tokens out), three quarters of the blocks already moved log-probabilities by 0.32 nats a token, put a
    twentieth of the ratios below 0.18, and turned the gradient nearly square to the true one (cosine 0.22, 3.7 times as long);
    with half of them the cosine was 0.14. Clipping at 0.8 would act on such ratios before anything was learned. A model so small, on texts of
    thirty tokens, has none to spare, and a large one on long texts may: measure before you leave any out.

    Scores come from queries and keys before their rotation, and the first 15 of 32 layers and the last keep all tokens, as in the authors' code.
    Blocks are chosen by their true scores, which the paper's small networks only predict. Blocks of 4 suit the short texts of the embedded model;
    the paper takes 64 for texts of 4,096 tokens and more, and leaves tokens out of the feed-forward layers too, which is not measured
    here. What of the paper is exact is in the library in any case: the vocabulary in pieces that backward computes again.

    Source: arXiv:2501.09767 (USENIX ATC 2025, as Jenga) and the authors' code (Pairshoe/Jenga-AE).
    """
    return (DroppedTokens(block=block, first=first, rows=rows),)
