"""How far sampler and trainer of a mixture of experts lie apart, without and with routing replay.

A Qwen3-MoE of transformers, untrained, with weights that make its distributions uneven (4 layers, 32 experts, 4 of them for
each token). The sampler draws responses with its key-value cache, in the precision and with the weights of the row; the
trainer reads the same texts whole. Differences are those of the log-probability of a drawn token, in nats.

    python benchmarks/routing.py [--responses 64] [--tokens 64] [--seed 0]

Prints two tables and writes ``benchmarks/results/routing.md``.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from policyopt.engine.local import LocalSampler
from policyopt.items import Verdict
from policyopt.models.causal import SplitModel, split_model
from policyopt.rows import Batch
from policyopt.training.rows import to_batch

VOCABULARY, PROMPT, PROMPTS = 256, 16, 8
LAYERS, EXPERTS, TOP_K = 4, 32, 4


def build(seed: int) -> Any:
    """The model, in float32: 0.7 million parameters."""
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, moe_intermediate_size=32, intermediate_size=64, num_experts=EXPERTS, num_experts_per_tok=TOP_K,
        norm_topk_prob=True, max_position_embeddings=512, tie_word_embeddings=True, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3MoeForCausalLM(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=3 / p.shape[-1] ** 0.75)
    return model


def in_8_bits(model: Any) -> Any:
    """The model with weights rounded to float8 (e4m3), as a sampler may hold them; it computes in its own precision."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.float8_e4m3fn).to(p.dtype))
    return model


def draw(split: SplitModel, responses: int, tokens: int, seed: int) -> Batch:
    """Responses with the experts that their tokens went to."""
    g = torch.Generator().manual_seed(seed)
    prompts = [tuple(torch.randint(1, VOCABULARY, (PROMPT,), generator=g).tolist()) for _ in range(PROMPTS)]
    sampler = LocalSampler(split, eos=(), routers=split.routers)
    n = responses // PROMPTS
    groups = sampler.run([sampler.generate(p, n=n, max_tokens=tokens, key=(seed, i)) for i, p in enumerate(prompts)])
    rows = [r for group in groups for r in group]
    owners = [i for i in range(PROMPTS) for _ in range(n)]
    return to_batch([prompts[i] for i in owners], rows, [Verdict(0.0, False, True, "")] * len(rows), owners, tokens)


@torch.no_grad()
def gaps(trainer: SplitModel, batch: Batch, reference: Tensor) -> Tensor:
    """|difference| of each drawn token's log-probability to a reference [N, T]."""
    return (trainer.leaves(batch)["logp"] - reference).abs()[batch.mask.bool()]


def records(routes: Tensor) -> Tensor:
    """[N, S, layers, k] which experts, in the order of their numbers."""
    return routes.long().view(len(routes), -1, LAYERS, TOP_K).sort(-1).values


def elsewhere(trainer: SplitModel, batch: Batch) -> tuple[float, float]:
    """The share of tokens, and of tokens and layers, that the trainer by itself sends to another set of experts."""
    mine, theirs = records(batch.routes), records(trainer.choices(batch)[:, : batch.routes.shape[1]])
    other = (mine != theirs).any(-1)[(mine > 0).all(-1).all(-1)]
    return float(other.any(-1).float().mean()), float(other.float().mean())


def of_responses(batch: Batch) -> Batch:
    """The batch with records of response tokens alone; prompts choose anew."""
    table = batch.routes.view(len(batch), -1, LAYERS * TOP_K).clone()
    table[:, :PROMPT] = 0
    return batch.replace(routes=table.flatten(1))


def row(name: str, sampler: Any, trainer: Any, args: argparse.Namespace) -> str:
    mine = split_model(trainer)
    batch = draw(split_model(sampler), args.responses, args.tokens, args.seed)
    tokens, pairs = elsewhere(mine, batch)
    found = [gaps(mine, b, batch.old_logp) for b in (batch.replace(routes=None), of_responses(batch), batch)]
    cells = " | ".join(f"{float(x.mean()):.2g} / {float(x.max()):.2g}" for x in found)
    return f"| {name} | {tokens:.1%} | {pairs:.1%} | {cells} |"


