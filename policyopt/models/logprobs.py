"""Log-probabilities of sampled tokens, without ever holding logits for all positions at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from policyopt.batch import Batch
from policyopt.errors import UserError

_CHUNK_BYTES = 256 << 20  # float32 logits held at once; a model whose batch fits pays no recomputation


@dataclass(frozen=True)
class SplitModel:
    """A causal language model as two functions: ids to hidden states, hidden states to logits."""

    hidden: Callable[..., Any]
    """The backbone: call with ``input_ids`` and keywords, read ``last_hidden_state``."""
    logits: Callable[[Tensor], Tensor]
    """[..., H] -> [..., V]."""
    vocab: int


def split_model(model: nn.Module) -> SplitModel:
    """Separate the output head from the backbone, and prove on a probe that together they are the model.

    Output transforms that some families put behind the head (soft-capping, scaling) are recognised by their
    configuration. Raises :class:`~policyopt.errors.UserError` for a model whose logits cannot be rebuilt this way.
    """
    outer: Any = model
    inner: Any = outer.get_base_model() if hasattr(outer, "get_base_model") else outer
    head, backbone, config = inner.get_output_embeddings(), inner.base_model, inner.config.get_text_config()
    if head is None or backbone is inner:
        raise UserError(
            f"{type(inner).__name__} has no output head apart from its backbone; a causal language model is needed"
        )
    cap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None) or 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / config.logits_scaling

    def logits(hidden: Tensor) -> Tensor:
        out = head(hidden) if scale == 1.0 else head(hidden) * scale
        return out if cap is None else torch.tanh(out / cap) * cap

    device = next(inner.parameters()).device
    probe = torch.arange(4, device=device)[None] % head.weight.shape[0]
    with torch.no_grad():
        whole = inner(input_ids=probe, use_cache=False).logits
        ours = logits(backbone(input_ids=probe, use_cache=False).last_hidden_state)
    if whole.shape != ours.shape or not torch.allclose(whole, ours, rtol=1e-3, atol=1e-3):
        raise UserError(
            f"the logits of {type(inner).__name__} are not its head applied to its hidden states: this model is not supported"
        )
    return SplitModel(backbone, logits, head.weight.shape[0])


def pack(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and response of each row, joined and right-padded.

    Returns ids [N, L], and for every response token (in the order of ``batch.mask.nonzero()``) its row and the
    position of the hidden state that predicts it. With right padding a causal model needs no attention mask: real
    tokens never look at padding.
    """
    prompt_mask, mask = batch.prompt_mask.bool(), batch.mask.bool()
    ids = torch.cat([batch.prompt, batch.tokens], 1)
    there = torch.cat([prompt_mask, mask], 1)
    order = torch.argsort((~there).to(torch.int8), dim=1, stable=True)
    width = int(there.sum(1).max())
    ids = ids.masked_fill(~there, 0).gather(1, order)[:, :width]
    row, position = mask.nonzero(as_tuple=True)
    before = prompt_mask.sum(1)[row] + mask.cumsum(1)[row, position] - 1
    return ids, row, before - 1


def _stats(
    split: SplitModel, hidden: Tensor, target: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    logits = split.logits(hidden)
    logits = (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits) / temperature
    total = logits.logsumexp(-1)
    logp = logits.gather(-1, target[:, None])[:, 0] - total
    if not entropy:
        return logp, logp.detach()
    return logp, total - (torch.softmax(logits, -1) * logits).sum(-1)


def response_columns(
    split: SplitModel, batch: Batch, *, temperature: float = 1.0, entropy: bool = False
) -> dict[str, Tensor]:
    """``logp`` [N, T], and ``entropy`` [N, T] in nats where asked for, of the response tokens under a model; 0 on
    padding.

    The head is applied to the hidden states of response tokens alone, in chunks whose float32 logits stay below 256
    MiB; where there is more than one chunk, backward recomputes each. 16-bit models give float32 columns.
    """
    ids, row, position = pack(batch)
    hidden = split.hidden(input_ids=ids, use_cache=False).last_hidden_state[row, position]
    mask = batch.mask.bool()
    target = batch.tokens[mask]
    size = max(1, _CHUNK_BYTES // (4 * split.vocab))
    if len(target) <= size:
        logp, spread = _stats(split, hidden, target, temperature, entropy)
    else:
        chunks = [
            checkpoint(_stats, split, h, t, temperature, entropy, use_reentrant=False)
            for h, t in zip(hidden.split(size), target.split(size), strict=True)
        ]
        logp, spread = (torch.cat(columns) for columns in zip(*chunks, strict=True))
    columns = {"logp": logp, "entropy": spread} if entropy else {"logp": logp}
    return {name: _spread(values, mask) for name, values in columns.items()}


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
