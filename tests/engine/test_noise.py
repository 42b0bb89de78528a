"""What the parts of a mini-batch tell of the noise in its gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from policyopt.engine.local.noise import PARTS
from policyopt.methods.baseline.oblr_po import oblr_po
from tests.engine.test_local import difference, drawn, engine_of, grads


def test_the_gradient_stays_and_parts_that_are_alike_have_no_noise(tiny_model: Path) -> None:
    recipe = oblr_po(group_size=2)
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe, groups=(3, 2))
    plain = engine.gradient(recipe.replace(controllers=()), batch)
    truth = grads(engine)
    assert plain.noise is None, "nobody asked"
    signal, noise = engine.gradient(recipe, batch).noise or (0.0, 0.0)
    assert difference(grads(engine), truth) < 1e-10
    square = sum(float(g.square().sum()) for name, g in truth.items() if name.startswith("policy/"))
    assert noise > 0 and signal + noise == pytest.approx(square)

    alike = batch[torch.tensor([0, 1] * PARTS)]
    signal, noise = engine.gradient(recipe, alike).noise or (0.0, 1.0)
    square = sum(float(g.square().sum()) for name, g in grads(engine).items() if name.startswith("policy/"))
    assert noise == pytest.approx(0, abs=1e-9 * square) and signal == pytest.approx(square)
