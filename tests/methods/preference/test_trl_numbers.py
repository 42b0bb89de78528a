"""Losses of pairs equal those that TRL 1.16 computes: two pairs by hand, and the numbers of its own functions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from policyopt.methods.preference.aot import aot
from policyopt.methods.preference.apo_down import apo_down
from policyopt.methods.preference.apo_zero import apo_zero
from policyopt.methods.preference.bco import bco
from policyopt.methods.preference.discopop import discopop
from policyopt.methods.preference.dpo import dpo
from policyopt.methods.preference.exo import exo
from policyopt.methods.preference.kto import kto
from policyopt.methods.preference.ld_dpo import ld_dpo
from policyopt.methods.preference.mpo import Mixture, mpo
from policyopt.methods.preference.nca import nca
from policyopt.methods.preference.wpo import COLLISION, OnPolicyWeight, wpo
from policyopt.objective import credit, objective
from policyopt.parts import Logistic
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.schema import member
from tests.methods.preference.pairs import pairs, worked

LOGP = [[-0.5, -1.2, -0.3], [-0.7, -0.4], [-1.1, -0.9], [-0.2, -1.5, -0.8, -0.6]]
REF = [[-0.6, -1.0, -0.9], [-0.9, -0.8], [-0.7, -0.8], [-0.4, -1.0, -0.7, -0.5]]
APART = [*REF[:2], [-1.4, -1.1], REF[3]]
"""The reference under which margins and log-ratios are in another order than the pairs."""
COLLIDE = [[-0.9, -0.8, -0.7], [-0.5, -0.6], [-0.7, -0.4], [-0.3, -0.9, -0.6, -0.8]]


def padded(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([[*row, *[0.0] * (4 - len(row))] for row in rows], dtype=torch.float64)


def two(ref: list[list[float]] = REF) -> Batch:
    """Chosen, chosen, rejected, rejected."""
    side = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    return make_batch(
        mask=padded([[1.0] * len(row) for row in LOGP]), logp=padded(LOGP), old_logp=padded(LOGP), ref_logp=padded(ref),
        reward=side, chosen=side, group=torch.tensor([0, 1, 0, 1]),
        **{member("statistic", COLLISION.key): padded(COLLIDE)},
    )  # fmt: skip


def loss(recipe: Recipe, batch: Batch | None = None) -> float:
    return float(objective(recipe, credit(recipe, two() if batch is None else batch)))


def weighed(recipe: Recipe) -> Recipe:
    return recipe.set("surrogate.weight", OnPolicyWeight())


MEAN = dpo(beta=0.5).set("surrogate.score.reduce", "mean")
"""Length-normalised DPO: TRL's sigmoid_norm."""


@pytest.mark.parametrize(
    ("recipe", "number"),
    [
        (dpo(beta=0.5), 0.464785),
        (dpo(beta=0.5, label_smoothing=0.1, robust=True), 0.399160),
        (MEAN, 0.593464),
        (exo(beta=0.5, label_smoothing=0.1), 0.262292),
        (exo(beta=0.5), 1.908476),
        (nca(beta=0.5), 1.273191),
        (bco(beta=0.5, momentum=None), 1.141087),
        (apo_zero(beta=0.5), 0.869514),
        (apo_down(beta=0.5), 0.940012),
        (discopop(beta=0.5), 0.591736),
        (discopop(beta=0.1), 0.872036),
        (ld_dpo(beta=0.5), 0.503730),
        (mpo(beta=0.5), 1.220045),
        (wpo(beta=0.5), 0.373685),
        (weighed(apo_zero(beta=0.5)), 0.699952),
        (weighed(nca(beta=0.5)), 1.025316),
        (weighed(MEAN), 0.477984),
        (weighed(discopop(beta=0.5)), 0.475526),
        (weighed(bco(beta=0.5, momentum=None)), 0.918355),
    ],
)
def test_a_loss_is_what_trl_computes(recipe: Recipe, number: float) -> None:
    assert loss(recipe) == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize(
    ("beta", "smoothing", "paired", "number"),
    [
        (0.5, 0.0, True, 0.574320),
        (0.5, 0.1, True, 0.601820),
        (2.0, 0.0, True, 0.399115),
        (0.5, 0.0, False, 0.571268),
        (0.5, 0.1, False, 0.598768),
        (2.0, 0.0, False, 0.362533),
    ],
)
def test_sorted_losses_are_what_trl_computes(beta: float, smoothing: float, paired: bool, number: float) -> None:
    assert loss(aot(beta, smoothing, paired), two(APART)) == pytest.approx(number, abs=1e-6)


def labelled(z: float) -> Batch:
    """The four texts by themselves, and one behind another prompt, whose log-ratio is the point of reference."""
    four = two()
    rows = {name: torch.cat([x, x[:1]]) for name, x in four.columns().items()}
    rows["ref_logp"][-1] = rows["logp"][-1] - z / 3 * rows["mask"][-1]
    return make_batch(**rows | {"group": torch.arange(5), "origin": torch.tensor([0, 0, 0, 0, 1])})


