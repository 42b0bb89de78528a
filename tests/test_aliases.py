"""What TRL and verl call a setting leads to what it is called here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import policyopt as po
from policyopt.aliases import _OURS, advice, ours, renamed
from policyopt.cli.train import Files, _own_options
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.options import catalogue
from policyopt.registry import get_method
from policyopt.training.config import TrainConfig, config_from_yaml

GRPO = [o.name for default in (TrainConfig(recipe=grpo()), _own_options(grpo)) for o in catalogue(default)]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ("learning_rate", "here it is --optim.lr"),
        ("actor_rollout_ref.actor.optim.lr", "here it is --optim.lr"),
        ("actor.optim.lr", "here it is --optim.lr"),
        ("num-generations", "here it is --group-size or --recipe.source.size"),
        ("rollout.n", "here it is --group-size or --recipe.source.size"),
        ("beta", "here it is --kl-coef or --recipe.regularizers.KL.coef"),
        ("lam", "here it is --recipe.advantage.lam, in methods that have it"),
        ("per_device_train_batch_size", "here it is --batch or --micro-batch (the responses of a step, and those of one pass)"),
        ("algorithm.adv_estimator", "it is the method, policyopt train METHOD"),
        ("lerning-rate", "nearest: --optim.lr"),
        ("minibatches", "nearest: --recipe.update.minibatches, --micro-batch, --batch"),
        ("xyzzy", ""),
    ],
)  # fmt: skip
def test_an_option_by_the_name_of_others(theirs: str, said: str) -> None:
    assert advice(theirs, GRPO) == said


def test_every_name_in_the_table_leads_to_what_is_there() -> None:
    """In the options of some method, or for a part in the fields of a recipe."""
    recipes = [grpo(), ppo(), get_method("reinforce")(), get_method("ppo")(entropy_coef=0.1)]
    there = {o.name for recipe in recipes for o in catalogue(TrainConfig(recipe=recipe))}
    there |= {o.name for o in catalogue(_own_options(grpo))} | {f.name for f in dataclasses.fields(Files)}
    there |= {f"recipe.{f.name}" for f in dataclasses.fields(po.Recipe)}
    paths = {path for names in _OURS.values() for path in names.partition(";")[0].split()}
    assert paths - there == set()
    assert len(_OURS) > 80


@pytest.mark.parametrize("name", ["steps", "optim.lr", "seed", "nothing"])
def test_names_of_ours_and_of_nobody_are_not_in_it(name: str) -> None:
    assert ours(name) is None


def test_a_file_and_a_call_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("num_generations: 4\n")
    with pytest.raises(
        UserError, match=r"run\.yaml: no field is called 'num_generations'; here it is recipe\.source\.size$"
    ):
        config_from_yaml(file, TrainConfig(recipe=grpo()))
    with pytest.raises(UserError, match=r"no field is called 'max_grad_norm'; here it is optim\.clip_norm$"):
        po.train("grpo", max_grad_norm=1.0)


def test_other_commands_know_nothing_of_training() -> None:
    assert advice("learning-rate", ["json", "kind"]) == ""


@pytest.mark.parametrize("name", ["GRPO", "Dr-GRPO", "dr_grpo", "Dr GRPO", " dr-grpo ", "RL-Struct"])
def test_methods_go_by_name_in_any_case(name: str) -> None:
    assert get_method(name).name == name.strip().lower().replace("_", "-").replace(" ", "-")


def test_options_under_an_earlier_name_are_read() -> None:
    line, said = renamed(
        ["grpo", "--recipe.rollout.size", "4", "--recipe.rollout.temperature=0.5", "--recipe.rollouts.x"]
    )
    assert line == ["grpo", "--recipe.source.size", "4", "--recipe.source.temperature=0.5", "--recipe.rollouts.x"]
    assert said == ["--recipe.rollout is called --recipe.source now"]
