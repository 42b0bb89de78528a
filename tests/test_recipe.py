"""Recipes as data: written, read, changed by path, and refused with a sentence that says what to mend."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from policyopt.control import MovingAverage
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.objective import objective
from policyopt.part import Positive, part
from policyopt.parts import Normalise, PPOClip, RatioTimesAdvantage, RolloutBaseline, Surrogate, TokenMean
from policyopt.parts.advantage.gae import GAE
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, parts_of, recipe_from_dict
from policyopt.registry import Method, methods
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from tests.batches import EVERY_METHOD, gradients, random_batch, ready


@part
class Tempered(Surrogate):
    """A surrogate of a user's own: the advantage through a hyperbolic tangent."""

    width: Positive = 2.0
    """Where it saturates."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return -log_ratio.exp() * self.width * (batch.advantage / self.width).tanh()


# As data -------------------------------------------------------------------------------------------------------------


# The same YAML, read and written in C where PyYAML has that: thousands of recipes pass here.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def through_yaml(recipe: Recipe) -> Recipe:
    return recipe_from_dict(yaml.load(yaml.dump(recipe.to_dict(), Dumper=DUMPER), Loader=LOADER))


@EVERY_METHOD
def test_a_recipe_survives_yaml(method: Method) -> None:
    recipe = method()
    assert through_yaml(recipe) == recipe
    assert through_yaml(recipe).name == method.name


def others(hint: Any, value: Any) -> list[Any]:
    """Values of a field other than the one that it has."""
    if get_origin(hint) is Literal:
        return [x for x in get_args(hint) if x != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    return [value * 0.5 + 0.013] if isinstance(value, float) else []


def sized(method: Method) -> Recipe:
    return method(group_size=4) if "group_size" in method.hyperparameters else method()


def fields_of(recipe: Recipe) -> Iterator[tuple[tuple[Any, ...], str, Any, list[Any]]]:
    """Every field of every part: slot, class, name and kind of its value; its path; the value, and others."""
    for path, p in parts_of(recipe):
        hints = get_type_hints(type(p))
        for f in dataclasses.fields(p):  # type: ignore[arg-type]
            value = getattr(p, f.name)
            kind = (path.split(".")[0], type(p), f.name, type(value))
            yield kind, f"{path}.{f.name}", value, others(hints[f.name], value)


FIRST: dict[tuple[Any, ...], str] = {}
"""The first method that has such a field with something to change in it."""
for _name, _method in methods().items():
    for _kind, _, _, _other in fields_of(sized(_method)):
        if _other:
            FIRST.setdefault(_kind, _name)


@pytest.mark.parametrize("name", sorted(set(FIRST.values())))
def test_every_field_of_every_part_can_be_changed_and_survives_yaml(name: str) -> None:
    recipe, tried, refused = sized(methods()[name]), 0, 0
    for kind, path, value, rest in fields_of(recipe):
        for other in rest if FIRST.get(kind) == name else ():
            try:
                changed = recipe.set(path, other)
            except ValidationError:  # not together with the other fields
                refused += 1
                continue
            assert changed.get(path) == other
            assert changed != recipe
            assert through_yaml(changed) == changed
            assert changed.set(path, value) == recipe
            tried += 1
    assert refused <= tried + 1, "most can be"


def test_a_changed_update_survives_yaml() -> None:
    changed = grpo().set("update.epochs", 3)
    assert through_yaml(changed).update.epochs == 3


def test_a_part_of_ones_own_works_in_a_recipe() -> None:
    recipe = grpo(kl_coef=0.0).replace(surrogate=Tempered(width=0.5))
    assert through_yaml(recipe) == recipe
    assert recipe.set("surrogate.width", 1.5).surrogate == Tempered(width=1.5)
    batch = ready(recipe, random_batch())
    saturated = batch.replace(advantage=0.5 * (batch.advantage / 0.5).tanh())
    torch.testing.assert_close(
        objective(recipe, batch), objective(recipe.replace(surrogate=RatioTimesAdvantage()), saturated)
    )
    assert gradients(recipe, batch)[1]["logp"].any()


def test_a_recipe_can_be_printed_and_compared_and_not_changed_in_place() -> None:
    recipe = ppo(high=0.3)
    assert "surrogate=PPOClip(low=0.2, high=0.3, " in repr(recipe)
    assert recipe == ppo(high=0.3)
    assert recipe != ppo()
    assert len({recipe, ppo(high=0.3), ppo()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.critic = None  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.surrogate.high = 0.4  # type: ignore[attr-defined]


def test_replace_and_set_leave_the_original_alone() -> None:
    recipe = grpo()
    recipe.set("surrogate.high", 0.4)
    recipe.replace(aggregate=TokenMean())
    assert recipe == grpo()


def test_a_recipe_needs_what_its_parts_need() -> None:
    assert grpo(kl_coef=0.0).needs == frozenset()
    assert grpo().needs == {"ref_logp"}
    assert ppo(entropy_coef=0.01).needs == {"ref_logp", "value", "entropy"}
    assert remax(kl_coef=0.0).needs == {"baseline_reward"}


def test_a_recipe_splits_as_far_as_its_coarsest_part() -> None:
    from policyopt.methods.ratio.gspo import gspo

    assert grpo().unit == "token"
    assert gspo().unit == "row"


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("surrogate.hihg", "'surrogate.hihg': PPOClip has no field 'hihg'; nearest: high"),
        ("surogate.high", "'surogate.high': Recipe has no field 'surogate'; nearest: surrogate"),
        ("regularizers.Kl.coef", "'regularizers.Kl.coef': nothing is called 'Kl' there; nearest: KL"),
        ("regularizers.0.coef", "'regularizers.0.coef': nothing is called '0' there; nearest: KL"),
        ("shape.KLPenalty", "nothing is called 'KLPenalty' there"),
        ("surrogate.low.x", "float has no field 'x'"),
        ("critic.coef", "NoneType has no field 'coef'"),
    ],
)
def test_a_path_that_does_not_exist_is_named_with_the_nearest(path: str, message: str) -> None:
    for use in (grpo().get, lambda p: grpo().set(p, 1)):
        with pytest.raises(KeyError, match=re.escape(message)):
            use(path)


def test_paths_reach_everything() -> None:
    recipe = grpo()
    assert recipe.get("regularizers.KL") == KL(coef=0.04)
    assert recipe.get("source.size") == 8
    assert recipe.set("regularizers.KL.estimator", "k2").regularizers == (KL(coef=0.04, estimator="k2"),)
    assert recipe.set("surrogate", RatioTimesAdvantage()).surrogate == RatioTimesAdvantage()


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (lambda: grpo(low=-0.1), ["low", "greater than or equal to 0", "-0.1"]),
        (lambda: grpo(high=float("nan")), ["high", "finite"]),
        (lambda: grpo(kl_coef=-1.0), ["coef", "greater than or equal to 0"]),
        (lambda: grpo(kl="k4"), ["estimator", "'k1', 'k2', 'k3' or 'abs'"]),
        (lambda: ppo(gamma=1.5), ["gamma", "less than or equal to 1"]),
        (lambda: ppo(lam=float("nan")), ["lam"]),
        (lambda: remax(reward_clip=0.0), ["clip", "greater than 0"]),
        (lambda: grpo(epochs=0), ["epochs", "greater than or equal to 1"]),
        (lambda: grpo(group_size=0), ["size", "greater than or equal to 1"]),
        (lambda: grpo().set("source.temperature", 0.0), ["temperature", "greater than 0"]),
        (lambda: grpo().set("surrogate.low", "wide"), ["low", "valid number"]),
        (lambda: grpo().set("surrogate", TokenMean()), ["surrogate", "instance of Surrogate"]),
        (lambda: PPOClip(lo=0.1), ["lo", "Unexpected keyword"]),
        (lambda: reinforce(baseline="median"), ["centre", "'leave-one-out'"]),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(make: Callable[[], Recipe], messages: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    assert all(m in str(caught.value) for m in messages), str(caught.value)
    assert [e["loc"] for e in caught.value.errors() if e["loc"]] == [(messages[0],)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: grpo(group_size=1),
            "source.size is 1, but advantage (Normalise) .* needs at least 2: raise source.size",
        ),
        (lambda: grpo().set("source.size", 1), "source.size is 1"),
        (lambda: reinforce().replace(advantage=Normalise(centre="leave-one-out")), "source.size is 1, but advantage"),
        (lambda: grpo().replace(advantage=GAE()), "advantage (GAE) needs 'value', which nothing provides: set critic"),
        (lambda: ppo().replace(critic=None), "advantage (GAE) needs 'value'"),
        (
            lambda: reinforce().replace(advantage=RolloutBaseline(), controllers=()),
            "take the rollout GroupWithGreedy()",
        ),
        (lambda: remax().replace(source=Group()), "advantage (RolloutBaseline) needs 'baseline_reward'"),
        (lambda: ppo(kl_target=6.0).replace(shape=()), "controllers.AdaptiveKL moves a field that is not there"),
        (
            lambda: grpo().replace(controllers=(MovingAverage(field="advantage.base"),)),
            "no field 'base'; nearest: baseline",
        ),
        (lambda: reinforce(baseline="constant"), 'baseline "constant" needs constant=NUMBER'),
    ],
)
def test_parts_that_contradict_each_other_are_refused_with_a_remedy(make: Callable[[], Recipe], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        make()


def data(**changes: Any) -> dict[str, Any]:
    return grpo().to_dict() | changes


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (data(surogate={}), "recipe: Recipe has no field 'surogate'; nearest: surrogate"),
        (data(surrogate={"part": "PPOClipp"}), "recipe.surrogate: no part is called 'PPOClipp'; nearest: PPOClip"),
        (
            data(surrogate={"part": "PPOClip", "hihg": 1}),
            "recipe.surrogate: PPOClip has no field 'hihg'; nearest: high",
        ),
        (data(regularizers=[{"part": "KL", "cof": 1}]), "recipe.regularizers.KL: KL has no field 'cof'; nearest: coef"),
        (data(surrogate={"high": 0.3}), "recipe.surrogate: expected a part, written as a mapping with `part: NAME`"),
        (data(update={"epoch": 2}), "recipe.update: Update has no field 'epoch'; nearest: epochs"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe_from_dict(written)
