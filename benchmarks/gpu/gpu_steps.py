"""W1 to W5 at the size of a large card: a step of policyopt against bare torch and transformers, in turn, and against TRL.

    python benchmarks/gpu/gpu_steps.py OUT.json [--dry] [--seconds 40] [W1 W3 ...]

The model has random weights, about a billion of them in bfloat16 (W4: two layers, a large head); every response has the length
that the workload says. Ours is a step of the engine: drawing, what other models think, credit, update. Bare is what the documentation
of transformers shows: ``generate``, one forward with all logits for as many rows as they fit for, backward, fused AdamW; its weights
have no float32 copy. Both take a workload's passes equally often. W1 is drawn in each of our ways of decoding besides (a step at a time, several at once, as CUDA
graphs), and run through TRL too, in the same process after the others.
``--dry`` runs all of it on a CPU with a tiny model in float32, to see that it runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, StoppingCriteria

from policyopt.engine.local import LocalEngine
from policyopt.items import Verdict
from policyopt.methods import grpo
from policyopt.models.load import load_policy
from policyopt.models.tokenizer import build_tokenizer
from policyopt.objective import credit
from policyopt.rows import Batch
from policyopt.training.rows import to_batch

VOCABULARY = 151_936
LOGITS = 8 << 30
"""Bytes of logits in float32 that the bare loop holds at once."""

WAYS: dict[str, dict[str, Any]] = {
    "graphs": {},
    "fixed shapes": {"graphs": False},
    "token by token": {"ahead": 1, "fixed": False},
}
"""Ways of decoding by a model's weights: some steps at once as CUDA graphs, as on any card; without graphs; as on a CPU."""


@dataclass(frozen=True)
class Workload:
    """Responses, in groups, to prompts of random ids."""

    responses: int
    group: int
    prompt: int
    tokens: int
    mean: int | None = None
    """Of geometric lengths up to ``tokens``; unset: all are that long."""
    layers: int = 16
    hidden: int = 2048
    passes: int = 1
    """Epochs, of two mini-batches each where there are several."""
    reference: bool = False
    vocabulary: int = VOCABULARY

    @property
    def lengths(self) -> list[int]:
        """Of the responses; the longest is there always."""
        if self.mean is None:
            return [self.tokens] * self.responses
        drawn = np.random.default_rng(0).geometric(1 / self.mean, self.responses).clip(2, self.tokens)
        return [self.tokens, *map(int, drawn[1:])]

    @property
    def minibatches(self) -> int:
        """Of each epoch."""
        return min(2, self.passes)

    def dry(self) -> Workload:
        """The same shape at a size that takes a moment."""
        return replace(
            self, responses=8, group=4, prompt=6, tokens=8, mean=self.mean and 4, layers=2, hidden=32, vocabulary=300
        )


WORKLOADS = {
    "W1": Workload(256, 8, 32, 128),
    "W2": Workload(256, 8, 32, 512, mean=150),
    "W3": Workload(128, 16, 1024, 64),
    "W4": Workload(64, 8, 32, 512, layers=2, hidden=1024),
    "W5": Workload(128, 16, 1024, 64, passes=2, reference=True),
}


