"""What the cases of ppo-million-envs call things: a response is a transition of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.settings.ppo_million_envs import co_scaled, stationary_variance
from policyopt.training.config import Optim, TrainConfig


def _recipe(base: Mapping[str, Any], k: int) -> dict[str, Any]:
    transitions = base["num_envs"] * base["horizon"]
    recipe = ppo(epochs=base["epochs"], minibatches=transitions // base["minibatch_size"])
    found = co_scaled(TrainConfig(recipe, batch=transitions, optim=Optim(lr=base["learning_rate"])), k)
    update = found.recipe.update
    return {
        "num_envs": found.batch // base["horizon"],
        "data_per_update": found.batch,
        "minibatch_size": found.batch // update.minibatches,
        "num_minibatches": update.minibatches,
        "learning_rate": found.learning_rate(),
        "sgd_steps_per_update": update.epochs * update.minibatches,
    }


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    variance = given["sigma"] ** 2
    return {
        "recipe": [_recipe(given["base"], k) for k in given["scale"]],
        "stationary_variance": [
            [stationary_variance(eta, variance, n) for n in given["samples"]] for eta in given["eta"]
        ],
    }


CASES = {"schedule": _schedule}
