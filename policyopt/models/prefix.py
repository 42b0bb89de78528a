"""Prompts that several responses share go through the model once, in training too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from policyopt.models.proof import near, probe_ids, reach
from policyopt.rows import Batch

WORTH = 0.1
"""Share of the tokens that must be saved: below it a second call of the model costs more than it saves."""


def can_share(backbone: nn.Module, vocab: int) -> bool:
    """Whether keys and values of a prompt can be handed to several continuations, with their gradient.

    So it is for plain attention that takes masks and positions; the proof is a probe, in which the continuations of a
    prompt must come out as when each is passed whole, past any window that the probe can reach.
    """
    config: Any = getattr(backbone, "config", None)
    takes = inspect.signature(backbone.forward).parameters
    if (
        config is None
        or getattr(config, "_attn_implementation", None) not in ("sdpa", "eager")
        or not {"position_ids", "attention_mask"} <= takes.keys()
        or any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers)
    ):
        return False
    device, far = next(backbone.parameters()).device, reach(backbone)
    if far.beyond:
        return False
    text = probe_ids(2 * far.length, vocab, device)[0]
    prompt = torch.stack([text[: far.length], text[far.length :]])
    lengths = torch.tensor([far.length, 1], device=device)
    there = (torch.arange(far.length, device=device) < lengths[:, None]).long()
    tokens = probe_ids(9, vocab, device, seed=1).view(3, 3)
    owner = torch.tensor([0, 1, 0], device=device)
    try:
        with torch.no_grad():
            ours = _hidden(backbone, prompt, there, owner, tokens)
            for i, (whose, n) in enumerate(zip(owner.tolist(), lengths[owner].tolist(), strict=True)):
                ids = torch.cat([prompt[whose, :n], tokens[i]])[None]
                whole = backbone(input_ids=ids, use_cache=False).last_hidden_state[0, n - 1 : -1]
                if not near(ours[i], whole):
                    return False
    except Exception:  # whatever a model raises that takes no such cache: it is then passed row by row
        return False
    return True


def shared_hidden(backbone: Any, batch: Batch, agreed: Callable[[int], int] = int) -> Tensor | None:
    """The hidden states that predict the response tokens, [M, H] in the order of ``batch.mask.nonzero()``; ``None``
    where too few tokens would be saved.

    Each distinct prompt is passed once; the responses attend to its keys and values, through which their gradients
    come together. For G responses of length T to a prompt of length P it computes P + GT tokens in the place of
    G(P + T). ``agreed`` gets the calls of the backbone that this would take, 0 where it is not worth it, and gives those that
    it shall take: processes that compute together have to call it equally often.
    """
    mask, asked = batch.mask.bool(), batch.prompt_mask.bool()
    present = mask if batch.present is None else batch.present.bool()
    prompt = batch.prompt.masked_fill(~asked, -1)
    distinct, owner = torch.unique(prompt, dim=0, return_inverse=True)
    rows, tokens = mask.shape[0], int(present.sum())
    saved = int(asked.sum()) - int((distinct >= 0).sum())
    gaps = bool((present[:, 1:] & ~present[:, :-1]).any() | (asked[:, 1:] & ~asked[:, :-1]).any())
    worth = rows > 0 and not gaps and saved >= WORTH * (int(asked.sum()) + tokens)
    width = int(present.sum(1).max()) if rows else 0
    if not agreed(min(width, 2) if worth else 0):
        return None
    ids = batch.tokens[:, :width].masked_fill(~present[:, :width], 0)
    found = _hidden(backbone, distinct.clamp(min=0), (distinct >= 0).long(), owner, ids)
    return found[mask[:, :width]]


def _hidden(backbone: Any, prompt: Tensor, there: Tensor, owner: Tensor, tokens: Tensor) -> Tensor:
    """[N, T, H] from right-padded distinct prompts [D, P] with their mask, the prompt of each row [N], and right-padded
    responses [N, T]."""
    width = int(there.sum(1).max())
    prompt, there = prompt[:, :width], there[:, :width]
    cache = DynamicCache(config=backbone.config)
    before = backbone(input_ids=prompt, past_key_values=cache, use_cache=True).last_hidden_state
    length = there.sum(1)
    last = before[torch.arange(len(prompt), device=prompt.device), length - 1][owner][:, None]
    if tokens.shape[1] == 1:
        return last
    cache.batch_select_indices(owner)
    following = tokens[:, :-1]
    steps = torch.arange(following.shape[1], device=tokens.device)
    keywords: dict[str, Any] = {"position_ids": length[owner][:, None] + steps}
    if not bool(there.all()):
        keywords["attention_mask"] = torch.cat([there[owner], torch.ones_like(following)], 1)
    after = backbone(input_ids=following, past_key_values=cache, use_cache=True, **keywords).last_hidden_state
    return torch.cat([last, after], 1)
