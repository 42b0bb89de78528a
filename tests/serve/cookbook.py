"""A folder in which the recipes of the tinker-cookbook find a model and data under the names that they ask the hub for."""

from __future__ import annotations

import json
from pathlib import Path

from policyopt.models.embedded import Architecture
from policyopt.models.tokenizer import build_tokenizer

MODEL = "Qwen/Qwen3-8B-Base"


def prepare(folder: Path) -> None:
    """A model of 30 thousand parameters, and two datasets of sums."""
    tokenizer = build_tokenizer(2048)
    shape = Architecture(hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=64, positions=2048)
    shape.build(tokenizer, 0).save_pretrained(folder / MODEL)
    tokenizer.save_pretrained(folder / MODEL)
    chats = [
        [{"role": "user", "content": f"What is {i} + 1?"}, {"role": "assistant", "content": str(i + 1)}]
        for i in range(32)
    ]
    _write(folder / "HuggingFaceH4/no_robots/train.jsonl", [{"messages": chat} for chat in chats])
    sums = [{"question": f"What is {i} + 1?", "answer": f"so\n#### {i + 1}"} for i in range(32)]
    _write(folder / "openai/gsm8k/main/train.jsonl", sums)
    (folder / "openai/gsm8k/README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files: main/train.jsonl\n---\n"
    )


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


ARITHMETIC = """
import asyncio, sys
from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder
from tinker_cookbook.rl import train

model, url = sys.argv[1:]
data = ArithmeticDatasetBuilder(
    batch_size=4, model_name_for_tokenizer=model, renderer_name="role_colon", n_batches=2, group_size=4
)
asyncio.run(train.main(train.Config(
    learning_rate=1e-3, dataset_builder=data, model_name=model, recipe_name="recipe_math_rl", max_tokens=12, log_path="ar",
    eval_every=0, save_every=1, renderer_name="role_colon", lora_rank=8, base_url=url, loss_fn="ppo", num_groups_to_log=0,
    kl_penalty_coef=0.1, kl_reference_config=train.KLReferenceConfig(base_model=model),
)))
"""
"""The loop of the cookbook for reinforcement learning on its own sums, with PPO and a KL penalty towards the model itself."""