def moved(start: Any, size: float, args: argparse.Namespace) -> str:
    """The ratio of the policy after an update to the policy before it, both in the trainer."""
    policy = copy.deepcopy(start)
    batch = draw(split_model(start), args.responses, args.tokens, args.seed)
    g = torch.Generator().manual_seed(args.seed)
    with torch.no_grad():
        old = split_model(start).leaves(batch)["logp"]
        for p in policy.parameters():
            if p.dim() > 1:
                p.add_(size * float(p.std()) * torch.randn(p.shape, generator=g))
    mine = split_model(policy)
    tokens, _ = elsewhere(mine, batch)
    cells = []
    for b in (batch.replace(routes=None), batch):
        x = gaps(mine, b, old)
        cells.append(f"{float(x.mean()):.2g} / {float(x.max()):.2g} | {float((x > 0.2).float().mean()):.1%}")
    return f"| {size:.1%} | {tokens:.1%} | {' | '.join(cells)} |"


def cost(model: Any, args: argparse.Namespace) -> str:
    """Processor time of drawing and of reading, without and with records; the least of three."""
    split = split_model(model)
    batch = draw(split, args.responses, args.tokens, args.seed)
    prompt = tuple(range(1, PROMPT))

    def seconds(f: Callable[[], object]) -> float:
        found = []
        for _ in range(3):
            start = time.process_time()
            f()
            found.append(time.process_time() - start)
        return min(found)

    def drawing(routers: Any) -> float:
        sampler = LocalSampler(split, eos=(), routers=routers)
        asked = {"n": args.responses, "max_tokens": args.tokens, "key": (0,)}
        return seconds(lambda: sampler.run([sampler.generate(prompt, **asked)]))

    def reading(batch: Batch) -> float:
        return seconds(lambda: split.leaves(batch)["logp"].sum().backward())

    free = batch.replace(routes=None)
    size = batch.routes.numel() * batch.routes.element_size()
    return (
        f"Drawing takes {drawing(None):.2f} s of processor time, with records {drawing(split.routers):.2f} s; forward and backward "
        f"{reading(free):.2f} s, with replay {reading(batch):.2f} s. The records take {size:,} bytes, {LAYERS * TOP_K} a token."
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--responses", type=int, default=64)
    ask.add_argument("--tokens", type=int, default=64)
    ask.add_argument("--seed", type=int, default=0)
    args = ask.parse_args()
    torch.set_num_threads(1)
    whole = build(args.seed)
    half: Callable[[], Any] = lambda: copy.deepcopy(whole).bfloat16()  # noqa: E731
    lines = [
        "| sampler, trainer | tokens sent elsewhere | tokens x layers | no replay, mean / max | response tokens alone | replay |",
        "| --- | --- | --- | --- | --- | --- |",
        row("float32, float32", whole, whole, args),
        row("bfloat16, bfloat16", half(), half(), args),
        row("bfloat16, float32", half(), whole, args),
        row("float8 weights in bfloat16, bfloat16", in_8_bits(half()), half(), args),
    ]
    print("\n".join(lines))
    later = [
        "| weights moved by | tokens sent elsewhere | no replay, mean / max | beyond 0.2 | replay | beyond 0.2 |",
        "| --- | --- | --- | --- | --- | --- |",
        *(moved(whole, size, args) for size in (0.001, 0.003, 0.01)),
    ]
    print("\n".join(["", *later]))
    spent = cost(whole, args)
    print(f"\n{spent}")
    said = f"# Routing replay\n\n{args.responses} responses of {args.tokens} tokens, seed {args.seed}, torch {torch.__version__}.\n\n"
    made = f"\n\nMade by `python benchmarks/routing.py --responses {args.responses} --tokens {args.tokens} --seed {args.seed}`.\n"
    text = said + "\n".join(lines) + "\n\nAfter an update (float32):\n\n" + "\n".join(later) + f"\n\n{spent}" + made
    (Path(__file__).parent / "results" / "routing.md").write_text(text)


if __name__ == "__main__":
    main()
