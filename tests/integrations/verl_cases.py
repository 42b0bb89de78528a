"""What is checked inside an environment that has verl: ``python -m tests.integrations.verl_cases``, with the Python of that environment.

Every function ``same_*`` compares recipes with verl's own functions, through the doors by which verl itself calls them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.config import AlgoConfig, KLControlConfig
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import apply_kl_penalty, compute_advantage
from verl.utils import tensordict_utils
from verl.workers.config import ActorConfig, PolicyLossConfig
from verl.workers.utils.losses import ppo_loss

from policyopt.integrations.verl import PREFIX, everything, register, settings
from policyopt.objective import credit, objective, shaped
from policyopt.parts import (
    KL,
    EntropyBonus,
    LogCollision,
    Normalise,
    PPOClip,
    SequenceRatioPerToken,
    TokenMean,
    TruncatedRatio,
)
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.rows import FIXED, make_batch

N, T, P = 8, 7, 3


def rows(seed: int = 0, drift: float = 0.3) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, T + 1, (N,), generator=g)
    length[:2] = torch.tensor([1, T])
    mask = (torch.arange(T) < length[:, None]).float()
    old = -torch.rand(N, T, generator=g) * 3 * mask
    return {
        "response_mask": mask,
        "old_log_prob": old,
        "log_prob": (old + drift * torch.randn(N, T, generator=g)) * mask,
        "advantages": torch.randn(N, 1, generator=g) * mask,
        "reward": torch.rand(N, generator=g),
        "ref": (old + 0.2 * torch.randn(N, T, generator=g)) * mask,
        "entropy": torch.rand(N, T, generator=g) * mask,
    }


def actor(recipe: Recipe, **more: Any) -> ActorConfig:
    """A configuration of the actor as the printed settings make it."""
    head = "actor_rollout_ref.actor."
    given = {k.removeprefix(head): x for k, x in settings(recipe).items() if k.startswith(head)}
    loss_mode = given.pop("policy_loss.loss_mode")
    given = {k: (T if isinstance(x, str) and "${" in x else x) for k, x in given.items()} | more
    policy = PolicyLossConfig(loss_mode=loss_mode)
    return ActorConfig(strategy="fsdp", rollout_n=8, ppo_micro_batch_size_per_gpu=2, policy_loss=policy, **given)


def losses() -> dict[str, tuple[Recipe, str, dict[str, Any]]]:
    """Recipe, verl's loss mode, and its settings."""
    grpo = get_method("grpo")(kl_coef=0.0)
    clip = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    return {
        "vanilla": (grpo.replace(surrogate=PPOClip(low=0.2, high=0.28, dual=3.0), aggregate=TokenMean()), "vanilla", clip),
        "vanilla, means of rows": (grpo.replace(surrogate=PPOClip(low=0.2, high=0.28, dual=3.0)), "vanilla", clip),
        "dr-grpo": (get_method("dr-grpo")(), "vanilla", {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 1e6}),
        "gspo": (
            get_method("gspo")(low=0.02, high=0.03).replace(ratio=SequenceRatioPerToken()), "gspo",
            {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03},
        ),
        "sapo": (get_method("sapo-soft")(), "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
        "cispo": (
            get_method("cispo")().replace(weight=(TruncatedRatio(low=0.2, high=0.2),)), "cispo",
            {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2},
        ),
        "dppo": (
            get_method("dppo")(low=0.03, high=0.02, cap=3.0).replace(aggregate=TokenMean()), "dppo_tv",
            {"clip_ratio_low": 0.03, "clip_ratio_high": 0.02},
        ),
        "dppo, kl": (
            get_method("dppo")("kl", low=0.003, high=0.002, cap=3.0).replace(aggregate=TokenMean()), "dppo_kl",
            {"clip_ratio_low": 0.003, "clip_ratio_high": 0.002},
        ),
        "gmpo": (get_method("gmpo")(), "geo_mean", {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4}),
    }  # fmt: skip


def gradient_of(name: str, config: ActorConfig, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    logp = given["log_prob"].clone().requires_grad_()
    value, metrics = core_algos.get_policy_loss_fn(name)(
        old_log_prob=given["old_log_prob"], log_prob=logp, advantages=given["advantages"],
        response_mask=given["response_mask"].bool(), loss_agg_mode=config.loss_agg_mode, config=config, rollout_is_weights=None,
    )  # fmt: skip
    assert all(isinstance(x, float) for x in metrics.values())
    return value.detach(), torch.autograd.grad(value, logp)[0]


def same_losses() -> None:
    for name, (recipe, theirs, more) in losses().items():
        recipe = recipe.replace(name="case")
        register(case=recipe)
        given = rows()
        config = actor(recipe, **more)
        info = {"dp_size": 2, "batch_num_tokens": int(given["response_mask"].sum()), "global_batch_size": N}
        if theirs == "geo_mean":  # verl's takes the mean over the micro-batch, whatever it is told
            info["dp_size"] = 1
        config.global_batch_info.update(info, loss_scale_factor=config.loss_scale_factor)
        mine, gradient = gradient_of(f"{PREFIX}case", config, given)
        other, wanted = gradient_of(theirs, config, given)
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert float(wanted.abs().max()) > 0


def same_estimators() -> None:
    given, uid = rows(), np.array([f"prompt {i // 4}" for i in range(N)], dtype=object)
    uid = uid[[0, 4, 1, 5, 2, 6, 3, 7]]
    scores = torch.zeros(N, T)
    last = given["response_mask"].sum(1).long() - 1
    scores[torch.arange(N), last] = given["reward"]
    grpo = get_method("grpo")(kl_coef=0.0)
    cases = {
        "grpo": Normalise(),
        "rloo": Normalise(centre="leave-one-out", scale="none"),
        "reinforce_plus_plus_baseline": Normalise(centre="group", scale="none", whiten="token"),
    }
    for theirs, advantage in cases.items():
        register(case=grpo.replace(advantage=advantage))
        found = []
        for name in (f"{PREFIX}case", theirs):
            batch = {"token_level_rewards": scores.clone(), "response_mask": given["response_mask"]}
            data = DataProto.from_dict(tensors=batch, non_tensors={"uid": uid})
            found.append(compute_advantage(data, adv_estimator=name, config=AlgoConfig()).batch["advantages"])
        torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4, msg=lambda m, n=theirs: f"{n}: {m}")
        assert float(found[0].abs().max()) > 0.1


def same_baselines() -> None:
    """Estimators that need more than rewards and groups, or that verl scales in another way."""
    given, uid = rows(3), np.array([f"prompt {i // 4}" for i in range(N)], dtype=object)
    mask, old = given["response_mask"], given["old_log_prob"]
    collision = (2 * old).exp() + 0.2 * torch.rand(N, T, generator=torch.Generator().manual_seed(4))
    scores = torch.zeros(N, T)
    scores[torch.arange(N), mask.sum(1).long() - 1] = given["reward"] + 0.1
    batch = make_batch(mask=mask, reward=given["reward"] + 0.1, old_logp=old, group=torch.arange(N) // 4)
    batch = batch.with_statistics({FIXED + LogCollision().key: collision.log()})
    energy = {"old_log_probs": old, "sum_pi_squared": collision}
    cases: dict[str, tuple[str, dict[str, Any], float]] = {
        "opo": ("opo", {}, 1),
        "gpg": ("gpg", {}, 1),
        "pass-at-k": ("grpo_passk", {"config": AlgoConfig()}, 4),  # a sum over the group here, a mean there
        "otb": ("optimal_token_baseline", energy, 1),
        "otb, several turns": ("tir_optimal_token_baseline", energy, 1),
    }
    more: dict[str, dict[str, Any]] = {
        "pass-at-k": {"k": 4, "form": "pkpo-loo", "scale": "group"},
        "otb, several turns": {"alone": "return"},
    }
    for name, (theirs, told, factor) in cases.items():
        recipe = get_method(name.partition(",")[0])(group_size=4, **more.get(name, {}))
        estimator = core_algos.get_adv_estimator_fn(theirs)
        wanted, _ = estimator(token_level_rewards=scores.clone(), response_mask=mask, index=uid, **told)
        found = credit(recipe, batch).advantage
        torch.testing.assert_close(found, factor * wanted, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert float(found.abs().max()) > 0.1


def same_penalties_in_the_reward() -> None:
    given, uid = rows(2), np.array([f"prompt {i // 4}" for i in range(N)], dtype=object)
    mask, ref = given["response_mask"], given["ref"]
    scores = torch.zeros(N, T)
    scores[torch.arange(N), mask.sum(1).long() - 1] = given["reward"]
    for name in ("rloo", "reinforce-plus-plus"):
        recipe = get_method(name)().set("source.size", 4)
        register(case=recipe)
        told = {k.removeprefix("algorithm."): x for k, x in settings(recipe).items() if k.startswith("algorithm.")}
        config = AlgoConfig(
            use_kl_in_reward=told["use_kl_in_reward"], kl_penalty=told["kl_penalty"],
            kl_ctrl=KLControlConfig(type=told["kl_ctrl.type"], kl_coef=told["kl_ctrl.kl_coef"]),
        )  # fmt: skip
        batch = {
            "token_level_scores": scores.clone(),
            "response_mask": mask,
            "old_log_probs": given["old_log_prob"],
            "ref_log_prob": ref,
        }
        data = DataProto.from_dict(tensors=batch, non_tensors={"uid": uid})
        data, _ = apply_kl_penalty(data, core_algos.get_kl_controller(config.kl_ctrl), kl_penalty=config.kl_penalty)
        found = compute_advantage(data, adv_estimator=f"{PREFIX}case", config=config).batch["advantages"]
        plain = make_batch(
            mask=mask, reward=given["reward"], old_logp=given["old_log_prob"], ref_logp=ref, group=torch.arange(N) // 4
        )
        wanted = credit(recipe, shaped(recipe, plain)).advantage
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def micro_batch(given: dict[str, torch.Tensor], logp: torch.Tensor, some: slice) -> tuple[dict[str, Any], TensorDict]:
    """Rows as the engine workers of verl hand them to the loss, without padding."""
    mask = given["response_mask"][some]
    length = mask.sum(1).long().tolist()

    def ragged(x: torch.Tensor, before: int = 0) -> torch.Tensor:
        return torch.nested.as_nested_tensor([row[: k + before] for row, k in zip(x, length)], layout=torch.jagged)

    def shifted(x: torch.Tensor) -> torch.Tensor:  # the output at a position is about the token after it
        return torch.cat([torch.zeros(len(x), P - 1), x, torch.zeros(len(x), 1)], 1)

    out = {"log_probs": ragged(shifted(logp[some]), P), "entropy": ragged(shifted(given["entropy"][some]), P)}
    columns = {"response_mask": mask, "old_log_probs": given["old_log_prob"][some], "advantages": given["advantages"][some],
               "ref_log_prob": given["ref"][some]}  # fmt: skip
    prompts = torch.ones(len(mask), P, dtype=torch.long)
    data = TensorDict(
        {name: ragged(x) for name, x in columns.items()}
        | {
            "prompts": torch.nested.as_nested_tensor(list(prompts), layout=torch.jagged),
            "responses": ragged(mask.long()),
        },
        batch_size=[len(mask)],
    )
    tensordict_utils.assign_non_tensor(
        data, dp_size=1, batch_num_tokens=int(given["response_mask"].sum()), global_batch_size=N, max_response_len=T
    )
    return out, data


def same_through_the_loss_of_the_workers() -> None:
    """Every served method, with the terms that verl adds itself, over two unequal micro-batches, is the recipe's objective."""
    held = (KL(coef=0.1, estimator="k2"), EntropyBonus(coef=0.05))
    recipes = everything() | {"held": get_method("grpo")().replace(regularizers=held, name="held")}
    register(**recipes)
    for name, recipe in recipes.items():
        given = rows(1)
        logp = given["log_prob"].clone().requires_grad_()
        config = actor(recipe)
        parts = [ppo_loss(config, *micro_batch(given, logp, some)) for some in (slice(0, 3), slice(3, N))]
        value = sum(loss for loss, _ in parts)
        gradient = torch.autograd.grad(value, logp)[0]
        free = given["log_prob"].clone().requires_grad_()
        batch = make_batch(
            mask=given["response_mask"], old_logp=given["old_log_prob"], advantage=given["advantages"], ref_logp=given["ref"],
            budget=torch.full((N,), T), entropy=given["entropy"],
        ).replace(logp=free)  # fmt: skip
        wanted = objective(recipe, batch)
        torch.testing.assert_close(
            value.detach(), wanted.detach(), atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
        torch.testing.assert_close(
            gradient, torch.autograd.grad(wanted, free)[0], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def same_settings_in_the_configuration_of_verl() -> None:
    with initialize_config_dir(config_dir=str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        for name, recipe in everything().items():
            wanted = settings(recipe)
            lines = [f"{path}={str(x).lower() if isinstance(x, bool) else x}" for path, x in wanted.items()]
            found = compose("ppo_trainer", overrides=lines)
            for path, x in wanted.items():
                given = OmegaConf.select(found, path)
                assert given == (found.data.max_response_length if "${" in str(x) else x), f"{name}: {path}"


if __name__ == "__main__":
    for name, case in list(globals().items()):
        if name.startswith("same_"):
            case()
            print(name)
