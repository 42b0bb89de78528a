"""The formulas of ``benchmarks/scaling.py`` against what models take on this machine (no GPU needed).

    python benchmarks/scaling_check.py

Parameters of the large models are counted on transformers' own classes without memory (device "meta"); all else is measured on
models of up to six million parameters: bytes held by the engine, what autograd saves, files, the cache, the peak of a whole
update, and two FSDP2 ranks over gloo. Prints a table and writes
``benchmarks/results/scaling.md``.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import scaling
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.profiler import ProfilerActivity, profile
from transformers import (
    DynamicCache,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.methods import grpo
from policyopt.models.adapters import LoRA, with_adapters
from policyopt.models.causal import split_model
from policyopt.models.load import Policy
from policyopt.models.memory import recompute_layers
from policyopt.models.tokenizer import build_tokenizer
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch

SMALL = scaling.Shape("small", 6, 256, 8, 4, 32, 768, 1024, tied=True, qk_norm=True)
SPARSE = scaling.Shape(
    "small MoE", 3, 128, 4, 2, 32, 256, 1024, tied=True, qk_norm=True, sparse=3, experts=16, top_k=4, expert_inner=64
)
ROWS, WIDTH = 16, 128
RECIPE = grpo().replace(regularizers=())


@dataclass
class Line:
    """A number that a formula gives, and what it is here."""

    what: str
    predicted: float
    measured: float

    def __str__(self) -> str:
        off = f"{self.predicted / self.measured - 1:+.1%}" if self.measured else "0"
        return f"| {self.what} | {self.predicted:,.0f} | {self.measured:,.0f} | {off} |"


def build(s: scaling.Shape, dtype: torch.dtype = torch.float32) -> Any:
    """A model of transformers of a shape."""
    common = {
        "vocab_size": s.vocab, "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "intermediate_size": s.inner, "tie_word_embeddings": s.tied,
        "max_position_embeddings": 1024, "pad_token_id": 0, "eos_token_id": None, "bos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    if s.experts:
        more = {"num_experts": s.experts, "num_experts_per_tok": s.top_k, "moe_intermediate_size": s.expert_inner}
        return Qwen3MoeForCausalLM(Qwen3MoeConfig(**common, **more)).to(dtype).eval()
    return Qwen3ForCausalLM(Qwen3Config(**common)).to(dtype).eval()


def whole(s: scaling.Shape) -> int:
    """Parameters of one of the large models, on the class of transformers that runs it."""
    sizes = {
        "vocab_size": s.vocab, "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "tie_word_embeddings": s.tied, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    with torch.device("meta"):
        if s is scaling.MAVERICK:
            model: Any = Llama4ForCausalLM(Llama4TextConfig(
                **sizes, head_dim=s.head_dim, intermediate_size=s.expert_inner, intermediate_size_mlp=s.inner,
                num_local_experts=s.experts, num_experts_per_tok=s.top_k, interleave_moe_layer_step=s.layers // s.sparse,
            ))  # fmt: skip
        elif s is scaling.LLAMA_70B:
            model = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=s.inner))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(**sizes, intermediate_size=s.inner))
    return count(model)


def count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def policy(
    s: scaling.Shape, dtype: torch.dtype = torch.float32, lora: LoRA | None = None, recomputed: bool = False
) -> Policy:
    net = build(s, dtype)
    if recomputed:
        recompute_layers("small", net)
    net = net if lora is None else with_adapters(net, lora, "small")
    return Policy(net, build_tokenizer(1024), "small", (2,), 1024, recomputed=recomputed)


def rows(s: scaling.Shape) -> Batch:
    """A batch whose prompts are one token long, so that nothing is shared."""
    g = torch.Generator().manual_seed(0)
    ones = torch.ones(ROWS, WIDTH)
    return make_batch(
        mask=ones, tokens=torch.randint(3, s.vocab, (ROWS, WIDTH), generator=g), prompt=torch.full((ROWS, 1), 5),
        prompt_mask=torch.ones(ROWS, 1), group=torch.arange(ROWS) // 8, old_logp=-ones, advantage=torch.randn(ROWS, 1, generator=g) * ones,
        version=torch.zeros(ROWS, dtype=torch.long), reward=torch.zeros(ROWS), truncated=torch.zeros(ROWS), budget=torch.full((ROWS,), WIDTH),
    )  # fmt: skip


def size(x: Any) -> int:
    return int(x.numel() * x.element_size())


# What the engine holds -----------------------------------------------------------------------------------------------


def engine_lines(name: str, made: Policy, trained: int, frozen: int, folder: Path) -> Iterator[Line]:
    """An engine after one update: what it holds, what the gradient took, what a checkpoint takes."""
    short = made.model.dtype == torch.bfloat16
    engine = LocalEngine(made, RECIPE, lr=1e-3)
    engine.update(RECIPE, rows(SMALL))
    tensors = {id(p): size(p) for p in made.model.parameters()}
    for named in engine.weights.masters.values():
        tensors |= {id(p): size(p) for p in named.values()}
    for optimizer in engine.weights.optimizers.values():
        tensors |= {id(x): size(x) for state in optimizer.state.values() for x in state.values() if x.dim()}
    expected = scaling.trainer(trained, short, frozen)
    yield Line(f"{name}: parameters, copies, moments", expected.held, sum(tensors.values()))
    engine.gradient(RECIPE, rows(SMALL))
    found = sum(size(p.grad) for _, p in made.trainable() if p.grad is not None)
    copies = found * 2 if short else 0
    yield Line(f"{name}: gradient and its copy", expected.gradient, found + copies)
    engine.write(folder)
    yield Line(f"{name}: checkpoint", scaling.checkpoint(trained), sum(p.stat().st_size for p in folder.iterdir()))


# What autograd saves -------------------------------------------------------------------------------------------------


def saved(model: Any, tokens: int) -> int:
    """Bytes of all storages that autograd saves in a forward pass of the backbone, parameters aside."""
    seen: dict[int, Any] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage()  # held, so that no address comes twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        model.model(input_ids=torch.randint(3, 1000, (1, tokens)), use_cache=False)
    return sum(x.nbytes() for x in seen.values())


def activation_lines() -> Iterator[Line]:
    for s in (SMALL, SPARSE):
        for dtype in (torch.float32, torch.bfloat16):
            model = build(s, dtype)
            found = (saved(model, 512) - saved(model, 256)) / 256
            yield Line(
                f"{s.name}, {dtype}: activations of a token", scaling.activations(s, dtype != torch.float32), found
            )


# The peak of an update ----------------------------------------------------------------------------------------------


def highest(engine: LocalEngine, batch: Batch, recipe: Recipe = RECIPE) -> int:
    """The most bytes that tensors take at one time in an update, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        engine.update(recipe, batch)
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def peak_lines() -> Iterator[Line]:
    for dtype in (torch.float32, torch.bfloat16):
        for recomputed in (False, True):
            engine = LocalEngine(policy(SMALL, dtype, recomputed=recomputed), RECIPE, micro_batch=ROWS)
            expected = scaling.peak(SMALL, ROWS * (WIDTH + 1), ROWS * WIDTH, dtype is torch.bfloat16, recomputed)
            name = f"{dtype}, layers {'recomputed' if recomputed else 'kept'}"
            yield Line(f"peak of an update: {name}", expected, highest(engine, rows(SMALL)))


