"""What the engine computes on a card against plain transformers, row by row in float32: gradients, and what was drawn.

    python benchmarks/gpu/equal.py OUT.json [--device cpu]

A small Qwen3 with random weights draws groups of responses of unlike length to a few prompts, so that packing, shared prompts, the
decoding step and the fused head all have work. It fails where the relative error of the whole gradient, or the largest difference
between sampler and trainer, is more than the precision explains; where decoding is not by the model's weights; where a CUDA graph
cannot be made, or draws something else than the same step without one; and where it differs from a step at a time by more than that.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from gpu_steps import Ours, Workload, drawn_in_ways, save_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from policyopt.engine.local.lean import Lean
from policyopt.objective import credit
from policyopt.rows import Batch

BOUNDS = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (0.05, 0.5)}
"""Of the relative error of the gradient, and of the difference of log-probabilities, by the precision of the model."""

SIZE = Workload(24, 6, 40, 48, mean=20, layers=4, hidden=256, vocabulary=5000)
SMALL = Workload(6, 3, 12, 8, mean=4, layers=2, hidden=32, vocabulary=300)
"""For a CPU."""


def plain_gradient(folder: Path, batch: Batch, weight: Tensor) -> dict[str, Tensor]:
    """Of ``-(weight * logp).sum()``, each row by itself through the whole model in float32."""
    device = batch.mask.device
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    for i in range(len(batch)):
        prompt = batch.prompt[i][batch.prompt_mask[i].bool()]
        response = batch.tokens[i][batch.mask[i].bool()]
        logits = model(torch.cat([prompt, response])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]
        (-(weight[i, : len(response)].float() * logp).sum()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def compared(device: str, dtype: torch.dtype, size: Workload) -> dict[str, Any]:
    """The errors of a step."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_model(folder, size)
        ours = Ours(size, folder, device, dtype)
        batch = ours.batch(ours.draw())
        batch = credit(ours.recipe, ours.engine.prepare(batch, ours.recipe))
        report = ours.engine.gradient(ours.recipe, batch)
        theirs = plain_gradient(folder, batch, report.weight)
        mine = {name: p.grad.float() for name, p in ours.engine.policy.model.named_parameters() if p.grad is not None}
        lean = type(ours.engine.sampler.stepper) is Lean
        ways = drawn_in_ways(ours) if lean else {}
    error = sum(float((mine[name] - g).square().sum()) for name, g in theirs.items()) ** 0.5
    found = {
        "dtype": str(dtype), "decoding": type(ours.engine.sampler.stepper).__name__,
        "gradient": error / sum(float(g.square().sum()) for g in theirs.values()) ** 0.5,
        "sampler and trainer": report.sums["mismatch/max"],
    }  # fmt: skip
    bounds = dict(zip(("gradient", "sampler and trainer"), BOUNDS[dtype], strict=True))
    # "not <=" rather than ">", so that NaN fails too
    wrong = [name for name, bound in bounds.items() if not found[name] <= bound]
    wrong += [way for way, row in ways.items() if row["note"] or not row["logp"] <= BOUNDS[dtype][1]]
    if not lean or ways["fixed shapes"]["other rows"]:
        wrong.append("decoding")
    return found | {"ways": ways, "wrong": wrong}


def main() -> None:
    """Compare, print, write, and fail where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    args = parser.parse_args()
    size = SMALL if args.device == "cpu" else SIZE
    found = [compared(args.device, dtype, size) for dtype in (torch.float32, torch.bfloat16)]
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if any(row["wrong"] for row in found):
        raise SystemExit("the engine differs from plain transformers by more than rounding")


if __name__ == "__main__":
    main()
