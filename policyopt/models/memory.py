"""What is spared in training: activations that are worked out again, attention and code made for the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from policyopt.errors import UserError, first_line
from policyopt.models import packed, routing
from policyopt.models.proof import near, probe_ids, with_gradients

Attention = Literal["sdpa", "eager", "flash_attention_2"]


class _Recomputed:
    """A layer that keeps its input alone, and is passed again on the way back."""

    def forward(self, *args: Any, **keywords: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        # With a cache a second pass would write its keys and values a second time.
        held = any(isinstance(x, Cache) for x in (*args, *keywords.values()))
        if held or not torch.is_grad_enabled():
            return forward(*args, **keywords)
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=_again, **keywords)


def _again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What goes around the first pass of a layer and the second, which takes the experts and the attention of the first."""
    first, second = zip(routing.again(), packed.again(), strict=True)
    return _within(first), _within(second)


@contextmanager
def _within(contexts: Iterable[AbstractContextManager[Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def recompute_layers(model: str, net: nn.Module) -> None:
    """Let every layer of a model work its activations out again in backward; the gradient stays the same.

    The model stays in evaluation mode, where no layer draws random numbers. Raises
    :class:`~policyopt.errors.UserError` for a model without layers that take it.
    """
    layers = [m for m in net.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"--gradient-checkpointing: {type(net).__name__} ({model}) has no layers that can be passed again; leave it out"
        )
    kinds: dict[type, type] = {}
    for layer in layers:
        old = type(layer)
        # By class rather than by instance: a copy of the model must call its own layers.
        layer.__class__ = kinds.setdefault(old, type(old.__name__, (_Recomputed, old), {}))


def check_attention(attention: Attention | None, device: torch.device, dtype: torch.dtype) -> None:
    """Raises :class:`~policyopt.errors.UserError` for an attention that this machine does not have."""
    if attention != "flash_attention_2":
        return
    lacks = None
    if device.type != "cuda":
        lacks = f"a GPU, and the model would be on {device}"
    elif dtype not in (torch.bfloat16, torch.float16):
        lacks = "--dtype bfloat16 or float16"
    elif find_spec("flash_attn") is None:
        lacks = "the package flash-attn"
    if lacks:
        raise UserError(f"--attention flash_attention_2: it needs {lacks}; take --attention sdpa")


def compiled(backbone: Any, vocab: int) -> Callable[..., Any]:
    """A backbone as ``torch.compile`` makes it, for texts that are passed whole; proved on a probe, forward and backward.

    Raises :class:`~policyopt.errors.UserError` where it cannot be compiled on this machine, or comes out another.
    """
    fast: Callable[..., Any] = torch.compile(backbone, dynamic=True)
    ids = probe_ids(9, vocab, next(backbone.parameters()).device).repeat(2, 1)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    found = []
    try:
        for f in (backbone, fast):
            with torch.enable_grad():
                found.append(with_gradients(f(input_ids=ids, use_cache=False).last_hidden_state, trained))
    except Exception as error:  # a compiler that is missing, code that it does not take
        raise UserError(
            f"--compile: {type(backbone).__name__} cannot be compiled here ({first_line(error, 200)}); leave it out"
        ) from error
    if not all(near(ours, whole) for whole, ours in zip(*found, strict=True)):
        raise UserError(f"--compile: {type(backbone).__name__} gives other numbers when compiled; leave it out")
    return fast
