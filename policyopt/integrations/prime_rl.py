"""Recipes as the loss and the advantage that prime-rl takes by import path; written from its source of August 2026, 0.8.

    [trainer.loss]
    type = "custom"
    import_path = "policyopt.integrations.prime_rl.loss"
    kwargs = { recipe = "gspo", aggregate = "host" }

The loss has the same form since 0.4. The advantage by import path was there from 0.4 to 0.6; from 0.7 on, an algorithm of one's
own assigns advantages, and :func:`credits` is what it can call.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from policyopt.engine.plan import said
from policyopt.errors import UserError
from policyopt.groups import group_mean
from policyopt.integrations.served import PRIME_RL, credited, serve
from policyopt.objective import objective
from policyopt.parts import TokenMean
from policyopt.recipe import Recipe
from policyopt.rows import make_batch, masked_mean

_MADE: dict[str, Recipe] = {}


def loss(inputs: Any, recipe: str, aggregate: Literal["recipe", "host"] = "recipe", **hyper: Any) -> Any:
    """A ``LossOutputs`` for one sequence's ``LossInputs``; ``hyper`` are hyper-parameters of the method.

    prime-rl adds up what sequences return and divides by the number of tokens that the step trains on, over all its
    processes: the mean over tokens. ``aggregate="host"`` puts that in the place of another aggregation of the recipe. Raises
    :class:`~policyopt.errors.UserError` for a recipe that cannot be worked out from a sequence alone.
    """
    from prime_rl.trainer.rl.loss import LossOutputs

    made = _served(recipe, aggregate, hyper)
    mask = inputs.loss_mask.to(inputs.trainer_logprobs.dtype)
    weights = getattr(inputs, "loss_weights", None)  # since 0.7
    batch = make_batch(
        mask=mask[None], old_logp=inputs.inference_logprobs[None], advantage=inputs.advantages[None],
        share=(mask if weights is None else mask * weights)[None],
    ).replace(logp=inputs.trainer_logprobs[None])  # fmt: skip
    value = objective(made, batch)
    with torch.no_grad():
        told = said(made, batch.replace(logp=batch.logp.detach()))
        metrics = {f"policyopt/{name}": masked_mean(x, batch.mask) for name, x in told.items()}
    return LossOutputs(loss=value, metrics=metrics)


def advantage(inputs: Any, recipe: str, aggregate: Literal["recipe", "host"] = "recipe", **hyper: Any) -> Any:
    """An ``AdvantageOutputs`` for the ``AdvantageInputs`` of prime-rl 0.4 to 0.6, which has one number for a response.

    Inputs are rewards and lengths [P, R] of P prompts (0.4, 0.5), or the rollouts of one prompt (0.6).
    """
    from prime_rl.orchestrator.advantage import AdvantageOutputs

    def of(rewards: Tensor, lengths: Tensor) -> Tensor:
        return credits(rewards, lengths, recipe, aggregate, **hyper)

    if hasattr(inputs, "rollouts"):
        from prime_rl.orchestrator.utils import get_model_completion_len

        rewards = torch.tensor([[float(r["reward"]) for r in inputs.rollouts]])
        lengths = torch.tensor([[get_model_completion_len(r) for r in inputs.rollouts]])
        return AdvantageOutputs(advantages=of(rewards, lengths)[0].tolist())
    return AdvantageOutputs(advantages=of(inputs.rewards, inputs.completion_lengths))


def credits(
    rewards: Tensor, lengths: Tensor, recipe: str, aggregate: Literal["recipe", "host"] = "recipe", **hyper: Any
) -> Tensor:
    """Advantages [P, R] from rewards and lengths in tokens of R responses to each of P prompts. A response is right where
    its reward is 1 or more; one whose reward is NaN has the advantage 0 and counts nowhere.

    Raises :class:`~policyopt.errors.UserError` for a recipe that prime-rl cannot serve, and where the tokens of a response
    have advantages of their own.
    """
    made = _served(recipe, aggregate, hyper)
    reward, length = rewards.flatten().float(), lengths.flatten().long()
    group = torch.arange(len(rewards), device=reward.device).repeat_interleave(rewards.shape[1])
    mask = (torch.arange(max(1, int(length.max())), device=reward.device) < length[:, None]).to(reward)
    correct = (reward >= 1).to(reward)
    batch = make_batch(
        mask=mask, group=group, reward=reward, correct=correct, pass_rate=group_mean(correct, group),
        version=torch.zeros_like(group),
    )  # fmt: skip
    found, _ = credited(made, batch)
    first = found.advantage[:, :1]
    if bool(((found.advantage - first) * found.mask).abs().max() > 1e-6):
        raise UserError(
            f"{made.name}: tokens of a response have advantages of their own, and prime-rl takes one number for it"
        )
    return first.reshape(rewards.shape)


def _served(recipe: str, aggregate: str, hyper: dict[str, Any]) -> Recipe:
    """The recipe, made once."""
    if aggregate not in ("recipe", "host"):
        raise UserError(f"aggregate is {aggregate!r}, expected 'recipe' or 'host'")
    key = repr((recipe, aggregate, sorted(hyper.items())))
    if key not in _MADE:
        _MADE[key] = serve(recipe, PRIME_RL, TokenMean() if aggregate == "host" else None, **hyper)
    return _MADE[key]
