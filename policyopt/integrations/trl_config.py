"""The settings of TRL's trainer that a recipe has, and those in whose place it stands; the one place that imports TRL."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from policyopt.errors import UserError
from policyopt.integrations.served import TRL, serve
from policyopt.recipe import Recipe
from policyopt.registry import Method

try:
    import trl
    from trl.models.utils import disable_gradient_checkpointing
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError as error:
    raise UserError(f"policyopt.integrations.trl needs TRL 1.16 ({error}): pip install 'policyopt[trl]'") from error
if not trl.__version__.startswith(
    "1.16."
):  # its private methods are overridden, which another version may call otherwise
    raise UserError(
        f"policyopt.integrations.trl is for TRL 1.16, and {trl.__version__} is here: pip install 'policyopt[trl]'"
    )

Base: Any = GRPOTrainer
"""What a recipe is put into."""
without_checkpointing: Any = disable_gradient_checkpointing
"""A context in which a model keeps its activations."""
DECIDED = (
    "loss_type", "beta", "epsilon", "epsilon_high", "delta", "importance_sampling_level", "scale_rewards",
    "multi_objective_aggregation", "mask_truncated_completions", "top_entropy_quantile", "entropy_coef",
    "use_adaptive_entropy", "off_policy_mask_threshold", "use_bias_correction_kl", "sync_ref_model",
    "sapo_temperature_pos", "sapo_temperature_neg", "vespo_k_pos", "vespo_k_neg", "vespo_lambda_pos", "vespo_lambda_neg",
    "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_min", "vllm_importance_sampling_clip_max",
)  # fmt: skip
"""Fields of ``GRPOConfig`` in whose place the recipe stands."""


def config(recipe: str | Path | Recipe | Method, **settings: Any) -> Any:
    """A ``GRPOConfig`` with the numbers that the recipe has (responses to a prompt, temperature, passes, mini-batches), and
    ``settings`` for the rest.

    Raises :class:`~policyopt.errors.UserError` for a recipe that TRL's loop cannot serve, or a setting that contradicts it.
    """
    made = serve(recipe, TRL)
    args = GRPOConfig(**_wanted(made, settings.get("gradient_accumulation_steps", 1)) | settings)
    check(made, args)
    return args


def _wanted(recipe: Recipe, accumulation: int) -> dict[str, Any]:
    """The fields that follow from the recipe."""
    source, update = recipe.source, recipe.update
    return {
        "num_generations": source.size, "temperature": source.temperature, "num_iterations": update.epochs,
        "steps_per_generation": accumulation * update.minibatches,
    }  # fmt: skip


def check(recipe: Recipe, args: Any) -> None:
    """Refuse settings that the recipe contradicts, or decides."""
    default = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    wrong = [
        f"{name} is {getattr(args, name)!r}, and the recipe decides that: leave it at {default[name]!r} and change the recipe"
        for name in DECIDED
        if getattr(args, name) != default[name]
    ]
    whole = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
    for name, value in (_wanted(recipe, args.gradient_accumulation_steps) | whole).items():
        if getattr(args, name) != value and not (name == "min_p" and args.min_p == 0):
            wrong.append(f"{name} is {getattr(args, name)!r}, and {recipe.name} has {value!r}")
    if args.max_completion_length is None:
        wrong.append("max_completion_length is None: set how many tokens a response may have")
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    if recipe.gathers and recipe.update.minibatches > 1 and rows % recipe.source.size:
        wrong.append(
            f"{rows} responses of a process in an optimiser step are no whole groups of {recipe.source.size}, and the loss couples "
            "rows: change per_device_train_batch_size or gradient_accumulation_steps, or recipe.set('update.minibatches', 1)"
        )
    if wrong:
        raise UserError(
            f"GRPOConfig: {'; '.join(wrong)}. policyopt.integrations.trl.config(recipe, ...) makes one that agrees"
        )
