"""What a run needs in memory and sends over wires, role by role, for models of any size: formulas, each checked by
``benchmarks/scaling_check.py`` against what small models take.

    python benchmarks/scaling.py [--ranks 64] [--responses 1024] [--tokens 4096] [--prompt 512]

Prints the tables of ``docs/scaling.md``. Bytes are bytes, G is 1e9.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

SHORT, LONG = 2, 4  # bytes of a number in 16 bits and in float32


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with gated feed-forward layers and grouped-query attention."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    """Width f of a dense feed-forward layer, or of the shared expert beside the routed ones."""
    vocab: int
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    sparse: int = 0
    """Layers that have experts."""
    experts: int = 0
    top_k: int = 0
    expert_inner: int = 0
    shared_inner: int = 0
    """Width of what every token passes beside its experts, in layers that have them."""


QWEN_7B = Shape("Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, qkv_bias=True)
LLAMA_70B = Shape("Llama-3.1-70B", 80, 8192, 64, 8, 128, 28672, 128256)
MAVERICK = Shape(
    "Llama-4-Maverick (text)", 48, 5120, 40, 8, 128, 16384, 202048, sparse=24, experts=128, top_k=1, expert_inner=8192,
    shared_inner=8192,
)  # fmt: skip
MODELS = (QWEN_7B, LLAMA_70B, MAVERICK)


# Parameters ----------------------------------------------------------------------------------------------------------


def attention(s: Shape) -> int:
    """Parameters of a layer's attention: 2 h q + 2 h k, q and k the widths of all query and key heads; biases and norms."""
    q, k = s.heads * s.head_dim, s.kv_heads * s.head_dim
    return 2 * s.hidden * (q + k) + (q + 2 * k) * s.qkv_bias + 2 * s.head_dim * s.qk_norm


def parameters(s: Shape, active: bool = False) -> int:
    """All parameters, or those that one token passes (``active``: k experts in the place of E)."""
    ends = s.vocab * s.hidden * (1 if s.tied else 2) + s.hidden
    dense = (s.layers - s.sparse) * 3 * s.hidden * s.inner
    passed = s.top_k if active else s.experts
    sparse = s.sparse * s.hidden * (3 * (passed * s.expert_inner + s.shared_inner) + s.experts)
    return ends + s.layers * (attention(s) + 2 * s.hidden) + dense + sparse


def adapter_parameters(s: Shape, rank: int) -> int:
    """Parameters of LoRA on the linear layers: r (in + out) each. Experts, which are no linear layers, have none."""
    q, k, h = s.heads * s.head_dim, s.kv_heads * s.head_dim, s.hidden
    widths = [h + q, h + k, h + k, q + h]
    mlp = [h + s.inner, h + s.inner, s.inner + h]
    shared = [h + s.shared_inner] * 3 if s.shared_inner else []
    return rank * (s.layers * sum(widths) + (s.layers - s.sparse) * sum(mlp) + s.sparse * sum(shared))


# The trainer ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainer:
    """Bytes of a trained model with AdamW."""

    held: int
    """Between steps: parameters, float32 copies of those in 16 bits, two moments."""
    gradient: int
    """At the step: the gradient, and its float32 copy where it has 16 bits."""

    @property
    def peak(self) -> int:
        return self.held + self.gradient


def trainer(trained: int, short: bool, frozen: int = 0) -> Trainer:
    """Of P trained parameters: 12 P held and 4 P of gradient in float32; 14 P and 6 P in 16 bits. ``frozen`` ones (below
    adapters) are held alone."""
    size = SHORT if short else LONG
    master = LONG if short else 0
    return Trainer(trained * (size + master + 2 * LONG) + frozen * size, trained * (size + master))


