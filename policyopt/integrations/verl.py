"""Every recipe that verl's loop can serve, under ``policyopt/METHOD`` among its policy losses and advantage estimators; written
for verl 0.9.1.

:func:`register` puts them there, in every process of verl: ``VERL_USE_EXTERNAL_MODULES=policyopt.integrations.verl_plugin``.
``python -m policyopt.integrations.verl METHOD`` prints the settings that go with a method.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.plan import said
from policyopt.errors import UserError
from policyopt.groups import group_mean
from policyopt.integrations.served import VERL, credited, left, refusals, serve
from policyopt.objective import objective
from policyopt.parts import (
    KL,
    EntropyBonus,
    KLPenalty,
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    TokenMean,
)
from policyopt.recipe import Recipe
from policyopt.registry import Method, methods
from policyopt.rows import make_batch, masked_mean

PREFIX, ACTOR = "policyopt/", "actor_rollout_ref.actor."
MODES = {
    TokenMean: "token-mean",
    SeqMeanTokenMean: "seq-mean-token-mean",
    SeqMeanTokenSum: "seq-mean-token-sum",
    SeqMeanTokenSumNorm: "seq-mean-token-sum-norm",
}
"""What verl calls the aggregations."""
KINDS = {"k1": ("kl", "k1"), "k2": ("mse", "k2"), "k3": ("low_var_kl", "k3"), "abs": ("abs",)}
"""What verl calls the estimates of a KL."""


def register(**recipes: str | Path | Recipe | Method) -> list[str]:
    """Register recipes by name with verl, each as a policy loss and as an advantage estimator ``policyopt/NAME``; without
    arguments every method of the library that verl's loop can serve, at its defaults. Returns the names.

    Call it in every process: in a module of your own that ``VERL_USE_EXTERNAL_MODULES`` names. Raises
    :class:`~policyopt.errors.UserError` for a recipe that the loop cannot serve, and where verl is not installed.
    """
    try:
        import verl
        from verl.trainer.ppo import core_algos
    except ImportError as error:
        raise UserError(f"policyopt.integrations.verl needs verl 0.9.1 ({error}): pip install verl==0.9.1") from error
    if not verl.__version__.startswith("0.9."):
        raise UserError(
            f"policyopt.integrations.verl is for verl 0.9, and {verl.__version__} is here: pip install verl==0.9.1"
        )
    made = {name: serve(recipe, VERL) for name, recipe in recipes.items()} if recipes else everything()
    for name, recipe in made.items():
        core_algos.ADV_ESTIMATOR_REGISTRY.pop(PREFIX + name, None)  # verl refuses a second function of one name
        core_algos.register_adv_est(PREFIX + name)(advantage_of(recipe))
        core_algos.register_policy_loss(PREFIX + name)(loss_of(recipe, core_algos.agg_loss))
    return [PREFIX + name for name in made]


def everything() -> dict[str, Recipe]:
    """The methods of the library that verl's loop can serve, by name."""
    return {name: method() for name, method in methods().items() if not refusals(method(), VERL)}


def advantage_of(recipe: Recipe) -> Callable[..., tuple[Tensor, Tensor]]:
    """A recipe as an advantage estimator of verl."""

    inner, penalty = left(recipe, VERL), any(VERL.adds(s) for s in recipe.shape)

    def advantage(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, config: Any = None, **unread: Any
    ) -> tuple[Tensor, Tensor]:
        """[bs, T] twice: the advantage is its own return, as for verl's estimators without a critic. The reward of a row is
        the sum of its token rewards; it is right where that is 1 or more. Rows of one ``index`` are a group."""
        if config is not None:
            check(recipe, config, "algorithm.")
        if index is None:
            raise UserError("verl gives no uid of the prompts (index): advantages over groups need it")
        mask = response_mask.to(token_level_rewards.dtype)
        reward = token_level_rewards.sum(-1)
        _, numbers = np.unique(np.asarray(index), return_inverse=True)
        group = torch.from_numpy(numbers).to(mask.device)
        correct = (reward >= 1).to(mask)
        rewards = {"reward": 0 * reward, "token_reward": token_level_rewards} if penalty else {"reward": reward}
        batch = make_batch(
            mask=mask, group=group, correct=correct, pass_rate=group_mean(correct, group), version=torch.zeros_like(group),
            **rewards,
        )  # fmt: skip
        found, _ = credited(inner, batch)
        return found.advantage, found.advantage

    return advantage