# The sampler ---------------------------------------------------------------------------------------------------------


def sampler_lines() -> Iterator[Line]:
    model = build(SMALL, torch.bfloat16)
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.ones(1, 100, dtype=torch.long), past_key_values=cache, use_cache=True)
    found = sum(size(x) for layer in cache.layers for x in (layer.keys, layer.values)) / 100
    yield Line("keys and values of a token, bfloat16", scaling.kv(SMALL), found)
    sparse = split_model(build(SPARSE))
    sampler = LocalSampler(sparse, eos=(), routers=sparse.routers)
    [[response]] = sampler.run([sampler.generate((1, 2, 3), max_tokens=18, key=(0,))])
    assert response.routes is not None
    yield Line(
        "record of a token's experts", scaling.routes(SPARSE), size(response.routes.experts) / len(response.routes.ids)
    )


# Two ranks -----------------------------------------------------------------------------------------------------------


def rank(number: int, port: int, answer: Any) -> None:
    """A rank of FSDP2 over gloo: what it holds after a step, and what its collectives moved in one."""
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    model = build(SMALL)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    moved = {"gather": 0, "scatter": 0}

    def counted(name: str, function: Any, whole: int) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            # Of the whole tensor a rank has half, and moves the other half.
            named = [keywords.get(n) for n in ("output_tensor", "output", "input", "input_tensor")]
            tensors = [x for x in (*args, *named) if isinstance(x, torch.Tensor)]
            moved[name] += max(map(size, tensors)) // whole
            return function(*args, **keywords)

        return call

    own = dist.all_gather_single, dist.reduce_scatter_single
    dist.all_gather_single = counted("gather", own[0], 2)
    dist.reduce_scatter_single = counted("scatter", own[1], 2)
    model(input_ids=torch.ones(1, 32, dtype=torch.long)).logits.square().mean().backward()
    dist.all_gather_single, dist.reduce_scatter_single = own
    gradient = sum(size(p.grad.to_local()) for p in model.parameters() if p.grad is not None)
    optimizer.step()
    held = sum(size(p.to_local()) for p in model.parameters())
    held += sum(size(x.to_local()) for state in optimizer.state.values() for x in state.values() if x.dim())
    if number == 0:
        answer.put((held, gradient, moved["gather"], moved["scatter"]))
    dist.barrier()
    dist.destroy_process_group()