@pytest.mark.parametrize(
    ("recipe", "z", "number"),
    [
        (kto(beta=0.5), 0.3, 0.435054),
        (kto(0.5, 2.0, 0.5), 0.3, 0.569124),
        (kto(beta=0.5), -0.3, 0.434757),
        (kto(0.5, zero=True), None, 0.434757),
        (kto(0.5, 2.0, 0.5, zero=True), None, 0.541146),
    ],
)
def test_labelled_texts_lose_what_trl_computes(recipe: Recipe, z: float | None, number: float) -> None:
    assert loss(recipe, two() if z is None else labelled(z)) == pytest.approx(number, abs=1e-6)


# What the numbers do not say -------------------------------------------------------------------------------------------

BATCH = pairs([(4, 2), (1, 4), (3, 3)])


def test_reverse_and_forward_kl_rest_at_the_same_place_and_the_reverse_one_gives_up() -> None:
    z = torch.tensor([math.log(9), -30.0], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(exo(label_smoothing=0.1).get("surrogate.link").loss(z).sum(), z)
    (forward,) = torch.autograd.grad(Logistic(smoothing=0.1).loss(z).sum(), z)
    assert found[0].abs() < 1e-12 and forward[0].abs() < 1e-12
    assert found[1].abs() < 1e-10 and forward[1] == pytest.approx(-0.9)


def test_no_flips_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="smoothing"):
        exo(label_smoothing=0.0)


def test_absolute_losses_move_each_side_by_its_own_score() -> None:
    moved = BATCH.replace(ref_logp=BATCH.ref_logp - (1 - BATCH.reward)[:, None] * BATCH.terminal())  # rejected alone
    for recipe in (nca(), bco(), apo_zero()):
        same = worked(recipe, moved)[1][BATCH.reward > 0] - worked(recipe, BATCH)[1][BATCH.reward > 0]
        assert same.abs().max() < 1e-12, recipe.name
    assert (worked(dpo(), moved)[1] - worked(dpo(), BATCH)[1])[BATCH.reward > 0].abs().max() > 1e-4


def test_apo_down_lowers_both_sides_where_the_gap_is_wide() -> None:
    wide = BATCH.replace(ref_logp=BATCH.logp + (1 - BATCH.reward)[:, None] * BATCH.mask * 30)
    gradient = worked(apo_down(beta=1.0), wide)[1]
    assert (gradient[BATCH.mask > 0] > -1e-12).all() and gradient[BATCH.reward > 0].max() > 0.01
    assert (worked(apo_zero(beta=1.0), wide)[1][BATCH.reward > 0] <= 0).all()


def test_the_mean_score_is_the_closest_point_of_reference() -> None:
    score = (BATCH.logp - BATCH.ref_logp).mul(BATCH.mask).sum(-1)
    losses = {
        d: worked(bco(beta=1e-3).set("surrogate.link.shift", float(score.mean()) + d), BATCH)[0] for d in (-9, 0, 9)
    }
    assert losses[0] < min(losses[-9], losses[9])


def test_the_point_of_reference_follows_the_mean_log_ratio() -> None:
    (follows,) = bco(momentum=0.75).controllers
    assert follows(0.0, {"kl/ref_response": 4.0}, {}) == 1.0
    assert not bco(momentum=None).controllers


def test_order_within_pairs_is_nothing_to_sorted_sides() -> None:
    crossed = BATCH.replace(group=torch.tensor([0, 1, 1, 2, 2, 0]))
    assert loss(aot(paired=False), BATCH) == pytest.approx(loss(aot(paired=False), crossed))
    assert loss(dpo(), BATCH) != pytest.approx(loss(dpo(), crossed), abs=1e-6)


def test_one_pair_sorted_is_dpo() -> None:
    one = BATCH[:2]
    for paired in (True, False):
        torch.testing.assert_close(worked(aot(paired=paired), one)[1], worked(dpo(), one)[1])


def test_a_mixture_is_the_sum_of_its_losses() -> None:
    link = Mixture(of=(Logistic(beta=0.3), nca().get("surrogate.link")), weights=(0.25, 2.0))
    (both, gradient), (a, up), (b, down) = (
        worked(r, BATCH) for r in (dpo().set("surrogate.link", link), dpo(beta=0.3), nca())
    )
    assert both == pytest.approx(0.25 * a + 2 * b)
    torch.testing.assert_close(gradient, 0.25 * up + 2 * down)
    with pytest.raises(ValueError, match="1 weights for 2 links"):
        dataclasses.replace(link, weights=(1.0,))


def test_a_token_as_likely_as_a_draw_weighs_one() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [1 / 3] * 3], dtype=torch.float64)) + 3
    found = COLLISION(logits, torch.zeros(2, dtype=torch.long), {})
    torch.testing.assert_close(found.exp(), torch.tensor([0.375, 1 / 3], dtype=torch.float64))


def test_no_gradient_goes_through_the_weight() -> None:
    plain, heavy = (worked(r, two())[1] for r in (dpo(beta=0.5), wpo(beta=0.5)))
    ratio = (heavy / plain)[two().mask > 0]
    u = OnPolicyWeight()(two(), torch.tensor([0, 1]), torch.tensor([2, 3]))
    torch.testing.assert_close(
        ratio.unique().sort().values.round(decimals=9).unique(), u.sort().values.round(decimals=9)
    )
