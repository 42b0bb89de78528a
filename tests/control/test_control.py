"""Controllers: each moves the field of a named part, whatever else stands in the recipe."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import policyopt as po
from policyopt.control import Schedule
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.part import Filter, Regularizer, Shape, Weight, part
from policyopt.parts import EntropyBonus, KLPenalty, LengthReward
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe, parts_of, recipe_from_dict
from policyopt.registry import Method, methods
from policyopt.rows import Batch
from policyopt.steering import States, control, controlled
from policyopt.training.trees import at, differences

CONTROLLED = {name: m for name, m in methods().items() if m().controllers or name in ("ppo", "expo")}
EVERY_CONTROLLED = pytest.mark.parametrize("method", CONTROLLED.values(), ids=CONTROLLED.keys())
ON: dict[str, dict[str, Any]] = {
    "ppo": {"kl_target": 6.0}, "expo": {"anneal_steps": 4}, "curriculum-length-grpo": {"interval": 20}, "skywork-or1": {"entropy_target": 2.0},
    "decision-mamba": {"every": 10}
}  # fmt: skip
"""What turns the controllers on where they are off by default."""


class _AnyMetric(dict[str, float]):
    """Metrics of a step in which everything was measured."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> float:
        return 0.95

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


@part
class FirstShape(Shape):
    """A shape that stands before the others."""

    coef: float = 1.0
    """A field that other parts have too."""

    def __call__(self, batch: Batch) -> Batch:
        return batch


@part
class FirstRegularizer(Regularizer):
    """A loss that stands before the others."""

    coef: float = 1.0
    """A field that other parts have too."""

    def __call__(self, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.mask)


