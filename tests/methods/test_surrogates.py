"""Soft gates, penalties, contrasts and off-policy methods: each in the limits where it is something known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.control import Schedule
from policyopt.methods.clip.sapo_soft import SoftGate
from policyopt.methods.contrast.copg import Regress, copg
from policyopt.methods.contrast.disco import HardNegatives, TrustRegion, disco
from policyopt.methods.contrast.p3o import p3o
from policyopt.methods.contrast.reg_grpo import AdvantageRegression, reg_grpo
from policyopt.methods.contrast.trpa import trpa
from policyopt.methods.divergence.mdpo import mdpo
from policyopt.methods.divergence.r2vpo import DualAscent
from policyopt.methods.entropy.clip_cov import CovarianceBand
from policyopt.methods.entropy.kl_cov import TopCovariance
from policyopt.methods.offpolicy.opmd_asymre import AdvantageWeight
from policyopt.methods.offpolicy.remix import remix
from policyopt.methods.offpolicy.vespo import GammaWeight, TrajectoryRatio
from policyopt.objective import objective
from policyopt.parts import ClipMask, Logistic, Pairs, Proximal, Reset, RowScore
from policyopt.parts.regularizer.proximal import deviation
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_surrogates import same, scores, tokens

# Penalties -----------------------------------------------------------------------------------------------------------


def test_deviations_estimate_what_they_say() -> None:
    g = torch.Generator().manual_seed(0)
    old, new = (torch.randn(5, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    p, d = old.exp(), new - old
    forward, reverse = (p * (old - new)).sum(), (new.exp() * (new - old)).sum()
    for kind, wanted in (("kl-old-new", forward), ("k3-old-new", forward), ("kl-new-old", reverse)):
        same((p * deviation(d, kind)).sum(), wanted)  # type: ignore[arg-type]
    same((new.exp() * deviation(d, "k3")).sum(), reverse)
    same((p * deviation(d, "chi2")).sum(), (new.exp() ** 2 / p).sum() - 1)
    for kind in ("chi2", "kl-new-old", "k3", "k2", "abs", "k3-old-new"):
        assert (deviation(d, kind) > 0).all()  # type: ignore[arg-type]
        assert float(deviation(torch.zeros(1), kind)) == 0  # type: ignore[arg-type]


def test_a_ring_adds_to_two_sides_what_the_update_pulls_back() -> None:
    ratio = torch.tensor([0.3, 0.4, 0.5, 0.8, 1.0, 1.2, 1.5, 2.9, 3.0, 3.5], dtype=torch.float64)

    def kept(sides: Any, a: float) -> list[int]:
        part = ClipMask(low=0.2, high=0.2, sides=sides, ring_low=0.6, ring_high=2.0)
        return part(ratio.log()[None], tokens([0.0] * 10, a))[0].int().tolist()

    for a in (1.0, -1.0, 0.0):
        assert kept("two", a) == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert kept("one", 1.0) == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert kept("one", -1.0) == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert kept("ring", 1.0) == [1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    assert kept("ring", -1.0) == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential", "reciprocal"])
def test_a_schedule_in_stairs_takes_the_values_of_the_smooth_one_at_their_ends(shape: Any) -> None:
    smooth, stairs = (
        Schedule(field="x", start_value=2.0, end_value=0.5, steps=12, delay=3, shape=shape, stairs=n) for n in (None, 4)
    )
    for step in range(20):
        end = 3 + 3 * math.ceil(max(step - 3, 0) / 3)
        assert stairs.value(step) == pytest.approx(smooth.value(min(end, 15)))
    with pytest.raises(ValueError, match="needs start_value and end_value above 0"):
        Schedule(field="x", start_value=0.0, end_value=0.5, steps=12, shape="reciprocal")


def same_prompt(batch: Batch) -> list[tuple[int, int]]:
    group = batch.group.tolist()
    return [(i, j) for j in range(len(group)) for i in range(j) if group[i] == group[j]]


def test_all_pairs_one_by_one() -> None:
    batch = random_batch(groups=(4, 1, 3, 2), lengths=(3, 1, 4, 2, 5, 6, 2, 1, 4, 3))
    s, r, right = scores(batch), batch.reward.tolist(), batch.correct.tolist()
    total = 0.0
    for i, j in same_prompt(batch):
        total += -((r[i] - r[j]) - 0.2 * (s[i] - s[j])) * (s[i] - s[j])
    got = objective(copg(beta=0.4), ready(copg(), batch))
    assert float(got) == pytest.approx(total / len(same_prompt(batch)))

    n = batch.mask.sum(-1).tolist()
    losses = []
    for i, j in same_prompt(batch):
        i, j = (i, j) if r[i] > r[j] else (j, i)
        margin = 0.3 * (2.0 if right[i] else 1.0) * (s[i] / n[i] - s[j] / n[j])
        losses.append(math.log1p(math.exp(-margin)))
    recipe = trpa(beta=0.3, anisotropy=2.0, tr_kl_coef=0.0).replace(shape=())
    assert float(objective(recipe, ready(recipe, batch))) == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("recipe", [copg(), trpa().replace(shape=()), p3o(), p3o("joint"), disco(), reg_grpo()],
                         ids=["copg", "trpa", "p3o", "p3o joint", "disco", "reg-grpo"])  # fmt: skip
def test_a_number_for_each_prompt_changes_no_contrast(recipe: Recipe) -> None:
    batch = random_batch()
    shifted = batch.replace(reward=batch.reward + torch.tensor([3.0, -1.0, 0.5]).double()[batch.group])
    same(dlogp(recipe, shifted), dlogp(recipe, batch), 1e-9)


def test_without_a_pair_only_the_trust_region_is_left() -> None:
    batch = random_batch().replace(correct=torch.zeros(9).double(), formatted=torch.ones(9).double())
    got = dlogp(trpa(tr_kl_coef=0.5), batch)
    wanted = 0.5 * (1 - (batch.old_logp - batch.logp).exp()) * batch.mask / batch.mask.sum()
    same(got, wanted)
    assert not dlogp(copg(), batch.replace(reward=batch.correct, ref_logp=batch.logp)).any()


# Fields --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftGate(tau_pos=0.0),
        lambda: GammaWeight(k_neg=-1.0),
        lambda: Proximal(deviation="k4"),  # type: ignore[arg-type]
        lambda: TrustRegion(limit=-0.1),
        lambda: TopCovariance(fraction=1.5),
        lambda: CovarianceBand(above=math.inf),
        lambda: RowScore(reduce="max"),  # type: ignore[arg-type]
        lambda: Logistic(beta=0.0),
        lambda: Regress(beta=-1.0),
        lambda: Pairs(link=RowScore()),  # type: ignore[arg-type]
        lambda: HardNegatives(tau=0.0),
        lambda: AdvantageRegression(floor=0.0),
        lambda: ClipMask(sides="three"),  # type: ignore[arg-type]
        lambda: AdvantageWeight(temperature=0.0),
        lambda: TrajectoryRatio(mismatch_cap=0.0),
        lambda: DualAscent(lr=0.0),
        lambda: Reset(every=3, times=0),
    ],
)
def test_fields_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


def test_a_contrast_needs_two_responses_and_says_so() -> None:
    with pytest.raises(ValueError, match="needs at least 2"):
        copg(group_size=1)
    for wrong in ({"step_size": 0.0}, {"iterations": 0}):
        with pytest.raises(ValueError, match="must be above 0"):
            mdpo(**wrong)
    with pytest.raises(ValueError, match="works token by token"):
        remix().replace(ratio=TrajectoryRatio())
