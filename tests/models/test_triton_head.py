"""The fused head is the plain one: its kernels run in Triton's interpreter here, and compile for cards that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need Triton (pip install triton); torch for CUDA brings it")

from policyopt.models import head

ROOT = Path(__file__).parents[2]


def test_values_and_gradients_are_those_of_the_plain_head(tmp_path: Path) -> None:
    out = tmp_path / "fused_head.json"
    command = [sys.executable, str(ROOT / "benchmarks/gpu/fused_head.py"), "--device", "cpu", str(out)]
    # Triton settles where it is imported whether it interprets, so that this needs a process of its own.
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    exact, short = json.loads(out.read_text())["errors"]
    assert exact["dtype"] == "torch.float32" and short["dtype"] == "torch.float16"
    assert {"logp", "entropy", "by hidden", "by weight", "by bias", "into weight", "into bias"} < exact.keys()
    assert max(x for name, x in exact.items() if name not in ("dtype", "biased")) < 1e-4
    assert max(short["logp"], short["entropy"]) < 1e-5, "sums over the vocabulary are in float32 for 16 bits too"


def test_the_kernels_take_over_on_a_gpu_where_they_fit() -> None:
    def on_gpu(dtype: torch.dtype) -> Any:
        return SimpleNamespace(is_cuda=True, dtype=dtype)

    short = on_gpu(torch.bfloat16)
    assert head.kernels(short, short).__name__ == "policyopt.models.triton_head"
    assert head.kernels(short, torch.ones(1)) is None, "of two types"
    assert head.kernels(on_gpu(torch.float64), on_gpu(torch.float64)) is None, "tests in float64 stay exact"
    assert head.kernels(torch.ones(1), torch.ones(1)) is None


def test_the_kernels_compile_for_cards_and_fit_their_shared_memory() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from policyopt.models import triton_head as kernels

    sizes = kernels._sizes(torch.empty(1, dtype=torch.bfloat16))
    constants: dict[str, Any] = {**sizes, "BIASED": True, "ENTROPY": True}
    kinds = dict.fromkeys(("hidden", "weight", "bias", "out"), "*bf16") | {"target": "*i64"}
    kinds |= dict.fromkeys(("m", "v", "width", "each", "first", "panel"), "i32") | dict.fromkeys(constants, "constexpr")
    options = {name: sizes[name] for name in ("num_warps", "num_stages")}
    for kernel in (kernels._summed, kernels._differentiated):
        names = kernel.arg_names
        source = ASTSource(
            kernel,
            signature={name: kinds.get(name, "*fp32") for name in names},
            constexprs={(names.index(name),): x for name, x in constants.items() if name in names},
            attrs={(names.index(name),): [["tt.divisibility", 16]] for name in ("hidden", "weight", "width")},
        )
        made = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert "wgmma" in made.asm["ptx"], "matrix products do not run on tensor cores"
        assert made.metadata.shared <= 99 << 10
