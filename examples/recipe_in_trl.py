"""A recipe in TRL's trainer: ``python examples/recipe_in_trl.py [METHOD]`` trains the embedded model on sums with TRL's loop.

It prints the mean reward of every fifth step. Needs TRL (``pip install 'policyopt[trl]'``).
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from policyopt.data import load_task
from policyopt.integrations.trl import RecipeTrainer, config
from policyopt.models.embedded import build_embedded
from policyopt.own import resolve

PROMPTS, STEPS = 16, 20


def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """1 where the last word of the response is the answer."""
    last = [(c[0]["content"].split() or [""])[-1] for c in completions]
    return [float(word == wanted) for word, wanted in zip(last, answer, strict=True)]


def main(method: str) -> list[float]:
    """Train, and return the mean reward of every step."""
    task = load_task("chain_sum")
    folder = str(build_embedded(task))
    recipe = resolve(method)()
    rows = [{"prompt": [*map(dict, e.prompt)], "answer": e.answer} for e in list(task.train[: PROMPTS * STEPS])]
    with tempfile.TemporaryDirectory() as out:
        trainer = RecipeTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
            recipe=recipe,
            reward_funcs=right,
            train_dataset=Dataset.from_list(rows),
            args=config(
                recipe, output_dir=out, per_device_train_batch_size=PROMPTS * recipe.source.size // recipe.update.minibatches,
                max_completion_length=task.max_tokens, max_steps=STEPS * recipe.update.minibatches * recipe.update.epochs,
                learning_rate=1e-4, lr_scheduler_type="constant", weight_decay=0.0, logging_steps=1, save_strategy="no",
                report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
            ),
        )  # fmt: skip
        trainer.train()
    return [row["reward"] for row in trainer.state.log_history if "reward" in row]


if __name__ == "__main__":
    rewards = main(sys.argv[1] if len(sys.argv) > 1 else "bapo")
    print(" ".join(f"{x:.3f}" for x in rewards[::5]), f"... {rewards[-1]:.3f}")