def save_model(folder: Path, workload: Workload) -> None:
    """A Qwen3 of random weights, with a tokenizer that names some of its ids."""
    wide, tokenizer = workload.hidden, build_tokenizer(256)
    heads = {"num_attention_heads": max(1, wide // 128), "num_key_value_heads": max(1, wide // 256)}
    config = Qwen3Config(
        vocab_size=workload.vocabulary, hidden_size=wide, num_hidden_layers=workload.layers, head_dim=min(128, wide),
        intermediate_size=3 * wide, max_position_embeddings=4096, tie_word_embeddings=True, **heads,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Contender:
    """Takes steps on a workload."""

    def __init__(self, workload: Workload, folder: Path, device: str, dtype: torch.dtype) -> None:
        self.workload, self.device, self.dtype = workload, device, dtype
        g = torch.Generator().manual_seed(1)
        groups = workload.responses // workload.group
        self.prompts = torch.randint(8, workload.vocabulary, (groups, workload.prompt), generator=g).tolist()

    def draw(self) -> Any:
        """Responses of the lengths of the workload."""
        raise NotImplementedError

    def learn(self, drawn: Any) -> None:
        """All passes over them."""
        raise NotImplementedError

    def step(self) -> dict[str, float]:
        """Seconds of both, and the peak in MiB beyond what was there before."""
        before = memory(self.device, reset=True)
        start = now(self.device)
        drawn = self.draw()
        between = now(self.device)
        self.learn(drawn)
        end = now(self.device)
        peak = (memory(self.device) - before) / 2**20
        return {"step": end - start, "draw": between - start, "learn": end - between, "peak MiB": peak}


class Ours(Contender):
    """The local engine with the recipe of GRPO."""

    def __init__(self, workload: Workload, folder: Path, device: str, dtype: torch.dtype) -> None:
        super().__init__(workload, folder, device, dtype)
        recipe = grpo(kl_coef=0.04 * workload.reference, epochs=workload.passes, group_size=workload.group)
        self.recipe = recipe.set("update.minibatches", workload.minibatches)
        policy = load_policy(str(folder), device=device, dtype=str(dtype).removeprefix("torch."))
        policy.eos = (workload.vocabulary,)  # no id of the model: every response has the length that is asked for
        self.engine = LocalEngine(policy, self.recipe, lr=1e-6)
        self.done = 0

    def draw(self) -> Any:
        self.done += 1
        lengths = iter(self.workload.lengths)
        sampler, g = self.engine.sampler, self.workload.group
        programs = [
            sampler.generate(prompt, n=1, max_tokens=next(lengths), key=(self.done, i), first=j)
            for i, prompt in enumerate(self.prompts)
            for j in range(g)
        ]
        return [response for (response,) in sampler.run(programs)]

    def batch(self, drawn: Any) -> Batch:
        """What was drawn, as if it had been judged, with what other models think of it."""
        count, g = len(drawn), self.workload.group
        verdicts = [Verdict(float(i % 3), bool(i % 3), True, "") for i in range(count)]
        prompts, groups = [self.prompts[i // g] for i in range(count)], [i // g for i in range(count)]
        budget, needs = self.workload.tokens, self.recipe.needs
        batch = to_batch(prompts, drawn, verdicts, groups, budget, self.engine.dtype, needs)
        return self.engine.annotate(batch.to(self.engine.device), self.recipe)

    def learn(self, drawn: Any) -> None:
        batch = credit(self.recipe, self.engine.prepare(self.batch(drawn), self.recipe))
        for _ in range(self.workload.passes):
            for rows in torch.arange(len(drawn), device=self.engine.device).chunk(self.workload.minibatches):
                self.engine.update(self.recipe, batch[rows])


def drawn_in_ways(ours: Ours) -> dict[str, dict[str, Any]]:
    """Drawing the same three times in each way: tokens in a second, the last time, and in how many rows the tokens are others than
    those of graphs and by how much log-probabilities differ, as far as tokens are the same; and why there are no graphs."""
    sampler, found = ours.engine.sampler, {}
    first: Any = None
    for way, settings in WAYS.items():
        sampler.stepper.queue(**settings)
        for _ in range(3):  # shapes that come once in a drawing are recorded in the second
            ours.done = 0
            start = now(ours.device)
            drawn = ours.draw()
            seconds = now(ours.device) - start
        first = first or drawn
        apart = [difference(x, y) for x, y in zip(drawn, first, strict=True)]
        found[way] = {
            "tokens/s": sum(len(r.tokens) for r in drawn) / seconds, "note": sampler.stepper.note,
            "other rows": sum(other for other, _ in apart), "logp": max(gap for _, gap in apart),
        }  # fmt: skip
    sampler.stepper.queue()
    return found


def difference(one: Any, other: Any) -> tuple[bool, float]:
    """Whether the tokens of two responses differ, and the largest difference of log-probabilities up to there."""
    pairs = list(zip(one.tokens, other.tokens, strict=True))
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    gaps = [abs(a - b) for a, b in zip(one.logp[:same], other.logp[:same], strict=True)]
    return same < len(pairs), max(gaps, default=0.0)


class Ends(StoppingCriteria):
    """Row i has ended after so many tokens of its own."""

    def __init__(self, lengths: list[int], prompt: int, device: str) -> None:
        self.at = torch.tensor(lengths, device=device) + prompt

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        return input_ids.shape[1] >= self.at


class Bare(Contender):
    """torch and transformers alone."""

    def __init__(self, workload: Workload, folder: Path, device: str, dtype: torch.dtype) -> None:
        super().__init__(workload, folder, device, dtype)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.reference = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval() if workload.reference else None
        )
        self.model.generation_config.eos_token_id = None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        self.ids = torch.tensor(self.prompts, device=device).repeat_interleave(workload.group, 0)

    @torch.no_grad()
    def draw(self) -> Any:
        w = self.workload
        ends = [Ends(w.lengths, w.prompt, self.device)]
        return self.model.generate(
            self.ids, max_new_tokens=w.tokens, do_sample=True, top_k=0, pad_token_id=0, stopping_criteria=ends
        )

    def learn(self, drawn: Any) -> None:
        w = self.workload
        length = torch.tensor(w.lengths, device=self.device)
        mask = torch.arange(drawn.shape[1] - w.prompt, device=self.device) < length[:, None]
        weight = mask * torch.randn(len(drawn), 1, device=self.device) / mask.sum()
        rows = max(1, LOGITS // (4 * w.tokens * w.vocabulary))
        if self.reference is not None:
            with torch.no_grad():
                [self.logp(self.reference, piece) for piece in drawn.split(rows)]
        for _ in range(w.passes):
            for half in torch.arange(len(drawn), device=self.device).chunk(w.minibatches):
                for places in half.split(rows):
                    (-(weight[places] * self.logp(self.model, drawn[places])).sum()).backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()

    def logp(self, model: Any, ids: Tensor) -> Tensor:
        """[N, T] of the responses."""
        n = self.workload.prompt
        logits = model(ids, use_cache=False, logits_to_keep=ids.shape[1] - n + 1).logits[:, :-1]
        return torch.log_softmax(logits.float(), -1).gather(-1, ids[:, n:, None])[..., 0]


def peer(workload: Workload, folder: Path, device: str, dtype: torch.dtype, seconds: float) -> dict[str, float]:
    """The median step of TRL's GRPOTrainer on prompts of the same length, drawn by ``generate``."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    found: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = now(device)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            found.append(now(device) - self.start)
            control.should_training_stop = sum(found) > seconds and len(found) > 1

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    words = [tokenizer.decode(range(10, 10 + workload.prompt // 2)) + str(i) for i in range(workload.responses)]
    with tempfile.TemporaryDirectory() as out:
        settings = GRPOConfig(
            output_dir=out, per_device_train_batch_size=workload.responses, num_generations=workload.group, max_steps=4,
            max_completion_length=workload.tokens, beta=0.0, learning_rate=1e-6, loss_type="grpo", logging_strategy="no",
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=device == "cpu", bf16=dtype == torch.bfloat16,
            gradient_checkpointing=False, generation_kwargs={"min_new_tokens": workload.tokens},
            use_liger_kernel=device != "cpu" and available("liger_kernel"),
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), processing_class=tokenizer, args=settings,
            reward_funcs=lambda completions, **_: [float(len(c) % 3) for c in completions],
            train_dataset=Dataset.from_list([{"prompt": text} for text in words]), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return {"step": statistics.median(found[1:] or found), "steps": len(found)}


def available(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def now(device: str) -> float:
    """The clock, after the device has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def memory(device: str, reset: bool = False) -> int:
    """Bytes of tensors on the card: now, or at the most since the last ``reset``."""
    if device != "cuda":
        return 0
    if reset:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return torch.cuda.max_memory_allocated()


def compared(name: str, workload: Workload, device: str, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Both in turn, after a step that warms up, until the time is over; medians, and the median of the ratios of a turn."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_model(folder, workload)
        contenders = {"ours": Ours, "bare": Bare}
        made = {who: make(workload, folder, device, dtype) for who, make in contenders.items()}
        turns: list[dict[str, dict[str, float]]] = []
        start = time.perf_counter()
        while len(turns) < 2 or (len(turns) < 6 and time.perf_counter() - start < seconds):
            turns.append({who: contender.step() for who, contender in made.items()})
        turns = turns[1:]
        out: dict[str, Any] = {
            who: {key: statistics.median(t[who][key] for t in turns) for key in turns[0][who]} for who in made
        }
        out["ours over bare"] = {
            key: statistics.median(t["ours"][key] / t["bare"][key] for t in turns) for key in ("step", "draw", "learn")
        }
        out |= {"turns": len(turns), "workload": workload.__dict__, "passes": plain(made["ours"].engine.passes)}
        if name == "W1":
            out["ways of decoding"] = attempted(lambda: drawn_in_ways(made["ours"]))
        if name == "W1" and available("trl"):
            made.clear()
            gc.collect()
            out["trl"] = attempted(lambda: peer(workload, folder, device, dtype, seconds / 2))
    return out


def plain(passes: Any) -> dict[str, int]:
    """Tokens that each model scored, as JSON takes it."""
    return {f"{role}{' with gradient' if learns else ''}": n for (role, learns), n in passes.items()}


def attempted(f: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is found, or why not: the rest goes on."""
    try:
        return f()
    except Exception as error:  # memory that ran out, a version that takes other settings
        return {"error": f"{type(error).__name__}: {str(error)[:500]}"}


def main() -> None:
    """Run the workloads, print, write after each; fail where one did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help=" ".join(WORKLOADS))
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0, help="for the turns of a workload")
    args = parser.parse_args()
    device, dtype = ("cpu", torch.float32) if args.dry else ("cuda", torch.bfloat16)
    found: dict[str, Any] = {}
    for name in args.names or WORKLOADS:
        workload = WORKLOADS[name].dry() if args.dry else WORKLOADS[name]
        found[name] = attempted(
            lambda n=name, w=workload: compared(n, w, device, dtype, 0 if args.dry else args.seconds)
        )
        print(name, json.dumps(found[name]), flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    if wrong := [name for name, row in found.items() if "error" in row]:
        raise SystemExit(f"did not run: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