def sharded(trained: int, ranks: int) -> Trainer:
    """On each of R ranks of FSDP2 with float32 shards that are computed with in 16 bits: (12 P + 4 P) / R."""
    return Trainer(12 * trained // ranks, 4 * trained // ranks)


def gathered(s: Shape) -> int:
    """What FSDP2 holds beyond the shards while it computes: two layers in 16 bits, the one at work and the next."""
    experts = s.experts * s.expert_inner + s.shared_inner
    return 2 * SHORT * (attention(s) + 3 * s.hidden * max(s.inner, experts))


def checkpoint(trained: int) -> int:
    """Bytes of a checkpoint: float32 parameters and two moments, 12 P."""
    return 12 * trained


def activations(s: Shape, short: bool = True, recomputed: bool = False) -> float:
    """Bytes for each token in a forward pass with gradient, from what autograd saves in the eager code of transformers.

    With h the hidden width, q and k those of the query and key heads, f that of the feed-forward layer: in 16 bits
    16 h + 10 q + 10 k + 8 f a layer (norms and rotations are computed in float32), in float32 24 h + 16 q + 16 k + 16 f;
    each of k experts takes 4 h + 8 f, or 8 h + 16 f. Recomputed layers keep their input, h numbers, and one layer at a
    time is whole, with 3 f numbers more on its way back. Scores of attention are never held (sdpa, flash attention).
    """
    h, q, k = s.hidden, s.heads * s.head_dim, s.kv_heads * s.head_dim
    of = (16, 10, 10, 8, 4) if short else (24, 16, 16, 16, 8)
    common = of[0] * h + of[1] * q + of[2] * k
    dense = common + of[3] * s.inner
    sparse = common + s.top_k * (of[4] * h + of[3] * s.expert_inner) + of[3] * s.shared_inner
    if recomputed:
        size, wide = SHORT if short else LONG, max(s.inner, s.top_k * s.expert_inner)
        return inputs(s, short) + 3 * wide * size + max(dense, sparse if s.sparse else 0)
    return (s.layers - s.sparse) * dense + s.sparse * sparse


def inputs(s: Shape, short: bool = True) -> int:
    """Bytes for each token of what recomputed layers keep, layers x h numbers."""
    return s.layers * s.hidden * (SHORT if short else LONG)


LOGITS = 6
"""Copies of logits that autograd makes: as they come, divided by the temperature, exponentials, and their gradients."""


def logits(s: Shape, tokens: int) -> int:
    """Bytes of the float32 logits of all ``tokens`` at once; while autograd works on them it takes :data:`LOGITS` times as much."""
    return tokens * s.vocab * LONG


def at_head(s: Shape, tokens: int, short: bool = True, chunk: int = 256 << 20) -> float:
    """Bytes that a head takes which is a matrix: the float32 distributions of the tokens that fit in a chunk, written over from
    logits to gradient, and in 16 bits one product in these."""
    return min(logits(s, tokens), chunk) * (1.5 if short else 1)


def peak(s: Shape, tokens: int, scored: int, short: bool = True, recomputed: bool = False) -> float:
    """The most bytes that the first update takes beyond the model: at the head (logits of the ``scored`` tokens), in
    backward, or at the optimiser's step (gradient and new moments). What layers keep is all there at the head; layers that
    are recomputed come after it, one by one."""
    step = trainer(parameters(s), short).gradient + 2 * LONG * parameters(s)
    held = tokens * activations(s, short, recomputed)
    head = at_head(s, scored, short)
    return max(step, held, tokens * inputs(s, short) + head if recomputed else held + head)


# The sampler ---------------------------------------------------------------------------------------------------------


def kv(s: Shape, size: int = SHORT) -> int:
    """Bytes of keys and values of one token: 2 x layers x kv heads x head width numbers."""
    return 2 * s.layers * s.kv_heads * s.head_dim * size


def routes(s: Shape) -> int:
    """Bytes of the record of a token's experts: (layers with experts) x k numbers of one byte, two above 255 experts."""
    return s.sparse * s.top_k * (1 if s.experts < 256 else 2)


# On wires, a step ----------------------------------------------------------------------------------------------------


def transfer(s: Shape, rank: int | None = None) -> int:
    """Bytes to each sampler for a new version of the weights in 16 bits: all, or the adapters of a LoRA rank alone."""
    return SHORT * (parameters(s) if rank is None else adapter_parameters(s, rank))


def gathers(parameters: int, ranks: int, passes: int = 1, size: int = SHORT) -> float:
    """Bytes that each rank receives by all-gather in forward and in backward of ``passes`` micro-batches:
    2 (R - 1) / R of the model each."""
    return 2 * passes * size * parameters * (ranks - 1) / ranks


def scatters(parameters: int, ranks: int, passes: int = 1, size: int = LONG) -> float:
    """Bytes that each rank sends by reduce-scatter of gradients: (R - 1) / R of the model a micro-batch."""
    return passes * size * parameters * (ranks - 1) / ranks


# Tables --------------------------------------------------------------------------------------------------------------

MEMORY, HBM, FLOPS, WIRE = 80e9, 3.35e12, 990e12, 50e9
"""An H100: bytes of memory, bytes a second from it, 16-bit operations a second (dense); a network of 400 Gbit/s."""
USED = 0.4
"""Share of the operations that training is taken to reach."""


def giga(x: float) -> str:
    return f"{x / 1e9:,.3g}" if x < 1e12 else f"{x / 1e9:,.0f}"


def table(title: str, rows: list[tuple[str, list[str]]]) -> str:
    head = "| " + " | ".join([title, *(s.name for s in MODELS)]) + " |"
    lines = ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows]
    return "\n".join([head, "| --- |" + " --- |" * len(MODELS), *lines])


