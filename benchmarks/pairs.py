"""What a DPO step on given pairs costs beside TRL's DPOTrainer (docs/speed.md says how contenders are measured).

    pip install -e '.[bench]'
    python benchmarks/pairs.py [--rounds 7] [--dtype float32] [--workloads small vocabulary]

Every contender has a process of its own, and one step of each alternates. All see the same ids in the same batches; every step
is a pass over the data. "ours" has met the texts before, so that the reference makes no pass; "ours-first" keeps nothing, as in the
first pass of a run; "trl" passes its reference in each step, and "trl-precomputed" has its numbers before the first
(``precompute_ref_log_probs``). Writes ``benchmarks/results/pairs.json`` and ``pairs.md``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

from speed import memory
from speed.contender import Channel
from speed.peer import Over, Turns
from speed.workloads import LR, Workload

if TYPE_CHECKING:
    from speed.turns import Measured

NAMES = ("ours", "ours-first", "trl", "trl-precomputed")
RESULTS = Path(__file__).parent / "results"
BETA = 0.1
FORMS = ("{:.3f}", "{:.2f}", "{:.0f}", "{:.2f}")


@dataclass(frozen=True)
class PairWork(Workload):
    """``prompts`` pairs a step; a response has between half of ``tokens`` and one and a half times as many."""

    group: int = 2

    def texts(self) -> list[tuple[str, str, str]]:
        """Question, chosen and rejected text of each pair."""
        from policyopt.models.tokenizer import ALPHABET

        dice, signs = random.Random(1), ALPHABET.strip()

        def text() -> str:
            return "".join(dice.choices(signs, k=dice.randint(self.tokens // 2, self.tokens * 3 // 2)))

        return [(question, text(), text()) for question in self.questions()]


WORK = {
    "small": PairWork("small", "1 million parameters, 16 pairs, prompts of 128 tokens, responses of 32 to 96", 16, prompt=128, tokens=64),
    "long": PairWork("long", "the same, responses of 128 to 384 tokens", 8, prompt=128, tokens=256, shape={"positions": 1024}),
    "vocabulary": PairWork(
        "vocabulary", "vocabulary of 150,000, width 256, 4 pairs, prompts of 128 tokens, responses of 32 to 96", 4,
        prompt=128, tokens=64, vocabulary=150_000, shape={"hidden": 256, "layers": 4, "heads": 8, "kv_heads": 8, "inner": 768},
    ),
}  # fmt: skip


class Ours:
    """A run without its evaluations and checkpoints."""

    def __init__(self, workload: PairWork, folder: str, dtype: str, scratch: Path, name: str) -> None:
        from policyopt.engine.local import LocalEngine
        from policyopt.items import Example, user
        from policyopt.methods import dpo
        from policyopt.models.load import load_policy
        from policyopt.training.collect import Collector
        from policyopt.training.config import TrainConfig
        from policyopt.training.console import Console
        from policyopt.training.logging import RunLog
        from policyopt.training.loop import State, Trainer
        from policyopt.training.prompts import PromptStream

        recipe = dpo(beta=BETA)
        config = TrainConfig(
            recipe=recipe, model=folder, batch=workload.responses, steps=10**6, log_samples=0, out=scratch, dtype=dtype
        )
        policy = load_policy(folder, device="cpu", dtype=dtype)
        scratch.mkdir(parents=True, exist_ok=True)
        self.engine = LocalEngine(policy, recipe, lr=LR, keep=scratch / "given" if name == "ours" else None)
        examples = [
            Example(str(i), user(question), "", chosen=chosen, rejected=rejected)
            for i, (question, chosen, rejected) in enumerate(workload.texts())
        ]
        stream = PromptStream(examples, policy.text, seed=0, longest=policy.context, skip=False)
        self.log = RunLog(scratch)
        collector = Collector(self.engine, stream, None, 2 * workload.tokens, 0)
        self.trainer = Trainer(
            config, self.engine, collector, None, self.log, Console({}, 0, quiet=True), scratch, State(recipe)  # type: ignore[arg-type]
        )  # fmt: skip

    def held(self) -> int:
        """Bytes of models, gradients and moments."""
        policy, reference = self.engine.policy.model, self.engine.roles["reference"].model
        return 4 * sum(p.nbytes for p in policy.parameters()) + sum(p.nbytes for p in reference.parameters())

    def serve(self, turn: Callable[[dict[str, float] | None], int | None]) -> None:
        """Train until there is no next turn."""
        found = None
        while turn(found) is not None:
            start = time.perf_counter()
            metrics = self.trainer.step()
            self.log.metrics(self.trainer.state.step, metrics)
            found = {"step": time.perf_counter() - start, "rollout": 0.0, "loss": metrics["loss"]}
            found |= {"tokens": metrics["tokens"], "reference": metrics["tokens/reference"]}


class Peer:
    """TRL's trainer, whose loop waits between two steps."""

    updates = 1

    def __init__(self, workload: PairWork, folder: str, dtype: str, scratch: Path, name: str) -> None:
        import torch
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import DPOConfig, DPOTrainer

        from policyopt.items import user
        from policyopt.models.load import load_text

        class Exact(DPOTrainer):
            """The ids are those of the others: nothing is left to tokenize."""

            def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
                return dataset

        text, _ = load_text(folder)
        rows = [
            {"prompt_ids": text.prompt(user(question)), "chosen_ids": text.given(chosen), "rejected_ids": text.given(rejected)}
            for question, chosen, rejected in workload.texts()
        ]  # fmt: skip
        self.tokens = sum(len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)
        given = DPOConfig(
            output_dir=str(scratch), per_device_train_batch_size=workload.prompts, max_steps=10**6, beta=BETA,
            max_length=None, learning_rate=LR, precompute_ref_log_probs=name == "trl-precomputed",
            # Both default to True: checkpointing passes every layer twice, and bf16 is emulated on most CPUs.
            gradient_checkpointing=False, bf16=dtype == "bfloat16",
            use_cpu=True, dataloader_pin_memory=False, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        models = [AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)) for _ in range(2)]
        self.trainer = Exact(
            model=models[0], ref_model=models[1], args=given, train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder), callbacks=[Turns(self)],  # type: ignore[arg-type]
        )  # fmt: skip

    def held(self) -> int:
        """Bytes of models, gradients and moments; the reference is one of them wherever it was loaded."""
        size = sum(p.nbytes for p in self.trainer.model.parameters())
        return 4 * size + (0 if self.trainer.ref_model is None else size)

    def serve(self, turn: Callable[[dict[str, float] | None], int | None]) -> None:
        """Train until there is no next turn."""
        self.turn, self.found = turn, None
        try:
            self.trainer.train()
        except Over:
            pass

    def done(self) -> None:
        """A step has ended."""
        self.found = {"step": time.perf_counter() - self.start, "rollout": 0.0, "tokens": self.tokens}  # type: ignore[assignment]

    def wait(self) -> None:
        """Wait for the next turn; fetching the batch is already part of it."""
        if self.turn(self.found) is None:
            raise Over
        self.start = time.perf_counter()


