"""What a step has to compute and to move at least, by arithmetic: multiplications of matrices count 2 operations for each
product, and nothing else counts. Tokens are those that are needed: distinct prompts once, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speed.workloads import Workload

FLOAT = 4
"""Bytes of a number."""


@dataclass(frozen=True)
class Sizes:
    """What of a model the arithmetic needs."""

    body: int
    """Entries of the matrices of all layers: each is multiplied once for a token."""
    width: int
    """Layers x query heads x width of a head: what a pair of tokens costs in attention is 4 times that."""
    cache: int
    """Numbers of keys and values that a token leaves behind, over all layers."""
    head: int
    """Entries of the output head."""
    trained: int
    """Parameters that the optimiser moves."""
    frozen: bool = False
    """The matrices are not trained themselves: backward goes through them once, not twice."""
    adapters: int = 0
    """Entries of the adapters' matrices."""

    @classmethod
    def of(cls, model: Any, lora: bool = False) -> Sizes:
        """Of a transformers model, or of a peft model around one."""
        config = model.config
        head = model.get_output_embeddings().weight.numel()
        named = [(n, p) for n, p in model.named_parameters() if p.dim() == 2 and "layers." in n]
        adapters = sum(p.numel() for n, p in named if "lora_" in n)
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        layers = config.num_hidden_layers
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return cls(
            sum(p.numel() for _, p in named) - adapters, layers * heads * width,
            2 * layers * config.num_key_value_heads * width, head, trained, lora, adapters,
        )  # fmt: skip


def pairs(start: int, tokens: int) -> int:
    """How many pairs causal attention looks at for ``tokens`` behind ``start`` others."""
    return tokens * start + tokens * (tokens + 1) // 2


def forward(sizes: Sizes, tokens: int, seen: int, predicted: int) -> int:
    """Operations of a forward pass over ``tokens`` that see ``seen`` pairs, the head on ``predicted`` of them."""
    return 2 * (sizes.body + sizes.adapters) * tokens + 4 * sizes.width * seen + 2 * sizes.head * predicted


def backward(sizes: Sizes, tokens: int, seen: int, predicted: int) -> int:
    """Operations of the backward pass: by the inputs, and by the weights where those are trained."""
    trained = 1 if sizes.frozen else 2
    body = 2 * (trained * sizes.body + 2 * sizes.adapters) * tokens
    return body + 2 * 4 * sizes.width * seen + trained * 2 * sizes.head * predicted


@dataclass(frozen=True)
class Needed:
    """Of one step."""

    drawing: int
    """Operations."""
    update: int
    """Operations of reference, critic and update."""
    bytes: int
    """Weights, keys and values, gradients and moments that go through the processor; activations do not count."""
    tokens: int
    """That pass the trainer in one forward pass of the whole batch."""

    @property
    def flops(self) -> int:
        """Operations in all."""
        return self.drawing + self.update


def needed(workload: Workload, sizes: Sizes, lengths: Sequence[int], prompt: int) -> Needed:
    """What a step needs whose responses have ``lengths``, to prompts of ``prompt`` tokens."""
    drawn = sum(lengths)
    before = workload.prompts * pairs(0, prompt)
    # The last token of a response is predicted and never read.
    read = workload.prompts * prompt + drawn - len(lengths)
    seen = before + sum(pairs(prompt, n - 1) for n in lengths)
    once = forward(sizes, read, seen, drawn)
    critic = once - forward(sizes, 0, 0, drawn)
    update = workload.epochs * (once + backward(sizes, read, seen, drawn)) + workload.reference * once
    update += workload.critic * (critic + workload.epochs * 3 * critic)
    # Drawing reads the weights for every token of the longest response, and the cache of every row.
    weights = sizes.body + sizes.head + sizes.adapters
    moved = weights * max(lengths) + sizes.cache * sum(pairs(prompt, n - 1) for n in lengths)
    steps = workload.epochs * workload.minibatches * (1 + workload.critic)
    # Forward and backward read the weights; Adam reads weight, gradient and two moments, and writes all but the gradient.
    moved += workload.reference * weights + steps * (2 * weights + (1 + 7) * sizes.trained)
    return Needed(once, update, FLOAT * moved, read)
