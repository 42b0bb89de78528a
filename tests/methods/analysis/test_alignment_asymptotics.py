"""The page of alignment-asymptotics."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from policyopt.methods.analysis.alignment_asymptotics import (
    BestOf,
    alignment_asymptotics,
    best_of,
    best_of_kl,
    expected_best,
    kl,
    strength_at,
)
from policyopt.parts.probe.tilt import tilt
from tests.methods.shared_divergence import PRIOR, REWARD, distributions


def test_the_posterior_at_its_ends() -> None:
    torch.testing.assert_close(tilt(PRIOR, REWARD, 1e-12), PRIOR)
    torch.testing.assert_close(tilt(PRIOR, torch.ones_like(PRIOR), 5.0), PRIOR)
    assert float(tilt(PRIOR, REWARD, 1e3)[2]) == pytest.approx(1)
    barred = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert tilt(barred, REWARD, 1.0)[2:].tolist() == [0, 0]
    assert float(kl(barred, PRIOR)) == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.3))


# Best of N and the front -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_is_the_best_of_n_draws(n: int) -> None:
    reward = torch.tensor([0.1, 0.7, 0.7, -1.0], dtype=torch.float64)  # a tie, left to chance
    base = torch.tensor([0.3, 0.2, 0.1, 0.4], dtype=torch.float64)
    wanted = torch.zeros(4, dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=n):
        top = max(reward[list(draws)])
        winners = [i for i in draws if reward[i] == top]
        for i in winners:
            wanted[i] += base[list(draws)].prod() / len(winners)
    torch.testing.assert_close(best_of(base, reward, n), wanted)
    if n == 1:
        assert torch.equal(best_of(base, reward, 1), base)


def test_best_of_n_at_its_ends_and_under_monotone_maps() -> None:
    assert float(best_of(PRIOR, REWARD, 4000)[2]) == pytest.approx(1)
    torch.testing.assert_close(best_of(PRIOR, REWARD, 5), best_of(PRIOR, REWARD.exp(), 5))
    assert float((tilt(PRIOR, REWARD, 2.0) - tilt(PRIOR, REWARD.exp(), 2.0)).abs().max()) > 0.1
    fine = torch.full((1000,), 1 / 1000, dtype=torch.float64)
    order = torch.arange(1000, dtype=torch.float64)
    for n in (2, 8, 32):
        assert float(kl(best_of(PRIOR, REWARD, n), PRIOR)) < best_of_kl(n)
        assert float(kl(best_of(fine, order, n), fine)) == pytest.approx(best_of_kl(n), rel=0.03)


def test_at_equal_distance_the_tilt_has_most_reward() -> None:
    for n, seed in itertools.product((2, 4, 9), range(3)):
        reward = distributions(4, seed=seed)
        best = best_of(PRIOR, reward, n)
        distance = float(kl(best, PRIOR))
        tilted = tilt(PRIOR, reward, strength_at(PRIOR, reward, distance))
        assert float(kl(tilted, PRIOR)) == pytest.approx(distance, rel=1e-9)
        assert float((tilted * reward).sum()) >= float((best * reward).sum())
        level = tilt(PRIOR, reward, 0.7)
        # Pythagoras: among distributions of one mean reward the tilt is nearest
        other = (
            level + 0.02 * torch.linalg.qr(torch.stack([torch.ones(4).double(), reward], 1), mode="complete")[0][:, 3]
        )
        torch.testing.assert_close(kl(other, PRIOR) - kl(level, PRIOR), kl(other, level))


def test_a_distance_out_of_reach_is_refused() -> None:
    assert strength_at(PRIOR, REWARD, 0.0) == 0
    assert strength_at(PRIOR, REWARD, 1e-6) > 0
    with pytest.raises(ValueError, match=r"no tilt lies 2 nats away.*1.60944 nats"):
        strength_at(PRIOR, REWARD, 2.0)


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_expected_best_is_the_mean_over_all_choices_of_n(n: int) -> None:
    reward = distributions(2, 5)
    wanted = [sum(max(c) for c in itertools.combinations(row, n)) / math.comb(5, n) for row in reward.tolist()]
    torch.testing.assert_close(expected_best(reward, n), torch.tensor(wanted, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs at least 6 draws, there are 5"):
        expected_best(reward, 6)


def test_the_front_in_the_log() -> None:
    reward, log_ratio = distributions(3, 6), torch.full((3, 6), 0.4, dtype=torch.float64)
    found = alignment_asymptotics(most=4)[0].samples(reward, log_ratio)
    assert {name.split("@")[1] for name in found if "@" in name} == {"1", "2", "4"}
    assert found["front/kl"] == pytest.approx(0.4)
    assert found["best_of/reward@1"] == found["front/reward"] == pytest.approx(float(reward.mean()))
    assert found["best_of/reward@1"] < found["best_of/reward@2"] < found["best_of/reward@4"]
    assert found["tilt/reward@1"] == pytest.approx(found["front/reward"])
    assert found["tilt/reward@4"] > found["tilt/reward@2"]
    level = BestOf().samples(torch.ones(2, 3), torch.zeros(2, 3))
    assert level["tilt/reward@2"] == level["best_of/reward@2"] == 1
