"""The page of rl-subnetworks."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.analysis.rl_subnetworks import UpdateSparsity, rl_subnetworks, sparsity, updated
from tests.cases.words.rl_subnetworks import overlap
from tests.methods.shared_divergence import distributions

# Subnetworks -----------------------------------------------------------------------------------------------------------


def test_update_sparsity_in_the_log() -> None:
    start = {"layers.0.q_proj.weight": torch.ones(4, 4), "norm.weight": torch.ones(8)}
    now = {name: x.clone() for name, x in start.items()}
    probe = UpdateSparsity(rank=True)
    assert set(probe.parameters(now, start).values()) == {1.0, 0.0}
    less = {"layers.0.q_proj.weight": start["layers.0.q_proj.weight"] / 1000, "norm.weight": start["norm.weight"]}
    nearly = {**less, "layers.0.q_proj.weight": less["layers.0.q_proj.weight"] * 1.008}
    found = probe.parameters(nearly, less)
    assert (found["sparsity/all"], found["sparsity/exact"]) == (1.0, pytest.approx(8 / 24)), (
        "a step of bfloat16 that is below the tolerance"
    )
    now["layers.0.q_proj.weight"][0, 1] += 0.5
    now["layers.0.q_proj.weight"][2, 1] += 0.5
    found = probe.parameters(now, start)
    wanted = {"all": 22 / 24, "q_proj": 14 / 16, "norm": 1.0, "exact": 22 / 24, "rank": 0.25}
    assert found == {f"sparsity/{name}": pytest.approx(x) for name, x in wanted.items()}


def test_sparsity_depends_on_precision_and_tolerance() -> None:
    start = {"weight": torch.linspace(0.5, 2, 100)}
    now = {"weight": start["weight"] * (1 + 1e-4)}
    assert UpdateSparsity().parameters(now, start)["sparsity/all"] > 0.9
    assert UpdateSparsity(precision="float32").parameters(now, start)["sparsity/all"] == 0
    assert UpdateSparsity(precision="float32", tolerance=1e-3).parameters(now, start)["sparsity/all"] == 1
    square = {"weight": start["weight"].reshape(10, 10)}
    small = {"weight": now["weight"].reshape(10, 10)}
    assert UpdateSparsity(rank=True).parameters(small, square)["sparsity/rank"] < 0.9, "of what bfloat16 shows of it"


def test_overlap_of_masks() -> None:
    a, b = (distributions(10_000, seed=s) > cut for s, cut in ((0, 0.3), (1, 1.0)))
    torch.testing.assert_close(overlap(a, b) * a.sum(), overlap(b, a) * b.sum())
    assert float(overlap(a, b)) == pytest.approx(float(1 - sparsity(b)), abs=0.02), "chance"
    assert float(sparsity(updated(a.double(), a.double(), 0.0))) == 1
    assert rl_subnetworks(rank=True) == (UpdateSparsity(rank=True),)
