"""Models beside the policy rest in main memory while nobody reads them; the numbers are the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.group.grpo import grpo
from policyopt.models import offload
from policyopt.models.adapters import LoRA
from policyopt.parts import EMA
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.tiny import load_tiny, token_batch


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Main memory is told by its precision: what rests there has 64 bits, and no layer of 32 could be passed with it."""
    found: list[Tensor] = []

    def fetched(x: Tensor, device: torch.device) -> Tensor:
        found.append(x)
        return x.float()

    monkeypatch.setattr(offload, "rested", lambda x: x.double())
    monkeypatch.setattr(offload, "fetched", fetched)
    return found


def engines(recipe: Recipe, folder: Path, **options: Any) -> list[LocalEngine]:
    """One whose models rest, and one whose models stay."""
    found = []
    for resting in (True, False):
        torch.manual_seed(1)
        teacher = load_tiny(folder, "float32")
        with torch.no_grad():
            for p in teacher.model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        roles = {"teacher": teacher}
        found.append(LocalEngine(load_tiny(folder, "float32"), recipe, roles, lr=1e-3, offload=resting, **options))
    return found


def narrow() -> Batch:
    batch = token_batch()
    batch = batch.replace(**{n: x.float() for n, x in batch.columns().items() if x.is_floating_point()})
    return batch.replace(advantage=batch.noise, old_logp=-batch.noise)


RECIPES = {"a column of the reference": grpo(kl_coef=0.1), "whole distributions of a teacher": gkd()}


@pytest.mark.parametrize("name", RECIPES)
def test_what_rests_gives_the_same_numbers_and_is_fetched_once_a_batch(
    name: str, tiny_model: Path, fetches: list[Tensor]
) -> None:
    recipe = RECIPES[name]
    resting, staying = engines(recipe, tiny_model, micro_batch=2)
    (role,) = resting.roles.values()
    names = [n for n, p in role.model.named_parameters() if p.dtype == torch.float64]
    assert names and not fetches
    for _ in range(2):
        fetches.clear()
        batches = [e.annotate(narrow(), recipe) for e in (resting, staying)]
        reports = [e.update(recipe, b) for e, b in zip((resting, staying), batches, strict=True)]
        assert reports[0].loss == reports[1].loss
        assert len(fetches) == len(names), "four micro-batches read what was fetched once"
    theirs = staying.tensors()
    assert all(torch.equal(x, theirs[n]) for n, x in resting.tensors().items())
    assert all(p.dtype == torch.float64 for p in role.model.parameters())


def test_a_reference_that_moves_does_so_at_rest(tiny_model: Path, fetches: list[Tensor]) -> None:
    recipe = grpo(kl_coef=0.1).replace(reference=EMA(decay=0.5))
    resting, staying = engines(recipe, tiny_model)
    for engine in (resting, staying):
        engine.update(recipe, engine.annotate(narrow(), recipe))
        engine.follow(0.5)
    before, after = (e.annotate(narrow(), recipe).ref_logp for e in (staying, resting))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    start = engines(recipe, tiny_model)[1].annotate(narrow(), recipe).ref_logp
    assert float((after - start).abs().max()) > 1e-3


def test_it_is_said_where_nothing_can_be_moved(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        LocalEngine(load_tiny(tiny_model), grpo(kl_coef=0.1), offload=True)
        LocalEngine(load_tiny(tiny_model, lora=LoRA(rank=2)), grpo(kl_coef=0.1), offload=True)
    assert [r.message for r in caplog.records if "offload" in r.message] == [
        "--offload changes nothing here: all models are in main memory",
        "--offload changes nothing here: the recipe reads no model beside the policy that could be moved",
    ]


def test_a_tinker_server_refuses_it() -> None:
    pytest.importorskip("tinker")
    from policyopt.engine import Model, Models
    from policyopt.engine.tinker.engine import TinkerEngine

    with pytest.raises(UserError, match=r"--offload: the models are on the Tinker server"):
        TinkerEngine(None, Models(Model("nowhere")), grpo(), offload=True)  # type: ignore[arg-type]