def loss_of(recipe: Recipe, aggregate: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, dict[str, Any]]]:
    """A recipe as a policy loss of verl; ``aggregate`` is verl's ``agg_loss``.

    The share of each token is the derivative of verl's own aggregation by the loss of the token, with the numbers of the
    global mini-batch that verl hands over, so no split into micro-batches or processes changes the gradient.
    """
    inner = left(recipe, VERL)

    def loss(
        old_log_prob: Tensor, log_prob: Tensor, advantages: Tensor, response_mask: Tensor, loss_agg_mode: str = "token-mean",
        config: Any = None, rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:  # fmt: skip
        """The part of a micro-batch [bs, T] in the loss, and what the recipe's parts tell the log."""
        if config is None:
            raise UserError(f"verl hands no configuration of the actor to the loss of {recipe.name}")
        check(recipe, config, ACTOR)
        mode = MODES[type(recipe.aggregate)]
        whole(config.global_batch_info, mode)
        mask = response_mask.to(log_prob.dtype)
        share = shares_of(aggregate, mask, mode, config.global_batch_info)
        if rollout_is_weights is not None:
            if inner.regularizers:
                raise UserError(
                    f"{recipe.name} has regularizers, which verl's rollout correction does not weigh: turn it off"
                )
            share = share * rollout_is_weights
        batch = make_batch(mask=mask, old_logp=old_log_prob, advantage=advantages, share=share).replace(logp=log_prob)
        value = objective(inner, batch)
        with torch.no_grad():
            told = said(inner, batch.replace(logp=log_prob.detach()))
            metrics = {f"{PREFIX}{name}": float(masked_mean(x, mask)) for name, x in told.items()}
            gap = float(masked_mean(old_log_prob - log_prob, mask))
        return value, metrics | {"actor/ppo_kl": gap}

    return loss


def shares_of(aggregate: Callable[..., Tensor], mask: Tensor, mode: str, info: Mapping[str, Any]) -> Tensor:
    """[bs, T] what verl's aggregation makes of the loss of each token."""
    with torch.enable_grad():
        ones = torch.ones_like(mask, requires_grad=True)
        (share,) = torch.autograd.grad(aggregate(loss_mat=ones, loss_mask=mask, loss_agg_mode=mode, **info), ones)
    return share


def settings(recipe: Recipe) -> dict[str, Any]:
    """What verl has to be told for a recipe, by the path in its configuration."""
    terms = {type(p): p for p in (*recipe.regularizers, *recipe.shape) if VERL.adds(p)}
    kl, bonus, penalty = terms.get(KL), terms.get(EntropyBonus), terms.get(KLPenalty)
    found: dict[str, Any] = {
        "algorithm.adv_estimator": PREFIX + recipe.name,
        "algorithm.use_kl_in_reward": penalty is not None,
        f"{ACTOR}policy_loss.loss_mode": PREFIX + recipe.name,
        f"{ACTOR}loss_agg_mode": MODES[type(recipe.aggregate)],
        f"{ACTOR}use_kl_loss": kl is not None,
        f"{ACTOR}entropy_coeff": bonus.coef if isinstance(bonus, EntropyBonus) else 0,
        f"{ACTOR}ppo_epochs": recipe.update.epochs,
        "actor_rollout_ref.rollout.n": recipe.source.size,
        "actor_rollout_ref.rollout.temperature": recipe.source.temperature,
    }
    if isinstance(penalty, KLPenalty):
        kind = {"kl_ctrl.type": "fixed", "kl_ctrl.kl_coef": penalty.coef, "kl_penalty": KINDS[penalty.estimator][0]}
        found |= {f"algorithm.{name}": x for name, x in kind.items()}
    if isinstance(kl, KL):
        found |= {f"{ACTOR}kl_loss_coef": kl.coef, f"{ACTOR}kl_loss_type": KINDS[kl.estimator][0]}
    if isinstance(recipe.aggregate, SeqMeanTokenSumNorm):
        norm = recipe.aggregate.norm
        found[f"{ACTOR}loss_scale_factor"] = "${data.max_response_length}" if norm is None else norm
    return found


def check(recipe: Recipe, config: Any, place: str) -> None:
    """Refuse a part of verl's configuration under which the loss, or the reward, would not be the recipe's."""
    wanted = {k.removeprefix(place): x for k, x in settings(recipe).items() if k.startswith(place)}
    chosen = ("adv_estimator", "policy_loss.loss_mode")  # verl has come here by these
    given = {name: _at(config, name) for name in wanted if name not in chosen}
    wrong = [
        f"{place}{name} is {x!r}, expected {wanted[name]!r}"
        for name, x in given.items()
        if not _agrees(name, x, wanted[name])
    ]
    if wrong:
        raise UserError(
            f"{recipe.name} in verl: {'; '.join(wrong)}. python -m policyopt.integrations.verl {recipe.name} prints what it needs"
        )


def whole(info: Mapping[str, Any], mode: str) -> None:
    """Refuse a loss that would be normalised over a micro-batch."""
    needed = "batch_num_tokens" if mode == "token-mean" else "global_batch_size"
    if info.get(needed) is None:
        raise UserError(
            f"verl says nothing of the whole mini-batch (global_batch_info has no {needed}): the loss would be normalised over a "
            "micro-batch. Take the engine workers of verl 0.9"
        )


def _at(config: Any, path: str) -> Any:
    """What stands at a path of a configuration, ``None`` for nothing."""
    for name in path.split("."):
        config = None if config is None else config.get(name)
    return config


def _agrees(name: str, given: Any, wanted: Any) -> bool:
    if name in ("kl_loss_type", "kl_penalty"):
        return any(given in names for names in KINDS.values() if wanted in names)
    if name == "loss_scale_factor" and isinstance(wanted, str):  # the budget, which the loss does not see
        return given is not None
    return bool(given == wanted)


def main(argv: list[str]) -> int:
    """Print the settings of verl for a method, as its command line takes them."""
    if len(argv) != 1:
        print("usage: python -m policyopt.integrations.verl METHOD", file=sys.stderr)
        return 2
    try:
        recipe = serve(argv[0], VERL)
    except (UserError, KeyError) as error:
        print(error.args[0], file=sys.stderr)
        return 2
    for path, x in settings(recipe).items():
        print(f"{path}={str(x).lower() if isinstance(x, bool) else x}")
    if recipe.update.minibatches > 1:
        print(
            f"# and actor_rollout_ref.actor.ppo_mini_batch_size: a {recipe.update.minibatches}th of data.train_batch_size"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
