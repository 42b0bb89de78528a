"""The fused head of ``policyopt.models.triton_head`` against plain torch: how far apart they are, and how long they take.

    python benchmarks/gpu/fused_head.py [OUT.json]                                        on a card, at the sizes of a real model
    TRITON_INTERPRET=1 python benchmarks/gpu/fused_head.py --device cpu [OUT.json]        in Triton's interpreter, tiny, without times

Errors are the largest difference over the largest number of the plain result, which is worked out in float32 on the same inputs
(float64 on a CPU). It fails where one is larger than the inputs' precision explains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from policyopt.models import triton_head
from policyopt.models.triton_head import PANEL_BYTES, linear_logp

BOUND = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Of the error, by the precision of the inputs: some roundings of a number that is added up from many."""


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, heat: Tensor, entropy: bool = True
) -> tuple[Tensor, Tensor | None]:
    """What the kernels work out, with all logits in memory."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = (logits.float() if logits.element_size() == 2 else logits) / heat[:, None]
    logp = logits.log_softmax(-1)
    return logp.gather(-1, target[:, None])[:, 0], -(logp.exp() * logp).sum(-1) if entropy else None


def inputs(
    sizes: tuple[int, int, int], dtype: torch.dtype, device: str, biased: bool
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Hidden states, head and bias; targets, of which the first is the last id; temperatures."""
    m, v, h = sizes
    g = torch.Generator(device).manual_seed(0)
    free = [torch.randn(m, h, generator=g, device=device), 2 * torch.randn(v, h, generator=g, device=device) / h**0.5]
    free += [torch.randn(v, generator=g, device=device)] if biased else []
    target = torch.randint(v, (m,), generator=g, device=device)
    target[0] = v - 1
    heat = 0.5 + torch.rand(m, generator=g, device=device)
    return [x.to(dtype).requires_grad_() for x in free], target, heat


def errors(sizes: tuple[int, int, int], dtype: torch.dtype, device: str, biased: bool) -> dict[str, float]:
    """Of both results and of the gradient by each input."""
    free, target, heat = inputs(sizes, dtype, device, biased)
    triton_head.PANEL_BYTES = sizes[0] * free[0].element_size() * sizes[1] // 3  # several panels, the last one not full
    wide = torch.float64 if device == "cpu" else torch.float32
    exact = [x.detach().to(wide).requires_grad_() for x in free]
    mine = linear_logp(free[0], free[1], free[2] if biased else None, target, heat, True)
    theirs = plain(exact[0], exact[1], exact[2] if biased else None, target, heat.to(wide))
    by = [torch.randn(sizes[0], generator=torch.Generator(device).manual_seed(k), device=device) for k in (1, 2)]
    gradients = torch.autograd.grad(mine, free, by), torch.autograd.grad(theirs, exact, [x.to(wide) for x in by])
    into = torch.ones_like(free[1]), torch.ones_like(free[2]) if biased else None  # added to what is there already
    again = linear_logp(free[0], free[1], free[2] if biased else None, target, heat, True, into=into)
    torch.autograd.backward(again, by)
    names = ("logp", "entropy", "by hidden", "by weight", "by bias", "into weight", "into bias")
    added = [x.to(wide) - 1 for x in into if x is not None]
    pairs = [*zip(mine, theirs, strict=True), *zip(*gradients, strict=True), *zip(added, gradients[1][1:], strict=True)]
    if not biased:
        names = tuple(name for name in names if "bias" not in name)
    return {
        name: float((a.to(wide) - b).abs().max() / b.abs().max()) for name, (a, b) in zip(names, pairs, strict=True)
    }


def seconds(f: Callable[[], object], rounds: int = 5) -> float:
    """The median time of a call on the card, after one that warms up."""
    found = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        f()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def timed(sizes: tuple[int, int, int], dtype: torch.dtype) -> dict[str, float]:
    """Forward and backward of both ways: seconds, peak memory beyond the inputs in MiB, and achieved TFLOP/s of ours."""
    (hidden, weight), target, heat = inputs(sizes, dtype, "cuda", False)
    triton_head.PANEL_BYTES = PANEL_BYTES
    out = {}
    for name, f in (("fused", linear_logp), ("plain", plain)):

        def call(f: Callable[..., tuple[Tensor, Tensor | None]] = f) -> None:
            logp, _ = f(hidden, weight, None, target, heat, False)
            torch.autograd.grad(logp.sum(), [hidden, weight])

        call()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out[f"{name} s"] = seconds(call)
        out[f"{name} MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    m, v, h = sizes
    return out | {"fused TFLOP/s": 8e-12 * m * v * h / out["fused s"], "ratio": out["fused s"] / out["plain s"]}


def main() -> None:
    """Compare, print, write, and fail where the kernels are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    args = parser.parse_args()
    small = args.device == "cpu"
    # The interpreter multiplies the bits of bfloat16 as whole numbers, so that 16 bits are float16 there.
    cases = [(torch.float32, True), (torch.float16, False), *([] if small else [(torch.bfloat16, True)])]
    sizes = (70, 2300, 40) if small else (1000, 20_011, 1024)  # several tiles and pieces each way, none of them full
    found = [
        {"dtype": str(dtype), "biased": biased, **errors(sizes, dtype, args.device, biased)} for dtype, biased in cases
    ]
    wrong = [
        row
        for row, (dtype, _) in zip(found, cases)
        if not max(x for x in row.values() if isinstance(x, float)) <= BOUND[dtype]
    ]
    times = [] if small else [{"tokens": m} | timed((m, 151_936, 2048), torch.bfloat16) for m in (1024, 8192)]
    result = json.dumps({"sizes": sizes, "errors": found, "bf16, vocabulary 151,936, hidden 2048": times}, indent=1)
    print(result)
    if args.out is not None:
        args.out.write_text(result + "\n")
    if wrong:
        raise SystemExit(f"the kernels differ from plain torch by more than rounding: {wrong}")


if __name__ == "__main__":
    main()