def memory(ranks: int, micro: int) -> str:
    """Gigabytes by role."""

    def of(f: object) -> list[str]:
        return [giga(f(s)) for s in MODELS]  # type: ignore[operator]

    return table("GB", [
        ("parameters, all (1e9)", of(parameters)),
        ("parameters, of a token (1e9)", of(lambda s: parameters(s, active=True))),
        ("policy, one process, 16 bits: held + gradient", of(lambda s: trainer(parameters(s), True).peak)),
        ("policy, LoRA of rank 32 in 16 bits",
         of(lambda s: trainer(adapter_parameters(s, 32), True, frozen=parameters(s)).peak)),
        (f"policy, each of {ranks} FSDP2 ranks", of(lambda s: sharded(parameters(s), ranks).peak)),
        ("  and two gathered layers", of(gathered)),
        (f"activations, {micro:,} tokens in 16 bits", of(lambda s: micro * activations(s))),
        ("  recomputed", of(lambda s: micro * activations(s, recomputed=True))),
        ("logits of these tokens, all at once", of(lambda s: LOGITS * logits(s, micro))),
        ("  in chunks", of(lambda s: at_head(s, micro))),
        ("critic, each rank (as the policy)", of(lambda s: sharded(parameters(s), ranks).peak)),
        (f"reference or teacher, 16 bits, each of {ranks} ranks", of(lambda s: SHORT * parameters(s) / ranks)),
        ("sampler: weights, 16 bits", of(lambda s: SHORT * parameters(s))),
        ("sampler: keys and values of 100,000 tokens", of(lambda s: 1e5 * kv(s))),
        ("checkpoint", of(lambda s: checkpoint(parameters(s)))),
    ])  # fmt: skip


def wires(ranks: int, responses: int, tokens: int, prompt: int, micro: int) -> str:
    """What a step sends, and how long its parts take at least."""
    total = responses * (tokens + prompt)
    passes = max(1, round(total / (ranks * micro)))

    def seconds(f: object) -> list[str]:
        return [f"{f(s):,.3g}" for s in MODELS]  # type: ignore[operator]

    def bytes_of(f: object) -> list[str]:
        return [giga(f(s)) for s in MODELS]  # type: ignore[operator]

    def sharding(s: Shape, micros: int) -> float:
        return gathers(parameters(s), ranks, micros) + scatters(parameters(s), ranks, micros)

    def compute(s: Shape) -> float:
        return 8 * parameters(s, active=True) * total / (ranks * USED * FLOPS)

    def cards(s: Shape) -> int:
        """Of one sampler: as many as hold the weights in half of their memory, a power of two."""
        n = 1
        while SHORT * parameters(s) > n * MEMORY / 2:
            n *= 2
        return n

    def drawing(s: Shape) -> float:
        """Every token of the longest response reads the weights once, and the keys and values of what is in flight."""
        rows = responses * cards(s) / ranks
        return tokens * (SHORT * parameters(s) + rows * (prompt + tokens / 2) * kv(s)) / (cards(s) * HBM)

    return table(f"a step on {ranks} + {ranks} GPUs", [
        (f"all-gather and reduce-scatter, each rank, {passes} micro-batches (GB)", bytes_of(lambda s: sharding(s, passes))),
        ("  seconds on a network of 50 GB/s", seconds(lambda s: sharding(s, passes) / WIRE)),
        ("training, seconds of arithmetic (recomputed)", seconds(compute)),
        ("GPUs of one sampler", [str(cards(s)) for s in MODELS]),
        ("drawing, seconds of memory traffic at least", seconds(drawing)),
        ("new weights to each sampler (GB)", bytes_of(transfer)),
        ("  seconds at 50 GB/s into each GPU's share", seconds(lambda s: transfer(s) / cards(s) / WIRE)),
        ("new adapters of rank 32 (GB)", bytes_of(lambda s: transfer(s, 32))),
        ("records of experts, all responses (GB)", bytes_of(lambda s: total * routes(s))),
    ])  # fmt: skip


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--ranks", type=int, default=64)
    ask.add_argument("--responses", type=int, default=1024)
    ask.add_argument("--tokens", type=int, default=4096)
    ask.add_argument("--prompt", type=int, default=512)
    ask.add_argument("--micro", type=int, default=16_384, help="tokens of a micro-batch of one rank")
    args = ask.parse_args()
    print(memory(args.ranks, args.micro))
    print()
    print(wires(args.ranks, args.responses, args.tokens, args.prompt, args.micro))


if __name__ == "__main__":
    main()
