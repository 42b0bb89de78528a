"""TRL's GRPOTrainer, with what its documentation recommends for the workload, and every setting with its reason."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, TrainerCallback

from speed.workloads import BETA, LR, Workload

WAYS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-continuous": {"use_transformers_continuous_batching": True},
    "trl-static": {"cache_implementation": "static"},
}
"""Ways of drawing that TRL documents for a machine without vLLM; ``--contenders`` takes each. What the tables show is "trl",
with ``generate``."""


def settings(workload: Workload, dtype: str, steps: int, out: Path) -> dict[str, Any]:
    """The arguments of ``GRPOConfig``."""
    return {
        "output_dir": str(out),
        # A mini-batch is one pass: without accumulation there is the least overhead, and its memory fits.
        "per_device_train_batch_size": workload.responses // workload.minibatches,
        "gradient_accumulation_steps": 1,
        # Mini-batches and epochs share one drawing.
        "steps_per_generation": workload.minibatches,
        "num_iterations": workload.epochs,
        "num_generations": workload.group,
        "max_completion_length": workload.tokens,
        "max_steps": steps,
        # 0 where there is no reference: its model is then never made.
        "beta": BETA * workload.reference,
        "learning_rate": LR,
        # The loss that ours has; the others cost the same.
        "loss_type": "grpo",
        # Both default to True: checkpointing passes every layer twice, and bf16 is emulated on most CPUs.
        "gradient_checkpointing": False,
        "bf16": dtype == "bfloat16",
        "use_cpu": True,
        # Pinned memory is of use to a GPU alone.
        "dataloader_pin_memory": False,
        # The same prompts in the same order as the others.
        "shuffle_dataset": False,
        # Nothing is printed, logged or saved within a step.
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        # Fused AdamW is the default (adamw_torch_fused) where torch has it, as here.
    }


class Ends(LogitsProcessor):
    """Lets row i end by its end token after ``lengths[i]`` tokens, and by no token before: what a trained model's own end
    tokens would do. TRL masks what comes behind."""

    def __init__(self, lengths: list[int], eos: int) -> None:
        self.lengths, self.eos = torch.tensor(lengths), eos
        self.start: int | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        drawn = input_ids.shape[1] - self.start
        last = self.lengths - 1 == drawn
        end = scores[:, self.eos].clone()
        scores[last] = -torch.inf
        scores[:, self.eos] = torch.where(last, end, -torch.inf)
        return scores


class Over(Exception):
    """There is no next step."""


class Turns(TrainerCallback):
    """Hands the word back after every step, and goes on when it is given again."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.peer.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.peer.updates == 0:
            self.peer.done()
            self.peer.wait()


def reward(completions: list[Any], **_: Any) -> list[float]:
    """The same function as ours."""
    return [sum(map(ord, c[0]["content"])) % 7 / 6 for c in completions]


class Peer:
    """A trainer whose loop waits between two steps. ``turn`` is called between steps with the seconds of the last one, and gives
    the number of the next, or ``None`` to end."""

    def __init__(self, workload: Workload, folder: str, dtype: str, scratch: Path, way: str = "trl") -> None:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        self.workload = workload
        self.updates = workload.epochs * workload.minibatches
        self.number, self.start, self.drawing = 0, 0.0, 0.0
        self.turn: Callable[[dict[str, float] | None], int | None] = lambda found: None
        given = settings(workload, dtype, 10**6, scratch) | WAYS[way]
        if workload.mean is None:
            given["generation_kwargs"] = {"min_new_tokens": workload.tokens}  # every response has its full length
        data = Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in workload.questions()])
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        more: dict[str, Any] = {}
        if workload.lora:
            from peft import LoraConfig

            more["peft_config"] = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        self.trainer = GRPOTrainer(
            model=model, reward_funcs=reward, args=GRPOConfig(**given), train_dataset=data, processing_class=tokenizer,
            callbacks=[Turns(self)], **more,
        )  # fmt: skip
        self.watch(self.trainer.model, tokenizer.eos_token_id)

    def watch(self, model: Any, eos: int) -> None:
        """Time what draws, and let every row end after its own length."""
        for name in ("generate", "generate_batch"):
            whole = getattr(model, name, None)
            if whole is not None:
                setattr(model, name, partial(self.timed, whole, eos if name == "generate" else None))

    def timed(self, draw: Callable[..., Any], eos: int | None, *arguments: Any, **keywords: Any) -> Any:
        """What ``draw`` gives."""
        start = time.perf_counter()
        if self.workload.mean is not None:
            if eos is None:
                raise NotImplementedError("continuous batching takes one length for all responses")
            ends = Ends(self.workload.lengths(self.number), eos)
            keywords["logits_processor"] = LogitsProcessorList([ends])
        found = draw(*arguments, **keywords)
        self.drawing += time.perf_counter() - start
        return found

    def held(self) -> int:
        """Bytes of models, gradients and moments."""
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        frozen = [p for p in self.trainer.model.parameters() if not p.requires_grad]
        frozen += [] if self.trainer.ref_model is None else list(self.trainer.ref_model.parameters())
        return sum(p.nbytes for p in frozen) + 4 * sum(p.nbytes for p in trained)

    def serve(self, turn: Callable[[dict[str, float] | None], int | None]) -> None:
        """Train until there is no next turn."""
        self.turn = turn
        self.found: dict[str, float] | None = None
        with contextlib.suppress(Over):  # a wish to stop is only heard after the next step
            self.trainer.train()

    def done(self) -> None:
        """A step has ended."""
        step = time.perf_counter() - self.start
        self.found = {"step": step, "rollout": self.drawing, "update": step - self.drawing}

    def wait(self) -> None:
        """Wait for the next turn; fetching the batch is already part of it."""
        number = self.turn(self.found)
        if number is None:
            raise Over
        self.number, self.drawing, self.start = number, 0.0, time.perf_counter()
