"""Recipes in TRL's trainer: the same numbers as TRL's own losses, and as the plain gradient of any recipe that is served."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

pytest.importorskip("trl", reason="needs TRL (pip install 'policyopt[trl]')")

from trl import GRPOConfig, GRPOTrainer

import policyopt as po
from policyopt.errors import UserError
from policyopt.integrations.served import TRL, refusals
from policyopt.integrations.trl import MINE, RecipeTrainer, config
from policyopt.parts import KL, Normalise, PPOClip, TokenMean, TokenRatio
from policyopt.recipe import Recipe
from policyopt.registry import get_method, methods
from tests.integrations.trl_runs import ROWS, assert_same, drawn, gradient, ours, parts, plain, settings, theirs

G = 4
THEIR = Normalise(eps=1e-4)
"""The advantage of TRL."""


def made(name: str, **changes: Any) -> Recipe:
    """A method with groups of four and one update for each batch."""
    method = get_method(name)
    hyper = {"group_size": G} if "group_size" in method.hyperparameters else {}
    return method(**hyper, **changes).set("update.minibatches", 1).set("update.epochs", 1)


def dapo() -> Recipe:
    return made("dapo").set("source.size", G).replace(filter=(), shape=(), advantage=THEIR)


def bare(name: str, **changes: Any) -> Recipe:
    return made(name, **changes).replace(advantage=THEIR)


LOSSES: dict[str, tuple[Recipe, dict[str, Any], int]] = {
    "grpo": (bare("grpo", kl_coef=0.0), {"loss_type": "grpo"}, 2),
    "grpo with kl": (bare("grpo", kl_coef=0.04), {"loss_type": "grpo", "beta": 0.04}, 2),
    "grpo with an unbiased kl": (
        bare("grpo", kl_coef=0.0).replace(regularizers=(KL(ratio=TokenRatio()),)),
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
        2,
    ),
    "off-policy sequence mask": (
        made("deepseek-v3.2", delta=1e-4, kl_coef=0.0),
        {"loss_type": "grpo", "off_policy_mask_threshold": 1e-4},
        2,
    ),
    "dual clip": (
        bare("grpo", kl_coef=0.0).replace(surrogate=PPOClip(dual=1.3)),
        {"loss_type": "grpo", "delta": 1.3},
        2,
    ),
    "bnpo": (bare("grpo", kl_coef=0.0).replace(aggregate=TokenMean()), {"loss_type": "bnpo"}, 1),
    "dapo": (dapo(), {"loss_type": "dapo", "epsilon_high": 0.28}, 2),
    "dr_grpo": (made("dr-grpo"), {"loss_type": "dr_grpo"}, 2),
    "cispo": (made("cispo", high=0.01), {"loss_type": "cispo", "epsilon_high": 1.01}, 2),
    "gspo": (
        bare("gspo", low=3e-4, high=4e-4),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
        2,
    ),
    "sapo": (bare("sapo-soft"), {"loss_type": "sapo"}, 2),
    "luspo": (
        bare("luspo"),
        {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon_low": 2e-3, "epsilon_high": 2.5e-3},
        2,
    ),
    "vespo": (made("vespo"), {"loss_type": "vespo"}, 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_trl(name: str, tiny_model: Path, tmp_path: Path) -> None:
    recipe, their, steps = LOSSES[name]
    trainer = ours(recipe, tiny_model, tmp_path, gradient_accumulation_steps=steps)
    window = drawn(trainer)
    mine = gradient(trainer, window, RecipeTrainer._compute_loss)
    for inputs in window:
        inputs["old_per_token_logps"] = inputs[f"{MINE}old_logp"]
    trainer.epsilon_low, trainer.epsilon_high = 0.2, 0.2
    trainer.beta, trainer.args.use_bias_correction_kl = 0.0, False
    for field, value in their.items():
        setattr(trainer.args if field in ("delta", "use_bias_correction_kl") else trainer, field, value)
    assert_same(mine, gradient(trainer, window, GRPOTrainer._compute_loss))


@pytest.mark.parametrize("scale", ["group", "none", "batch"])
def test_advantages_are_those_of_trl(scale: Any, tiny_model: Path, tmp_path: Path) -> None:
    recipe = made("grpo", kl_coef=0.0).replace(advantage=Normalise(scale=scale, eps=1e-4))
    trainer, kept = ours(recipe, tiny_model, tmp_path), {}
    make = GRPOTrainer._generate_and_score_completions

    def seen(self: Any, inputs: Any) -> Any:
        output = make(self, inputs)
        kept["theirs"] = output["advantages"]
        return output

    trainer.scale_rewards = scale
    with mock.patch.object(GRPOTrainer, "_generate_and_score_completions", seen):
        trainer.model.train()
        rows = next(iter(trainer.get_train_dataloader()))
        output = trainer._generate_and_score_completions(rows)
    there = output[f"{MINE}mask"]
    torch.testing.assert_close(output["advantages"], kept["theirs"][:, None] * there)
    assert float(kept["theirs"].abs().max()) > 0.5


@pytest.mark.parametrize("name", ["grpo", *(pytest.param(n, marks=pytest.mark.heavy) for n in ("dr_grpo", "gspo"))])
def test_three_steps_end_at_the_weights_of_trl(name: str, tiny_model: Path, tmp_path: Path) -> None:
    recipe, their, _ = LOSSES[name]
    recipe = recipe.set("update.epochs", 2)  # the second pass is off-policy
    args = {"gradient_accumulation_steps": 2, "max_steps": 3}
    mine = ours(recipe, tiny_model, tmp_path / "mine", **args)
    mine.train()
    their = {"epsilon" if k == "epsilon_low" else k: v for k, v in their.items()}
    if name == "dr_grpo":
        their["scale_rewards"] = "none"
    other = theirs(tiny_model, tmp_path / "their", num_generations=G, num_iterations=2, **args, **their)
    start = [p.detach().clone() for p in other.model.parameters()]
    other.train()
    moved = max(float((p - s).detach().abs().max()) for p, s in zip(other.model.parameters(), start))
    for p, q in zip(mine.model.parameters(), other.model.parameters(), strict=True):
        assert float((p - q).detach().abs().max()) < 1e-4 * moved


SERVED = [name for name, method in methods().items() if not refusals(method(), TRL)]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.heavy if i % 5 else ()) for i, n in enumerate(SERVED)]
)
def test_every_served_recipe_has_its_plain_gradient_for_any_micro_batches(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    hyper = {"k": 2} if name == "pass-at-k" else {}
    recipe = made(name, **hyper).set("source.size", G)
    if name == "constrained-rlhf":  # its first step has no multipliers
        recipe = recipe.set("advantage.lagrange", (0.3, 0.2)).replace(controllers=())
    heat = recipe.source.temperature
    trainer = ours(recipe, tiny_model, tmp_path, gradient_accumulation_steps=2)
    window = drawn(trainer)
    mine = gradient(trainer, window, RecipeTrainer._compute_loss)
    assert_same(mine, plain(trainer.recipe, trainer.model, window, heat), atol=5e-5)


def test_an_optimiser_step_is_the_same_however_it_is_accumulated(tiny_model: Path, tmp_path: Path) -> None:
    found = []
    for rows in (2 * ROWS, 4):
        trainer = ours(
            made("bapo"), tiny_model, tmp_path, per_device_train_batch_size=rows, gradient_accumulation_steps=16 // rows
        )
        found.append(gradient(trainer, drawn(trainer), RecipeTrainer._compute_loss))
    assert_same(*found)


def test_mini_batches_of_coupled_rows_hold_whole_groups(tiny_model: Path, tmp_path: Path) -> None:
    recipe = get_method("disco")(group_size=G)
    assert recipe.update.minibatches == 4
    args: dict[str, Any] = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    trainer = ours(recipe, tiny_model, tmp_path, **args)
    buffer = drawn(trainer)
    for first in range(0, len(buffer), 2):
        group = torch.cat([b[f"{MINE}group"] for b in buffer[first : first + 2]])
        assert torch.bincount(group)[group.unique()].tolist() == [G, G]
    assert_same(
        gradient(trainer, buffer[:2], RecipeTrainer._compute_loss), plain(recipe, trainer.model, buffer[:2]), atol=5e-5
    )
    with pytest.raises(UserError, match=r"3 responses of a process .* are no whole groups of 4.*update\.minibatches"):
        config(recipe, **settings(tmp_path, per_device_train_batch_size=3, generation_batch_size=None))


def some(completions: list[Any], **_: Any) -> list[float | None]:
    """Nothing to say of the first row; the second group is all right."""
    return [None, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, *[float(i % 2) for i in range(len(completions) - 8)]]


def test_rows_that_leave_are_no_rows(tiny_model: Path, tmp_path: Path) -> None:
    recipe = made("dapo").set("source.size", G).set("source.rounds", 1).replace(shape=())
    args = {"gradient_accumulation_steps": 8, "per_device_train_batch_size": 2}  # of some micro-batches nothing is left
    trainer = ours(recipe, tiny_model, tmp_path, some, **args)
    window = drawn(trainer)
    columns = {name: torch.cat([w[name] for w in window]) for name in window[0] if name.startswith(MINE)}
    group, keep = columns[f"{MINE}group"], columns[f"{MINE}keep"] > 0
    assert keep.sum() == 11 and not bool((group[keep] == 1).any()), "one has no reward, four are all right"
    share, mask = columns[f"{MINE}share"], columns[f"{MINE}mask"]
    torch.testing.assert_close(share, mask / mask[keep].sum() * keep[:, None])
    first = columns[f"{MINE}advantage"][(group == 0) & keep].amax(1)
    assert len(first) == 3, "the mean of the first group is over the three that have a reward"
    assert_same(gradient(trainer, window, RecipeTrainer._compute_loss), plain(recipe, trainer.model, window), atol=5e-5)


def alike(completions: list[Any], **_: Any) -> list[float]:
    return [1.0] * len(completions)


@pytest.mark.parametrize("name", ["dapo", "hapo-heterogeneous"])
def test_a_step_of_which_nothing_is_left_changes_nothing(name: str, tiny_model: Path, tmp_path: Path) -> None:
    recipe = made(name).set("source.size", G).set("source.rounds", 1)
    trainer = ours(recipe, tiny_model, tmp_path, alike, gradient_accumulation_steps=2, max_steps=2)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert trainer.state.global_step == 2
    assert all(torch.equal(p, q) for p, q in zip(before, trainer.model.parameters(), strict=True))


def correct(completions: list[Any], **_: Any) -> list[float]:
    return [float(i % 2) for i in range(len(completions))]


def length(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(c[0]["content"])) for c in completions]


def test_reward_functions_are_verdict_and_components(tiny_model: Path, tmp_path: Path) -> None:
    trainer = ours(
        made("grpo", kl_coef=0.0),
        tiny_model,
        tmp_path,
        [length, correct],
        per_device_train_batch_size=4,
        reward_weights=[0.5, 2.0],
    )
    trainer.model.train()
    out = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    lengths, right = out[f"{MINE}component[length]"], torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert out[f"{MINE}correct"].tolist() == right.tolist() and out[f"{MINE}pass_rate"].tolist() == [0.5] * 4
    torch.testing.assert_close(out[f"{MINE}reward"], 0.5 * lengths + 2 * right)


def test_controllers_act_between_steps_and_are_in_checkpoints(tiny_model: Path, tmp_path: Path) -> None:
    recipe = made("reinforce").set("source.size", G)
    args: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    trainer = ours(recipe, tiny_model, tmp_path, **args)
    trainer.train()
    moved = trainer.recipe.get("advantage.baseline")
    assert recipe.get("advantage.baseline") == 0 < moved, "it follows the mean reward"
    again = ours(recipe, tiny_model, tmp_path, **args)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.recipe.get("advantage.baseline") == moved
    (tmp_path / "checkpoint-2" / "policyopt_state.json").unlink()
    with pytest.raises(UserError, match=r"policyopt_state.json is missing.*reinforce"):
        ours(recipe, tiny_model, tmp_path, **args).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_held_out_questions_have_the_loss_of_the_recipe(tiny_model: Path, tmp_path: Path) -> None:
    trainer = ours(made("grpo"), tiny_model, tmp_path, per_device_eval_batch_size=G)
    trainer.eval_dataset = trainer.train_dataset.select(range(2))
    assert "eval_loss" in trainer.evaluate()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("ppo", r"ppo cannot be carried out by the loop of TRL 1.16: .*critic ClippedValueLoss: a value function"),
        ("treepo", r"source \(TreeRollout|source \("),
        ("grpo-guard", r"statistics|any function of the logits"),
        ("kdrl", "teacher: the loop has no other model"),
        ("nothing", "no method is called 'nothing'"),
        (made("grpo").replace(regularizers=(KL(target="teacher"),)), "teacher"),
    ],
)
def test_what_the_loop_cannot_serve_is_refused_before_a_model_is_loaded(recipe: Any, said: str) -> None:
    with pytest.raises((UserError, KeyError), match=said):
        RecipeTrainer("no/such/model", shout_never, recipe=recipe)


def shout_never(**_: Any) -> list[float]:
    raise AssertionError("nobody is asked")


def test_settings_that_the_recipe_decides_or_contradicts_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    wrong = GRPOConfig(**settings(tmp_path, beta=0.1, loss_type="bnpo", num_generations=8, temperature=0.5))
    with pytest.raises(UserError) as error:
        RecipeTrainer(args=wrong, recipe=made("grpo"), **parts(tiny_model))
    for said in (
        "loss_type is 'bnpo', and the recipe decides", "beta is 0.1", "num_generations is 8, and grpo has 4", "temperature is 0.5",
    ):  # fmt: skip
        assert said in str(error.value)
    agreed = config("gspo", **settings(tmp_path, gradient_accumulation_steps=2))
    assert (agreed.num_generations, agreed.steps_per_generation) == (get_method("gspo")().source.size, 8)
    with pytest.raises(UserError, match="max_completion_length is None"):
        config("gspo", **settings(tmp_path, max_completion_length=None))


def test_the_name_of_a_recipe_of_ones_own_will_do(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("import policyopt as po\n\ndef mine():\n    return po.methods.grpo(group_size=6)\n")
    assert config(f"{own}:mine", **settings(tmp_path, per_device_train_batch_size=6)).num_generations == 6
    assert po.methods.grpo().source.size == 8


@pytest.mark.heavy
def test_two_processes_take_the_step_of_one(tiny_model: Path, tmp_path: Path) -> None:
    line = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.integrations.trl_ranks",
    ]
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *line, str(tiny_model), str(tmp_path)],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "grpo: 24 of 24 rows" in done.stdout and "bapo: 24 of 24 rows" in done.stdout
    assert "dapo: 16 of 24 rows" in done.stdout