def serve(name: str, channel: Channel) -> None:
    """One contender in a process of its own: load and step as the parent asks."""
    ours = name.startswith("ours")
    for module in (
        ("policyopt.training.loop", "policyopt.engine.local")
        if ours
        else ("trl.trainer.dpo_trainer", "policyopt.models.load")
    ):
        importlib.import_module(module)
    while asked := channel.receive():
        if "load" not in asked:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            memory.trim()
            before = memory.now()
            made = (Ours if ours else Peer)(
                PairWork(**asked["load"]), asked["folder"], asked["dtype"], Path(scratch), name
            )
            memory.trim()
            channel.send({"process": before, "held": made.held() / 2**20})

            def turn(found: dict[str, float] | None) -> int | None:
                if found is not None:
                    found["peak"] = memory.peak()
                    channel.send(found)
                message = channel.receive()
                memory.reset()
                return message.get("step")

            made.serve(turn)


def contend(name: str) -> None:
    """The whole life of a contender's process."""
    channel = Channel()
    try:
        serve(name, channel)
    except BaseException as error:
        traceback.print_exc()
        channel.send({"error": f"{type(error).__name__}: {error}"[:300]})
        raise SystemExit(1) from None


def say(text: str) -> None:
    """Progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def told(measured: Measured, names: Sequence[str]) -> dict[str, Any]:
    """What each contender took: medians, and medians of the ratios to ours."""
    out = {}
    for who in (n for n in names if measured.rows.get(n)):
        ratio, above, ours = measured.ratio(who, "ours"), measured.above(who), measured.above("ours")
        out[who] = {
            "step": measured.median(who, "step"),
            "above": above,
            **measured.begun[who],
            "rounds": len(measured.rows[who]),
        }
        out[who] |= {"slower": ratio, "larger": above / ours if above and ours else None}
        out[who] |= {key: measured.median(who, key) for key in ("tokens", "reference")}
    return out


def table(found: dict[str, Any]) -> str:
    """What was measured, as a page."""
    out = ["# Pairs: a DPO step beside TRL's DPOTrainer", "", "`python benchmarks/pairs.py`; times in seconds, memory in MiB above process, models, gradients and moments. \"ours\" is the second pass over the data, \"ours-first\" the first; \"trl-precomputed\" has its reference's numbers before the first step.", ""]  # fmt: skip
    out += ["| work | contender | step | x ours | above | x ours |", "| --- | --- | --- | --- | --- | --- |"]
    for work in found.values():
        for name, row in work["contenders"].items():
            numbers = (row["step"], row["slower"], row["above"], row["larger"])
            cells = ["" if x is None else form.format(x) for x, form in zip(numbers, FORMS, strict=True)]
            out.append(f"| {work['title']} | {name} | {' | '.join(cells)} |")
    return "\n".join([*out, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--workloads", nargs="+", choices=list(WORK), default=list(WORK))
    ask.add_argument("--contenders", nargs="+", choices=NAMES, default=list(NAMES))
    ask.add_argument("--rounds", type=int, default=7, help="steps that count")
    ask.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    ask.add_argument("--out", type=Path, default=RESULTS)
    ask.add_argument("--contender", help=argparse.SUPPRESS)
    args = ask.parse_args(arguments)
    if args.contender:
        return contend(args.contender)
    from speed.turns import contenders, measure

    path = args.out / "pairs.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.workloads:
        with contenders(args.contenders, Path(__file__)) as running:
            for measured in measure(WORK[name], running, args.rounds, args.dtype, say):
                found[name] = {"title": WORK[name].title, "contenders": told(measured, args.contenders)}
                args.out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1))
                (args.out / "pairs.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
