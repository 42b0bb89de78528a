"""The page of siren."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from policyopt import methods as po
from policyopt.control import FirstValue
from policyopt.methods.entropy.siren import EntropyAnchor, NucleusEntropy
from policyopt.parts import AboveQuantile
from policyopt.steering import States, control
from tests.batches import random_batch
from tests.methods.shared_entropy import SEEDS, logits

# SIREN ---------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_nucleus_is_the_usual_one_or_lacks_its_last_token(seed: int) -> None:
    z = logits(seed)
    target = torch.zeros(len(z), dtype=torch.long)
    for edge in ("exclusive", "inclusive"):
        for row, found in zip(z.softmax(-1), NucleusEntropy(0.75, edge)(z, target, {}), strict=True):  # type: ignore[arg-type]
            p, mass = row.sort(descending=True).values.tolist(), 0.0
            kept = []
            for x in p:
                if mass + (x if edge == "exclusive" else 0.0) < 0.75:
                    kept.append(x)
                mass += x
            shares = [x / sum(kept) for x in kept] or [1.0]
            assert float(found) == pytest.approx(-sum(x * math.log(x) for x in shares), abs=1e-12)


def test_all_of_the_mass_is_the_entropy_and_tokens_outside_have_no_gradient() -> None:
    z = logits().requires_grad_()
    target = torch.zeros(len(z), dtype=torch.long)
    logp = z.log_softmax(-1)
    whole = -(logp.exp() * logp).sum(-1)
    found = NucleusEntropy(1.0, "inclusive")(z, target, {})
    torch.testing.assert_close(found, whole)
    expected = torch.autograd.grad(whole.sum(), z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(found.sum(), z)[0], expected)

    gradient = torch.autograd.grad(NucleusEntropy(0.6, "inclusive")(z, target, {}).sum(), z)[0]
    ordered = z.softmax(-1).sort(-1, descending=True)
    inside = torch.zeros_like(z).scatter(
        -1, ordered.indices, (ordered.values.cumsum(-1) - ordered.values < 0.6).double()
    )
    assert (gradient[inside == 0] == 0).all()
    assert (gradient[(inside == 1) & (inside.sum(-1, keepdim=True) > 1)] != 0).all()


@pytest.mark.parametrize("edge", ["exclusive", "inclusive"])
def test_a_peaked_position_has_a_nucleus_without_entropy_or_nan(edge: Any) -> None:
    z = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    found = NucleusEntropy(0.8, edge)(z, torch.tensor([0]), {})
    assert float(found.detach()) == 0
    assert torch.autograd.grad(found.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("above", [False, True])
def test_the_anchor_pulls_the_peaks_of_each_response_back_and_nothing_else(above: bool) -> None:
    part = EntropyAnchor(coef=1.0, anchor=0.0 if above else 9.0, tokens=AboveQuantile(q=0.8, scope="row", strict=True))
    batch = random_batch(4)
    entropy = batch.entropy.clone().requires_grad_()
    gradient = torch.autograd.grad(part(batch.replace(entropy=entropy)), entropy)[0]
    picked = part.tokens(batch)
    assert torch.equal(gradient != 0, picked)
    assert (gradient[picked] > 0).all() if above else (gradient[picked] < 0).all()
    calm = replace(part, anchor=float(part.mean(batch)))
    assert torch.autograd.grad(calm(batch.replace(entropy=entropy)), entropy)[0].abs().max() == 0


def test_the_anchor_is_the_first_value_that_is_measured() -> None:
    recipe = po.siren()
    controllers = recipe.controllers
    assert isinstance(controllers[0], FirstValue)
    states: States = {}
    seen = []
    for metrics in ({}, {"entropy/peak": 0.7}, {"entropy/peak": 0.2}):
        recipe = control(recipe, metrics, states)
        seen.append(recipe.get("regularizers.EntropyAnchor.anchor"))
    assert seen == [None, 0.7, 0.7]
    assert po.siren(anchor=0.4).get("regularizers.EntropyAnchor.anchor") == 0.4
