"""Which prompts a step takes where a curriculum chooses, and what a program knows of its prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import policyopt as po
from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.part import Curriculum, Memory, Positive, part
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response
from policyopt.training.config import TrainConfig
from policyopt.training.curriculum import ranking
from policyopt.training.loop import Trainer
from policyopt.training.run import Result, run
from tests.tiny import write_task

EXAMPLES = [Example(str(i), user(f"{i}?"), "1") for i in range(6)]


@part
class LastRate(Memory):
    """The share of right answers at the last visit."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.pass_rate[:, None]


@part
class PreferUnsolved(Curriculum):
    """Prompts that are not solved yet come more often."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    floor: Positive = 0.05
    """The weight of what is always solved."""

    def weights(self, memory: Tensor) -> Tensor:
        return (1 - memory[:, 0].nan_to_num(0.0)).clamp(min=self.floor)


@part
class Backwards(Curriculum):
    """The last prompt first."""

    def weights(self, memory: Tensor) -> Tensor:
        return torch.arange(len(memory)).flip(0)


@part
class Short(Group):
    """A budget of its own for prompts that were seen before."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        known = question.history and question.history[0] == question.history[0]
        budget = 3 if known else question.budget
        rows = await context.sampler.generate(
            question.tokens, n=self.size, max_tokens=budget, temperature=self.temperature, key=question.key
        )
        for row in rows:
            row.budget = budget
        return rows


def recipe(curriculum: Curriculum | None = None, **parts: Any) -> Recipe:
    return po.methods.grpo(group_size=4, kl_coef=0.0).replace(memory=LastRate(), curriculum=curriculum, **parts)


def config(made: Recipe, model: Path, folder: Path, name: str, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 4, "batch": 16, "max_tokens": 8, "device": "cpu", "eval": {"prompts": 4, "samples": 0},
        "optim": {"lr": 1e-3}, "log_samples": 16, "checkpoints": {"every": 1},
    }  # fmt: skip
    return TrainConfig(recipe=made, model=str(model), out=folder / name, **write_task(folder), **settings | changes)


def asked(out: Path) -> dict[int, list[str]]:
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    found: dict[int, list[str]] = {}
    for row in rows:
        if row["phase"] == "train":
            found.setdefault(row["step"], []).append(row["id"])
    return found


def test_prompts_are_drawn_in_proportion_and_none_twice() -> None:
    memory = {"0": [1.0], "1": [1.0], "2": [0.5]}
    first = dict.fromkeys(range(6), 0)
    for step in range(4000):
        order = ranking(PreferUnsolved(), EXAMPLES, memory, 1, (0, step))
        assert sorted(order) == list(range(6))
        first[order[0]] += 1
    weight = torch.tensor([0.05, 0.05, 0.5, 1, 1, 1])
    for i, w in enumerate((weight / weight.sum()).tolist()):
        assert first[i] / 4000 == pytest.approx(w, abs=0.03)
    one, other = (ranking(PreferUnsolved(), EXAMPLES, memory, 1, (0, step)) for step in (7, 7))
    assert one == other


def test_an_order_is_taken_as_it_is_and_weight_0_comes_last() -> None:
    assert ranking(Backwards(), EXAMPLES, {}, 0, (0, 0)) == [5, 4, 3, 2, 1, 0]

    @part
    class Two(Curriculum):
        def weights(self, memory: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])

    assert set(ranking(Two(), EXAMPLES, {}, 0, (0, 3))[:2]) == {1, 3}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (torch.ones(5), r"shape \[5\], expected \[6\]"),
        (torch.tensor([1.0, -1, 0, 0, 0, 0]), "below 0"),
        (torch.zeros(6, dtype=torch.long), "no order of 0 to 5"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Tensor, words: str) -> None:
    @part
    class Wrong(Curriculum):
        def weights(self, memory: Tensor) -> Tensor:
            return weights

    with pytest.raises(UserError, match=words):
        ranking(Wrong(), EXAMPLES, {}, 0, (0, 0))


def test_a_curriculum_that_reads_the_memory_is_refused_without_one() -> None:
    with pytest.raises(
        ValueError, match=r"curriculum \(PreferUnsolved\) needs 'history', which nothing provides: set memory"
    ):
        po.methods.grpo().replace(curriculum=PreferUnsolved())
    made = recipe(PreferUnsolved(floor=0.2))
    assert recipe_from_dict(made.to_dict()) == made


def test_a_run_takes_what_the_curriculum_says(tiny_model: Path, tmp_path: Path) -> None:
    run(config(recipe(Backwards()), tiny_model, tmp_path, "run", steps=2), quiet=True)
    steps = asked(tmp_path / "run")
    assert steps[1] == steps[2] and len(set(steps[1])) == 4, "the last four prompts, each once"


def test_resumed_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    def trained(name: str, *steps: int) -> Result:
        for i, n in enumerate(steps):
            settings = config(recipe(PreferUnsolved()), tiny_model, tmp_path, name, steps=n)
            result = run(settings, resume=tmp_path / name if i else None, quiet=True)
        return result

    whole, halves = trained("whole", 4), trained("halves", 2, 4)
    assert asked(whole.out) == asked(halves.out)
    assert all(len(set(ids)) == 4 for ids in asked(whole.out).values()), "no prompt twice in a step"
    one, other = (load_file(r.out / "model" / "model.safetensors") for r in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_program_knows_its_prompts_history_and_sets_its_budget(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[set[int]] = []
    monkeypatch.setattr(Trainer, "sample", lambda self, batch, *_: budgets.append(set(batch.budget.tolist())))
    run(config(recipe(Backwards(), source=Short(size=4)), tiny_model, tmp_path, "run", steps=2), quiet=True)
    assert budgets == [{8}, {3}], "the same prompts at both steps: new at the first, known at the second"
