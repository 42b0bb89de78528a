"""Memory and numbers of FSDP2 ranks against one process: python benchmarks/sharded.py [--ranks 2] [--width 256] [--steps 20].

Builds a model of some size with random weights, takes the same optimiser steps on the same batches in one process and on
ranks of gloo on this machine, and prints what each rank holds of parameters, gradients and moments (measured: bytes of the
tensors), what its process has taken at most, and how far losses, gradient norms and weights of the two are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from policyopt.engine.local import LocalEngine
from policyopt.engine.sharded.share import ShareEngine
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import load_policy
from policyopt.models.tokenizer import build_tokenizer
from policyopt.objective import credit
from policyopt.rows import Batch, make_batch


def model_of(folder: Path, width: int) -> None:
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        "qwen3", vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=6,
        num_attention_heads=width // 32, num_key_value_heads=width // 64, head_dim=32, tie_word_embeddings=True,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def batch_of(step: int, rows: int = 16, width: int = 48) -> Batch:
    g = torch.Generator().manual_seed(step)
    length = torch.randint(width // 2, width + 1, (rows,), generator=g)
    mask = (torch.arange(width) < length[:, None]).float()
    group = torch.arange(rows) // 4
    prompt = torch.randint(6, 100, (rows // 4, 16), generator=g)[group]
    return make_batch(
        mask=mask, tokens=torch.randint(6, 100, (rows, width), generator=g) * mask.long(), prompt=prompt,
        prompt_mask=torch.ones(rows, 16), group=group, truncated=torch.zeros(rows), budget=torch.full((rows,), width),
        version=torch.zeros(rows, dtype=torch.long), temperature=torch.ones(rows),
        reward=torch.randn(rows, generator=g), correct=torch.zeros(rows), old_logp=torch.zeros(rows, width),
    )  # fmt: skip


def held(tensors: Any) -> int:
    found = (x.to_local() if isinstance(x, DTensor) else x for x in tensors if isinstance(x, Tensor))
    return sum(x.numel() * x.element_size() for x in found)


def work(folder: Path, steps: int) -> dict[str, Any]:
    recipe = grpo(group_size=4, kl_coef=0.0)
    policy = load_policy(str(folder), device="cpu")
    kind = ShareEngine if dist.is_initialized() else LocalEngine
    engine = kind(policy, recipe, lr=1e-4, micro_batch=4)
    parameters = list(engine.weights.parameters["policy"].values())
    curve, start = [], time.perf_counter()
    for step in range(steps):
        batch = batch_of(step)
        scored = credit(recipe, engine.prepare(batch.replace(old_logp=-4.6 * batch.mask), recipe))
        report = engine.gradient(recipe, scored)
        gradients = held(p.grad for p in parameters)
        report.grad_norm, _ = engine.weights.step(1.0)
        curve.append((report.loss, report.grad_norm))
    seconds = time.perf_counter() - start
    moments = held(x for o in engine.weights.optimizers.values() for s in o.state.values() for x in s.values())
    weights = {n: p.detach().double().pow(2).sum() for n, p in engine.weights.parameters["policy"].items()}
    norms = {n: float(x.full_tensor() if isinstance(x, DTensor) else x) ** 0.5 for n, x in weights.items()}
    size = {"parameters": held(parameters), "gradients": gradients, "moments": moments}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"held": size, "peak": peak, "curve": curve, "norms": norms, "seconds": seconds / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.work is not None:
        rank = "one"
        if "RANK" in os.environ:
            dist.init_process_group("gloo")
            rank = str(dist.get_rank())
        (asked.work / f"{rank}.json").write_text(json.dumps(work(asked.work / "model", asked.steps)))
        if dist.is_initialized():
            dist.destroy_process_group()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_of(folder / "model", asked.width)
        line = [__file__, "--work", name, "--steps", str(asked.steps)]
        subprocess.run([sys.executable, *line], check=True)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(asked.ranks)]
        subprocess.run([sys.executable, *launch, *line], check=True)
        found = {
            rank: json.loads((folder / f"{rank}.json").read_text()) for rank in ("one", *map(str, range(asked.ranks)))
        }
    for rank, said in found.items():
        sizes = "  ".join(f"{what} {n / 2**20:.2f} MiB" for what, n in said["held"].items())
        print(
            f"{'one process' if rank == 'one' else f'rank {rank} of {asked.ranks}'}: {sizes}  process {said['peak'] / 2**20:.0f} MiB  step {said['seconds']:.2f} s"
        )
    one, two = found["one"], found["0"]
    norm = max(abs(a[1] - b[1]) / a[1] for a, b in zip(one["curve"], two["curve"], strict=True))
    loss = max(abs(a[0] - b[0]) for a, b in zip(one["curve"], two["curve"], strict=True))
    weight = max(abs(x - two["norms"][n]) / x for n, x in one["norms"].items())
    print(
        f"over {asked.steps} steps: gradient norms apart by {norm:.1e} at most (relative), losses by {loss:.1e}, norms of weights after the last by {weight:.1e} (relative)"
    )


if __name__ == "__main__":
    main()
