"""What each option that spares memory costs and saves, against a run without any of them.

    python benchmarks/memory.py [--device cuda] [--repeats 7] [--compile]

A Qwen3 of 24 layers and 4.8 million parameters makes updates of GRPO with a reference on 16 rows of 128 tokens, with one option at
a time. In bytes: what is held between updates (models on the device, float32 copies, what the optimiser keeps), the most
that an update takes beyond it, and a checkpoint. In time: an update with scoring by the reference over the plain one, medians of
updates that alternate. On a CPU the bytes are those of tensors by PyTorch's profiler, on a GPU those of its allocator.
``--compile`` measures compiled code too, which takes a minute to be made. Prints a table and writes ``benchmarks/results/memory.md``
(``memory_cuda.md`` on a GPU).
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import scaling
import scaling_check
import torch

from policyopt.engine.local import LocalEngine
from policyopt.methods import grpo
from policyopt.models.adapters import LoRA, with_adapters
from policyopt.models.load import Policy
from policyopt.models.memory import recompute_layers
from policyopt.models.tokenizer import build_tokenizer
from policyopt.rows import Batch

DEEP = scaling.Shape("deep", 24, 128, 4, 2, 32, 384, 1024, tied=True, qk_norm=True)
RECIPE = grpo(kl_coef=0.04)


def engine(
    device: str, dtype: torch.dtype = torch.float32, lora: bool = False, recomputed: bool = False, compiled: bool = False,
    **options: Any,
) -> LocalEngine:  # fmt: skip
    """An engine of the deep model with some options."""
    net = scaling_check.build(DEEP, dtype).to(device)
    if recomputed:
        recompute_layers("deep", net)
    net = with_adapters(net, LoRA(), "deep") if lora else net
    policy = Policy(net, build_tokenizer(1024), "deep", (2,), 1024, recomputed=recomputed, compiled=compiled)
    return LocalEngine(policy, RECIPE, lr=1e-4, **{"micro_batch": scaling_check.ROWS} | options)


def options(device: str, compile: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is measured, by its words on the command line."""
    yield "--gradient-checkpointing", {"recomputed": True}
    yield "--micro-batch 4", {"micro_batch": 4}
    yield "--dtype bfloat16", {"dtype": torch.bfloat16}
    yield "--lora", {"lora": True}
    yield "--optim.name lion", {"optimizer": "lion"}
    yield "--optim.name muon", {"optimizer": "muon"}
    if find_spec("bitsandbytes"):
        yield "--optim.name adamw-8bit", {"optimizer": "adamw-8bit"}
    if device != "cpu":
        yield "--offload", {"offload": True}
    if compile:
        yield "--compile", {"compiled": True}


def held(made: LocalEngine) -> int:
    """Bytes on the device between updates."""
    models = [made.policy.model, *(role.model for role in made.roles.values())]
    found = {p.data_ptr(): p for m in models for p in m.parameters() if p.device == made.device}
    found |= {x.data_ptr(): x for x in made.weights.tensors().values()}
    return sum(scaling_check.size(x) for x in found.values())


def highest(made: LocalEngine, batch: Batch) -> int:
    """The most bytes that an update takes beyond what is held."""
    if made.device.type == "cpu":
        return scaling_check.highest(made, batch, RECIPE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    made.update(RECIPE, batch)
    return torch.cuda.max_memory_allocated() - before


def seconds(step: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def line(name: str, plain: LocalEngine, made: LocalEngine, batch: Batch, repeats: int) -> str:
    """A row of the table."""
    batches = {
        e: batch.replace(**{n: x.to(e.dtype) for n, x in batch.columns().items() if x.is_floating_point()})
        for e in (plain, made)
    }

    def step(e: LocalEngine) -> Callable[[], object]:
        return lambda: e.update(RECIPE, e.annotate(batches[e], RECIPE))

    times: dict[LocalEngine, list[float]] = {plain: [], made: []}
    for e in (plain, made):
        step(e)()
    for _ in range(repeats):
        for e, found in times.items():
            found.append(seconds(step(e), e.device.type))
    ratio = statistics.median(times[made]) / statistics.median(times[plain])
    gc.collect()
    top = highest(made, made.annotate(batches[made], RECIPE))
    saved = sum(scaling_check.size(x) for x in made.tensors().values())
    numbers = " | ".join(f"{x / 2**20:.1f}" for x in (held(made), top, saved))
    return f"| {name} | {numbers} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    batch = scaling_check.rows(DEEP).to(args.device)
    plain = engine(args.device)
    table = [
        "| option | held (MiB) | peak of an update beyond it (MiB) | checkpoint (MiB) | time |",
        "| --- | --- | --- | --- | --- |",
    ]
    table.append(line("none", plain, engine(args.device), batch, args.repeats))
    print("\n".join(table), flush=True)
    for name, chosen in options(args.device, args.compile):
        table.append(line(f"`{name}`", plain, engine(args.device, **chosen), batch, args.repeats))
        print(table[-1], flush=True)
    text = f"# Options that spare memory\n\ntorch {torch.__version__}, {args.device}\n\n" + "\n".join(table)
    file = "memory.md" if args.device == "cpu" else "memory_cuda.md"
    command = f"python benchmarks/memory.py{'' if args.device == 'cpu' else ' --device cuda'}"
    (Path(__file__).parent / "results" / file).write_text(f"{text}\n\nMade by `{command}`.\n")


if __name__ == "__main__":
    main()