def rank_lines() -> Iterator[Line]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = multiprocessing.get_context("spawn")
    answer = processes.Queue()
    ranks = [processes.Process(target=rank, args=(i, port, answer)) for i in range(2)]
    for process in ranks:
        process.start()
    held, gradient, gathered, scattered = answer.get(timeout=300)
    for process in ranks:
        process.join()
    p = scaling.parameters(SMALL)
    yield Line("two FSDP2 ranks, float32, each: parameters and moments", scaling.sharded(p, 2).held, held)
    yield Line("two FSDP2 ranks, float32, each: gradient", scaling.sharded(p, 2).gradient, gradient)
    yield Line("  received by all-gather in a step", scaling.gathers(p, 2, size=4), gathered)
    yield Line("  sent by reduce-scatter in a step", scaling.scatters(p, 2), scattered)


PUBLISHED = {"Qwen2.5-7B": 15_231_233_024, "Llama-3.1-70B": 141_107_412_992}
"""Bytes of tensors that the index of the published 16-bit checkpoint states (``model.safetensors.index.json``)."""


def lines() -> Iterator[Line]:
    for s in scaling.MODELS:
        yield Line(f"{s.name}: parameters", scaling.parameters(s), whole(s))
        if s.name in PUBLISHED:
            yield Line(f"{s.name}: published checkpoint", 2 * scaling.parameters(s), PUBLISHED[s.name])
    for s in (SMALL, SPARSE):
        yield Line(f"{s.name}: parameters", scaling.parameters(s), count(build(s)))
    p, adapters = scaling.parameters(SMALL), scaling.adapter_parameters(SMALL, 8)
    with tempfile.TemporaryDirectory() as scratch:
        for name, made, trained, frozen in (
            ("float32", policy(SMALL), p, 0),
            ("bfloat16", policy(SMALL, torch.bfloat16), p, 0),
            ("LoRA of rank 8, float32", policy(SMALL, lora=LoRA(rank=8)), adapters, p),
        ):
            folder = Path(scratch) / name
            folder.mkdir()
            yield from engine_lines(name, made, trained, frozen, folder)
    yield from activation_lines()
    yield from peak_lines()
    yield from sampler_lines()
    yield from rank_lines()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = ["| bytes (or parameters) | formula | measured | off by |", "| --- | --- | --- | --- |"]
    print("\n".join(table), flush=True)
    for line in lines():
        table.append(str(line))
        print(line, flush=True)
    text = f"# Formulas and what was measured\n\ntorch {torch.__version__}\n\n" + "\n".join(table)
    (Path(__file__).parent / "results" / "scaling.md").write_text(
        text + "\n\nMade by `python benchmarks/scaling_check.py`.\n"
    )


if __name__ == "__main__":
    main()
