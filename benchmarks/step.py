"""Seconds of one GRPO step: bare transformers (the floor), TRL's GRPOTrainer, and policyopt, in one run and in turn.

All three train the same model on the same prompts: 8 prompts with 8 responses of exactly 32 tokens each, no reference model, one AdamW
step. The floor is what nobody who uses ``generate`` can avoid: ``generate``, one forward with gradient, one backward, one optimiser step, with
no rewards and no logging. Ours is the whole step of the trainer: drawing, judging in a worker process, updating, metrics.

    pip install -e '.[bench]'
    python benchmarks/step.py [--steps 10] [--responses 64] [--tokens 32]

Prints a table and writes ``benchmarks/results/step.md`` and ``step.json``. Times are medians; the ratios are medians of the ratios of
steps that ran one after the other, so that a machine whose speed drifts does not spoil them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from policyopt.engine.local import LocalEngine
from policyopt.items import Example, JudgeSpec, user
from policyopt.judging.pool import JudgePool
from policyopt.methods import grpo
from policyopt.models.embedded import Architecture
from policyopt.models.load import load_policy
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import build_tokenizer
from policyopt.training.collect import Collector
from policyopt.training.config import TrainConfig
from policyopt.training.console import Console
from policyopt.training.logging import RunLog
from policyopt.training.loop import State, Trainer
from policyopt.training.prompts import PromptStream

GROUP = 8
PROMPTS = [
    f"{10 + i % 80}+{20 + 3 * (i % 20)}-{15 + i % 50}=?" for i in range(64)
]  # all of one length, so the floor needs no padding


class PeakMemory:
    """Peak resident memory of this process since the last reset, in MiB (Linux)."""

    @staticmethod
    def reset() -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def read() -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return float("nan")


class Floor:
    """Bare transformers: generate, forward, backward, step."""

    def __init__(self, folder: str, prompts: int, tokens: int) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.ids = torch.tensor([encode_prompt(tokenizer, user(p)) for p in PROMPTS[:prompts]]).repeat_interleave(
            GROUP, 0
        )
        self.tokens, self.pad = tokens, tokenizer.pad_token_id
        self.model.generation_config.eos_token_id = None  # every response has its full length
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)

    def step(self) -> dict[str, float]:
        start = time.perf_counter()
        self.model.eval()
        with torch.no_grad():
            full = self.model.generate(self.ids, max_new_tokens=self.tokens, do_sample=True, pad_token_id=self.pad)
        drawn = time.perf_counter()
        logits = self.model(full, use_cache=False).logits[:, self.ids.shape[1] - 1 : -1]
        logp = torch.log_softmax(logits, -1).gather(-1, full[:, self.ids.shape[1] :, None])
        (-logp.mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return {"step": end - start, "rollout": drawn - start, "update": end - drawn}


class Ours:
    """The trainer of policyopt, one step at a time."""

    def __init__(self, folder: str, prompts: int, tokens: int, out: Path) -> None:
        recipe = grpo(kl_coef=0.0, group_size=GROUP)
        config = TrainConfig(recipe=recipe, model=folder, batch=prompts * GROUP, steps=10**6, log_samples=0, out=out)
        policy = load_policy(folder, device="cpu")
        policy.eos = (policy.model.config.vocab_size,)  # no token of the model: every response has its full length
        engine = LocalEngine(policy, recipe, lr=1e-6)
        examples = [Example(str(i), user(p), "7") for i, p in enumerate(PROMPTS[:prompts])]
        stream = PromptStream(examples, policy.text, seed=0, longest=500, skip=False)
        self.judge, self.log = JudgePool(JudgeSpec("exact")), RunLog(out)
        collector = Collector(engine, stream, self.judge, tokens, 0)
        self.trainer = Trainer(
            config, engine, collector, None, self.log, Console({}, 0, quiet=True), out, State(recipe)
        )  # type: ignore[arg-type]

    def step(self) -> dict[str, float]:
        metrics = self.trainer.step()
        self.log.metrics(self.trainer.state.step, metrics)
        return {name.removeprefix("time/"): x for name, x in metrics.items() if name.startswith("time/")}


def run_trl(folder: str, prompts: int, tokens: int, steps: int, between: Any, out: Path) -> list[dict[str, float]]:
    """Run TRL's trainer; after each of its steps, outside its clock, call ``between``."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    times: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        start = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            PeakMemory.reset()
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append({"step": time.perf_counter() - self.start, "memory": PeakMemory.read()})
            between()

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(c[0]["content"].strip() == "7") for c in completions]

    settings = GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=prompts * GROUP, num_generations=GROUP, max_completion_length=tokens,
        max_steps=steps, beta=0.0, learning_rate=1e-6, logging_strategy="no", save_strategy="no", report_to="none", use_cpu=True,
        bf16=False, gradient_checkpointing=False, disable_tqdm=True, generation_kwargs={"min_new_tokens": tokens}, loss_type="grpo",
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": p}]} for p in PROMPTS[:prompts]])
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=settings,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    return times


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--responses", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--warmup", type=int, default=2)
    args = parser.parse_args()
    prompts = args.responses // GROUP
    times: dict[str, list[dict[str, float]]] = {"transformers (floor)": [], "policyopt": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "model")
        tokenizer = build_tokenizer()
        Architecture().build(tokenizer, 0).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        floor = Floor(folder, prompts, args.tokens)
        ours = Ours(folder, prompts, args.tokens, Path(scratch) / "ours")

        def between() -> None:
            for name, contender in (("transformers (floor)", floor), ("policyopt", ours)):
                PeakMemory.reset()
                times[name].append(contender.step() | {"memory": PeakMemory.read()})

        times["TRL GRPOTrainer"] = run_trl(
            folder, prompts, args.tokens, args.steps + args.warmup, between, Path(scratch) / "trl"
        )
        ours.judge.close()
    report(times, args)


