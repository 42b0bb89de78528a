"""Rows of given texts: what is trained, logged, evaluated and refused, and that nothing is drawn or judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import policyopt as po
from policyopt.data import load_task
from policyopt.engine.local import LocalSampler
from policyopt.engine.local.engine import LocalEngine
from policyopt.errors import UserError
from policyopt.judging.pool import JudgePool
from policyopt.parts import Judged, Likelihood, Logistic, Normalise, Pairs, RowScore, SeqMeanTokenMean, TokenMean
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.sources.draw import Group
from policyopt.sources.given import Demonstrations, PreferencePairs
from policyopt.training.config import TrainConfig
from policyopt.training.loop import Trainer
from policyopt.training.run import Result, run
from tests.tiny import load_tiny


def dpo(beta: float = 0.5) -> Recipe:
    return Recipe(
        source=PreferencePairs(),
        advantage=Normalise(centre="none", scale="none"),
        surrogate=Pairs(score=RowScore(against="reference"), link=Logistic(beta=beta)),
        aggregate=SeqMeanTokenMean(),
        name="by-hand",
    )


def sft() -> Recipe:
    return Recipe(
        source=Demonstrations(), aggregate=TokenMean(), regularizers=(Likelihood(coef=1.0, rows=None),), name="sft"
    )


def write(path: Path, rows: int = 24) -> Path:
    lines = []
    for i in range(rows):
        texts = {"chosen": f"yes {i}", "rejected": "no " * (1 + i % 3), "completion": f"it is {i % 5}"}
        lines.append(json.dumps({"prompt": f"{'ab' * (i % 4)} {i}"} | texts) + "\n")
    path.write_text("".join(lines))
    return path


def config(recipe: Recipe, model: Path, task: Path, out: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "steps": 6, "batch": 8, "max_tokens": 16, "device": "cpu", "eval": {"prompts": 4, "samples": 0},
        "optim": {"lr": 1e-3},
    }  # fmt: skip
    return TrainConfig(recipe=recipe, model=str(model), task=str(task), out=out, **settings | changes)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(self: Any, *args: Any, **options: Any) -> None:
        raise AssertionError(f"{type(self).__name__} was made")

    monkeypatch.setattr(JudgePool, "__init__", made)
    monkeypatch.setattr(LocalSampler, "__init__", made)


def test_dpo_composed_by_hand_widens_the_margin(tiny_model: Path, tmp_path: Path, nothing_drawn: None) -> None:
    result = run(config(dpo(), tiny_model, write(tmp_path / "pairs.jsonl"), tmp_path / "run"), quiet=True)
    rows = metrics(tmp_path / "run")
    assert rows[0]["pairs/margin"] == pytest.approx(0, abs=1e-4), "the policy is the reference"
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["pairs/margin"] > 1 and rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["pairs/accuracy"] > 0.7
    assert result.summary["after"]["pairs/margin"] > result.summary["before"]["pairs/margin"]
    assert {"loglik", "pairs/accuracy", "n"} <= result.summary["after"].keys()
    assert not {"accuracy", "format", "reward/mean", "entropy", "tokens/computed"} & rows[0].keys()
    assert (rows[0]["responses"], rows[0]["prompts"]) == (8, 4)
    assert (tmp_path / "run" / "report.html").is_file()


def test_demonstrations_become_likelier(tiny_model: Path, tmp_path: Path, nothing_drawn: None) -> None:
    result = run(config(sft(), tiny_model, write(tmp_path / "d.jsonl"), tmp_path / "run"), quiet=True)
    rows = metrics(tmp_path / "run")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[0]["loss"] == pytest.approx(-rows[0]["loglik"], rel=1e-4), "the mean over tokens, before the update"
    assert result.summary["after"]["loglik"] > result.summary["before"]["loglik"]
    assert not any(name.startswith("pairs/") for name in rows[0])


@pytest.mark.parametrize("recipe", [dpo(), sft()], ids=["pairs", "demonstrations"])
def test_resumed_to_the_bit(recipe: Recipe, tiny_model: Path, tmp_path: Path) -> None:
    task = write(tmp_path / "data.jsonl")

    def trained(name: str, *steps: int) -> Result:
        for i, n in enumerate(steps):
            settings = config(recipe, tiny_model, task, tmp_path / name, steps=n, checkpoints={"every": 1})
            result = run(settings, resume=tmp_path / name if i else None, quiet=True)
        return result

    whole, halves = trained("whole", 4), trained("halves", 2, 4)
    one, other = (load_file(r.out / "model" / "model.safetensors") for r in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("recipe", [dpo(), sft()], ids=["pairs", "demonstrations"])
def test_any_micro_batch_gives_the_same_gradient(
    recipe: Recipe, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    monkeypatch.setattr(Trainer, "sample", lambda self, batch, *_: batches.append(batch))
    run(config(recipe, tiny_model, write(tmp_path / "d.jsonl"), tmp_path / "run", steps=1), quiet=True)
    found = []
    for micro_batch in (1, 3, 8):
        engine = LocalEngine(load_tiny(tiny_model), recipe, micro_batch=micro_batch)
        batch = batches[0]
        batch = batch.replace(**{name: x.double() for name, x in batch.columns().items() if x.is_floating_point()})
        engine.gradient(recipe, batch)
        found.append(torch.cat([p.grad.flatten() for p in engine.policy.model.parameters() if p.grad is not None]))
    for other in found[1:]:  # the model's rotary angles are float32, and round by the width of a piece
        assert (found[0] - other).norm() < 1e-6 * found[0].norm()


def test_a_recipe_of_given_texts_is_read_back() -> None:
    for recipe in (dpo(), sft()):
        assert recipe_from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("recipe", "row", "words"),
    [
        (dpo(), {"answer": "4"}, ["reads chosen and rejected", "prompt, chosen, rejected"]),
        (Recipe(source=Group(), aggregate=TokenMean()), {"answer": "4"}, ["has no loss"]),
        (sft(), {"chosen": "a", "rejected": "b"}, ["reads completion", "has none"]),
        (po.methods.grpo(), {"completion": "a"}, ["have no answer", "Demonstrations()"]),
        (po.methods.grpo(), {"chosen": "a", "rejected": "b"}, ["have no answer", "PreferencePairs()"]),
    ],
)
def test_source_and_data_that_do_not_fit_are_refused(
    recipe: Recipe, row: dict[str, str], words: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}?"} | row) + "\n" for i in range(12)))
    with pytest.raises(UserError) as error:
        run(config(recipe, tiny_model, path, tmp_path / "run", batch=16), quiet=True)
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"prompt": "b?", "chosen": "a"}, "pairs.jsonl, line 2: no 'rejected'"),
        ({"prompt": "b?", "chosen": "a", "rejected": " "}, "pairs.jsonl, line 2: rejected is empty"),
        ({"prompt": "b?", "chosen": 3, "rejected": "b"}, "line 2: chosen is a number, expected text or a list"),
        ({"prompt": "b?", "completion": "a"}, "line 1: no 'completion', which pairs.jsonl, line 2 has"),
        (
            {"prompt": "b?", "chosen": "a", "rejected": "a"},
            "pairs.jsonl, line 2: chosen and rejected are the same text, so that nothing is preferred: take the row out",
        ),
        (
            {"prompt": [{"role": "user", "content": "b?"}], "chosen": "a", "rejected": "b"},
            "pairs.jsonl, line 2: prompt is chat messages, and text in pairs.jsonl, line 1: write it alike in all rows of a file",
        ),
        (
            {"prompt": "b?", "chosen": "a", "rejected": said("b")},
            "pairs.jsonl, line 2: rejected is chat messages, and text in pairs.jsonl, line 1",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named(second: dict[str, Any], words: str, tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "chosen": "a", "rejected": "b"}, second]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError) as error:
        load_task(str(path))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"prompt": "a?", "completion": "a", "label": "math"},
            "line 1: label is 'math', expected true or false, 1 or 0",
        ),
        ({"prompt": "a?", "completion": "a", "label": 2}, "line 1: label is '2', expected true or false, 1 or 0"),
        (
            {"messages": [{"role": "user", "content": "a?"}], "label": 1},
            "line 1: a label, and no text that it is about",
        ),
        (
            {"prompt": "a?", "chosen": turns("x"), "rejected": "b"},
            "line 1: chosen: expected one message of the assistant",
        ),
        ({"prompt": "a?", "responses": ["a"], "scores": [1]}, "line 1: responses has 1, expected two or more"),
        ({"prompt": "a?", "responses": ["a", "b"], "scores": [1]}, "line 1: 2 responses and 1 scores"),
        ({"prompt": "a?", "responses": ["a", " "], "scores": [1, 2]}, "line 1: responses, 2 is empty"),
        ({"prompt": "a?", "responses": ["a", "b"], "scores": [1, "x"]}, "line 1: scores, 2 is text, expected a finite"),
        ({"prompt": "a?", "responses": "a, b", "scores": [1, 2]}, "line 1: responses is text, expected a list"),
        (
            {"chosen": turns("a?", "b", "c?", "d"), "rejected": turns("a?", "x", "c?", "e")},
            "line 1: chosen and rejected have 1 messages in common, of 4 and 4: expected one or more, which are the prompt",
        ),
        (
            {"chosen": turns("a?", "b"), "rejected": turns("a?", "b")},
            "line 1: chosen and rejected are the same chat, so that nothing is preferred",
        ),
        (
            {"prompt": turns("a?"), "chosen": turns("a?", "b"), "rejected": turns("x?", "c")},
            "line 1: rejected: the messages before its last one are not those of prompt",
        ),
    ],
)
def test_texts_that_cannot_be_used_are_named(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError) as error:
        load_task(str(path))
    assert f"d.jsonl, {words}" in str(error.value)


def test_messages_of_the_assistant_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    said = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    path.write_text("".join(json.dumps({"prompt": f"{i}?"} | said) + "\n" for i in range(8)))
    task = load_task(str(path))
    assert task.judge is None and task.texts == {"chosen", "rejected"}
    assert (task.train[0].chosen, task.train[0].rejected, task.train[0].answer) == ("chosen", "rejected", "")


def test_parts_that_read_verdicts_are_refused_without_a_judge() -> None:
    with pytest.raises(ValueError, match=r"needs 'correct', which only responses have that are drawn and judged"):
        sft().replace(regularizers=(Likelihood(rows=Judged()),))
    with pytest.raises(ValueError, match="needs an advantage, and the slot is empty"):
        dpo().replace(advantage=None)