@part
class FirstWeight(Weight):
    """A weight that stands before the others."""

    share: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """A field that other parts have too."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return torch.ones_like(log_ratio)


@part
class FirstFilter(Filter):
    """A filter that stands before the others."""

    share: float = 0.3
    """A field that other parts have too."""

    def __call__(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch.group, dtype=torch.bool)


FIRST = {
    "shape": FirstShape(), "regularizers": FirstRegularizer(), "weight": FirstWeight(),
    "filter": FirstFilter(), "select": FirstFilter(),
}  # fmt: skip


def steered(recipe: Recipe) -> Recipe:
    """The recipe after sixty steps in which everything was measured."""
    states: States = {}
    for step in range(60):
        recipe = control(recipe, _AnyMetric() if step else {}, states)
    assert states.keys() == {c.handle for c in recipe.controllers}
    return recipe


@EVERY_CONTROLLED
def test_a_part_put_first_redirects_no_controller(method: Method) -> None:
    recipe = method(**ON.get(method.name, {}))
    first = {slot: p for slot, p in FIRST.items() if slot != "weight" or recipe.surrogate is not None}
    more = recipe.replace(**{slot: (p, *getattr(recipe, slot)) for slot, p in first.items()})
    here, there = steered(recipe), steered(more)
    assert here != recipe, "the controllers move something"
    assert [dict(parts_of(there))[path] for path, _ in parts_of(here)] == [p for _, p in parts_of(here)]
    assert here.update == there.update
    assert all(getattr(there, slot)[0] == p for slot, p in first.items())
    assert controlled(here) == controlled(there)


@EVERY_CONTROLLED
def test_what_a_controller_moves_cannot_be_taken_out(method: Method) -> None:
    recipe = method(**ON.get(method.name, {}))
    for controller in recipe.controllers:
        slot, name, *field = controller.field.split(".")
        if field and isinstance(getattr(recipe, slot), tuple):
            others = tuple(p for p in getattr(recipe, slot) if p.handle != name)
            said = f"controllers.{controller.handle}"
            with pytest.raises(ValueError, match=re.escape(said)) as caught:
                recipe.replace(**{slot: others, "controllers": (controller,)})
            assert "moves a field that is not there" in str(caught.value)


def test_the_kl_in_the_reward_moves_wherever_it_stands() -> None:
    recipe = ppo(kl_target=6.0).replace(shape=(LengthReward(), KLPenalty()))
    after = control(recipe, {"kl/ref_response": 60.0, "responses": 1000.0}, {})
    assert after.shape[0] == LengthReward()
    assert after.get("shape.KLPenalty.coef") == pytest.approx(KLPenalty().coef * 1.02)
    assert controlled(after) == {"control/shape.KLPenalty.coef": after.get("shape.KLPenalty.coef")}


# Names ---------------------------------------------------------------------------------------------------------------


def test_two_parts_of_one_name_are_told_apart_by_labels() -> None:
    with pytest.raises(ValidationError, match=r'regularizers has 2 parts called KL: .* KL\(\.\.\., label="first"\)'):
        grpo().replace(regularizers=(KL(), KL(coef=0.5)))
    recipe = grpo().replace(regularizers=(KL(), KL(coef=0.5, target="teacher", label="teacher"), EntropyBonus()))
    changed = recipe.set("regularizers.teacher.coef", 0.2)
    assert [changed.get(f"regularizers.{name}.coef") for name in ("KL", "teacher")] == [KL().coef, 0.2]
    assert dict(parts_of(changed))["regularizers.teacher"] == KL(coef=0.2, target="teacher")
    again = recipe_from_dict(changed.to_dict())
    assert again == changed
    assert [p.label for p in again.regularizers] == [None, "teacher", None]
    assert "label" not in changed.to_dict()["regularizers"][0], "a label that nobody gave is not written"


def test_a_path_by_class_never_means_a_part_with_a_label() -> None:
    recipe = grpo().replace(regularizers=(KL(label="mine"),))
    with pytest.raises(KeyError, match="nothing is called 'KL' there; nearest: mine"):
        recipe.get("regularizers.KL.coef")


@pytest.mark.parametrize("label", ["0", "a.b", "", "a b", "1st"])
def test_a_label_is_a_name(label: str) -> None:
    with pytest.raises(ValidationError, match="label"):
        KL(label=label)


def test_a_path_that_fits_two_parts_is_refused() -> None:
    from policyopt.methods.judge.mpo_meta import Criterion, Rubric

    recipe = grpo().replace(shape=(Rubric(items=(Criterion(), Criterion(scale=2))),))
    with pytest.raises(KeyError, match="2 parts are called 'correct'; tell them apart by labels"):
        recipe.get("shape.Rubric.items.correct.scale")


def test_where_two_configurations_differ_is_said_by_names() -> None:
    one, other = (ppo(kl_target=6.0, kl_coef=x).to_dict() for x in (0.05, 0.1))
    assert differences(one, other) == ["shape.KLPenalty.coef"]
    assert (at(one, "shape.KLPenalty.coef"), at(other, "shape.KLPenalty.coef")) == (0.05, 0.1)
    more = ppo(kl_target=6.0).replace(shape=(LengthReward(), KLPenalty())).to_dict()
    assert differences(one, more) == ["shape"]


# Schedules of several numbers ----------------------------------------------------------------------------------------


def test_a_schedule_of_several_numbers_moves_each_as_it_would_alone() -> None:
    first, last = (0.6, 0.3, 0.1), (0.1, 0.3, 0.6)
    together = Schedule("x", start_value=first, end_value=last, steps=7, delay=2, shape="exponential", stairs=3)
    alone = [
        Schedule("x", start_value=a, end_value=b, steps=7, delay=2, shape="exponential", stairs=3)
        for a, b in zip(first, last, strict=True)
    ]
    assert [together.value(s) for s in range(12)] == [tuple(c.value(s) for c in alone) for s in range(12)]


@pytest.mark.parametrize("ends", [(1.0, (1.0,)), ((1.0,), 1.0), ((1.0, 2.0), (1.0,)), ((1.0,), (1.0, 2.0))])
def test_both_ends_of_a_schedule_hold_equally_many_numbers(ends: Any) -> None:
    with pytest.raises(ValidationError, match="must hold equally many numbers"):
        Schedule("x", *ends, steps=3)
    with pytest.raises(ValidationError, match="needs start_value and end_value above 0"):
        Schedule("x", (1.0, 0.0), (1.0, 1.0), steps=3, shape="exponential")


def test_every_controller_that_is_shared_is_exported() -> None:
    assert {"Controller", "Follows", "ByStep", "Schedule", "Thermostat"} <= set(po.control.__all__)