def report(times: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    """Medians and paired ratios as a table on the screen, as Markdown and as JSON."""
    import trl

    import policyopt

    kept = {name: rows[args.warmup :] for name, rows in times.items()}

    def median(name: str, key: str) -> float | None:
        values = [row[key] for row in kept[name] if key in row]
        return statistics.median(values) if values else None

    def ratio(name: str, other: str) -> float:
        return statistics.median(a["step"] / b["step"] for a, b in zip(kept[name], kept[other], strict=True))

    rows = []
    for name in ("transformers (floor)", "policyopt", "TRL GRPOTrainer"):
        found = {key: median(name, key) for key in ("step", "rollout", "judge", "update", "memory")}
        rows.append(
            {
                "what": name,
                **found,
                "over floor": ratio(name, "transformers (floor)"),
                "over TRL": ratio(name, "TRL GRPOTrainer"),
            }
        )
    head = ["what", "s/step", "rollout", "judge", "update", "peak MiB", "x floor", "x TRL"]
    shown = [
        [
            r["what"],
            *("" if r[k] is None else f"{r[k]:.3f}" for k in ("step", "rollout", "judge", "update")),
            f"{r['memory']:.0f}",
            f"{r['over floor']:.2f}",
            f"{r['over TRL']:.2f}",
        ]
        for r in rows
    ]
    table = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *shown)]
    setting = (
        f"{args.responses} responses of {args.tokens} tokens, 1 M parameters, float32, {torch.get_num_threads()} threads, "
        f"median of {args.steps} steps; policyopt {policyopt.__version__}, torch {torch.__version__}, TRL {trl.__version__}, "
        f"Python {platform.python_version()}"
    )
    text = "\n".join(
        [
            "# One GRPO step",
            "",
            setting,
            "",
            *table,
            "",
            "Made by `python benchmarks/step.py`. Peak memory is of the one process that runs all three.",
        ]
    )
    print(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "step.md").write_text(text + "\n")
    (folder / "step.json").write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
