"""The page of daa-overoptimisation."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from policyopt.methods.analysis.daa_overoptimisation import TopK, TopKShares, daa_overoptimisation
from tests.batches import random_batch


def at(logits: torch.Tensor, k: int, what: Any) -> torch.Tensor:
    return TopK(k=k, what=what)(logits, torch.zeros(len(logits), dtype=torch.long), {})


def test_equal_tokens_have_the_entropy_of_their_number_and_a_sure_one_has_none() -> None:
    equal, sure = torch.zeros(2, 8).double(), torch.tensor([[0.0, 900.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(at(equal, 5, "entropy"), torch.full((2,), math.log(5)).double())
    torch.testing.assert_close(at(equal, 5, "mass"), torch.full((2,), 5 / 8).double())
    assert at(sure, 3, "entropy").item() == 0 and at(sure, 1, "mass").item() == 1


def test_mass_grows_with_k_to_one_and_entropy_stays_below_its_logarithm() -> None:
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    mass = torch.stack([at(logits, k, "mass") for k in range(1, 9)])
    assert (mass.diff(dim=0) >= 0).all()
    torch.testing.assert_close(mass[5:], torch.ones(3, 20).double())
    for k in range(1, 7):
        entropy = at(logits, k, "entropy")
        assert (entropy >= 0).all() and (entropy <= math.log(k) + 1e-12).all()
        torch.testing.assert_close(entropy, at(logits + 7, k, "entropy"))
    # All of the vocabulary: both are the entropy itself.
    torch.testing.assert_close(at(logits, 6, "partial"), torch.distributions.Categorical(logits=logits).entropy())
    torch.testing.assert_close(at(logits, 6, "entropy"), at(logits, 6, "partial"))


def test_a_flat_policy_and_a_collapsed_one_are_told_apart() -> None:
    logits = torch.tensor([[4.0, 3.5, 3.0, 0.0, 0.0, 0.0]]).double()
    flat, collapsed = logits / 4, logits * 8
    assert at(flat, 3, "mass") < at(logits, 3, "mass") and at(flat, 3, "entropy") > at(logits, 3, "entropy")
    assert at(collapsed, 3, "entropy") < at(logits, 3, "entropy") and at(collapsed, 3, "mass") > at(logits, 3, "mass")


def test_the_probe_takes_the_mean_over_tokens_of_responses() -> None:
    batch = random_batch(groups=(2,), lengths=(3, 1), width=4)

    def leaves(batch: Any, wanted: Any) -> dict[str, torch.Tensor]:
        found = {"mass": 0.25, "entropy": 2.0, "partial": 1.0}
        # A response of one token counts a third of one of three; padding does not count.
        return {s.key: found[s.what] * (1 + torch.arange(4).double()).expand(2, 4) for s in wanted.statistics}

    policy = SimpleNamespace(likelihood=lambda: SimpleNamespace(leaves=leaves))
    (probe,) = daa_overoptimisation(k=4)
    assert isinstance(probe, TopKShares) and probe.k == 4
    mean = (1 + 2 + 3 + 1) / 4
    assert probe.model(policy, batch) == pytest.approx(
        {"topk/mass": 0.25 * mean, "topk/entropy": 2 * mean, "topk/partial_entropy": mean}
    )
