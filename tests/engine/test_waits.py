"""How often training would wait for a GPU: so many times for a micro-batch, whatever the layers, rows and parts are."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from policyopt.engine.local import LocalEngine
from policyopt.methods import ppo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.group.grpo import grpo
from policyopt.objective import credit, kept, selected, shaped
from policyopt.parts import KL, EntropyBonus
from policyopt.recipe import Recipe
from policyopt.registry import Method
from policyopt.rows import Batch, make_batch
from policyopt.training.metrics import batch_metrics
from tests.batches import EVERY_METHOD, gradients, random_batch, ready, with_all_terms, with_statistics
from tests.tiny import load_tiny, token_batch
from tests.waits import Waits

FEW = 20
"""Of a micro-batch: lengths, which prompts are shared, where tokens of responses lie, and one transfer of what the log sums up."""


@pytest.fixture(scope="module")
def deep_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with more layers."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(tiny_model)
    config.num_hidden_layers, config.layer_types = 6, ["full_attention"] * 6
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def engine_and_batch(model: Path, recipe: Recipe, groups: tuple[int, ...] = (4, 3)) -> tuple[LocalEngine, Batch]:
    engine = LocalEngine(load_tiny(model, "float32"), recipe)
    columns = {name: x.float() if x.is_floating_point() else x for name, x in token_batch(groups).columns().items()}
    batch = make_batch(**columns | {"old_logp": torch.full_like(columns["mask"], -2.0)})
    return engine, credit(recipe, engine.prepare(engine.annotate(batch, recipe), recipe))


def of_gradient(model: Path, recipe: Recipe, **batch: Any) -> Counter[str]:
    engine, rows = engine_and_batch(model, recipe, **batch)
    with Waits() as waits:
        engine.gradient(recipe, rows)
    return waits.places


def test_waits_are_few_and_do_not_grow_with_layers_rows_or_parts(tiny_model: Path, deep_model: Path) -> None:
    plain = of_gradient(tiny_model, grpo())
    assert 0 < plain.total() <= FEW, plain
    assert of_gradient(deep_model, grpo()) == plain, "layers"
    assert of_gradient(tiny_model, grpo(), groups=(4, 3, 8, 8)) == plain, "rows"
    more = grpo().replace(regularizers=(KL(), EntropyBonus(), KL(estimator="k2", label="k2")))
    assert of_gradient(tiny_model, more) == plain, "parts"
    assert not [place for place in plain if place.startswith(("parts/", "objective", "groups"))], plain


def test_credit_and_the_optimiser_wait_once_for_what_they_return(tiny_model: Path) -> None:
    recipe = dapo()
    engine, batch = engine_and_batch(tiny_model, recipe)
    with Waits() as waits:
        credit(recipe, batch)
    assert not waits.places
    engine.gradient(recipe, batch)
    with Waits() as waits:
        engine.weights.step(1.0)
    assert waits.places.total() == 1, "the length of the gradient"
    with Waits() as waits:
        engine.update_size()
    assert waits.places.total() <= 1


def test_waits_are_counted() -> None:
    x = torch.tensor([1.0, 2.0])
    with Waits() as waits:
        _ = float(x[0]), x.tolist(), bool(x.any()), x[x > 1], x.nonzero(), x.repeat_interleave(torch.tensor([1, 2]))
        _ = x + 1, x[:1], x.sum()
    assert waits.places.total() == 6


@pytest.mark.parametrize("make", [grpo, ppo, dapo])
def test_what_training_makes_lies_where_the_batch_lies(tiny_model: Path, make: Callable[[], Recipe]) -> None:
    """What is made without saying where goes to a device that holds nothing, and cannot be computed with."""
    recipe = make()
    engine, batch = engine_and_batch(tiny_model, recipe)
    with torch.device("meta"):
        batch = engine.annotate(batch, recipe)
        batch = credit(recipe, engine.prepare(batch, recipe))
        report = engine.update(recipe, batch[selected(recipe, batch)])
        batch_metrics(batch)
    assert report.applied and report.weight.device == batch.mask.device


@EVERY_METHOD
def test_what_parts_make_lies_where_the_batch_lies(method: Method) -> None:
    recipe = with_all_terms(method)
    batch = with_statistics(recipe, random_batch())
    with torch.device("meta"):
        batch = ready(recipe, shaped(recipe, batch)[kept(recipe, batch)])
        loss, found = gradients(recipe, batch.replace(share=recipe.aggregate(batch)))
    assert {x.device.type for x in (loss, *found.values())} == {"cpu"}
