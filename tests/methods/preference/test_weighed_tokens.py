"""Facts of the methods that weigh tokens or pairs of DPO, or that add a margin to it, as their papers state them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.methods.preference.dpo import dpo
from policyopt.methods.preference.ld_dpo import SharedLength, ld_dpo
from policyopt.methods.preference.madpo import AdaptiveMargin, madpo
from policyopt.methods.preference.modpo import modpo
from policyopt.methods.preference.tdpo import FORWARD, tdpo
from policyopt.methods.preference.tgdpo import TokenGuided, tgdpo
from policyopt.objective import credit, token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.methods.preference.pairs import pairs, swapped, worked

BATCH = pairs([(4, 2), (1, 4), (3, 3)])
GOOD, BAD = BATCH.reward > 0, BATCH.reward < 1


def same(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=tolerance, atol=tolerance)


def alike(one: Recipe, other: Recipe, batch: Batch = BATCH) -> None:
    (a, up), (b, down) = worked(one, batch), worked(other, batch)
    assert a == pytest.approx(b)
    same(up, down)


def uniform(seed: int) -> Tensor:
    return torch.rand(BATCH.mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# LD-DPO --------------------------------------------------------------------------------------------------------------


def test_alpha_1_and_equal_lengths_are_dpo() -> None:
    alike(ld_dpo(alpha=1.0), dpo())
    alike(ld_dpo(alpha=0.3), dpo(), pairs([(3, 3), (2, 2)]))


def test_the_tail_of_the_longer_text_pulls_alpha_times_as_much() -> None:
    gradient = worked(ld_dpo(alpha=0.25), BATCH)[1]
    for row, head in ((0, 2), (3, 1)):
        same(gradient[row, head:4], 0.25 * gradient[row, :1].expand(4 - head))
    assert worked(ld_dpo(alpha=0.0), BATCH)[1][0, 2:].abs().max() == 0
    for row in (1, 2, 4, 5):  # the shorter ones, and those of equal length
        assert len(gradient[row][BATCH.mask[row] > 0].unique()) == 1


def test_positions_are_those_of_response_tokens() -> None:
    """Tokens that others wrote inside a response are no part of its length."""
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]], dtype=torch.float64)
    x = torch.rand(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = make_batch(
        mask=mask, present=torch.ones(2, 4, dtype=torch.float64), logp=-x, ref_logp=-x, old_logp=-x,
        reward=torch.tensor([1.0, 0.0]).double(), group=torch.tensor([0, 0]),
    )  # fmt: skip
    scale = SharedLength(alpha=0.5)(credit(dpo(), batch)) * mask
    same(scale, torch.tensor([[1, 0, 1, 0.5], [1, 1, 0, 0]]).double())


# TGDPO ---------------------------------------------------------------------------------------------------------------

GUIDED = BATCH.replace(teacher_logp=-3 * uniform(5))


def test_without_alpha_or_with_the_reference_as_guide_it_is_dpo() -> None:
    alike(tgdpo(alpha=0.0), dpo(), GUIDED)
    alike(tgdpo(alpha=0.7), dpo(), BATCH.replace(teacher_logp=BATCH.ref_logp))


def test_gradients_within_a_text_are_as_the_weights_of_its_tokens() -> None:
    gradient = worked(tgdpo(beta=0.4, alpha=0.5), GUIDED)[1]
    reward = 0.4 * (GUIDED.teacher_logp - GUIDED.ref_logp)
    weight = 1 + torch.where(GOOD, 1.0, -1.0)[:, None] * 0.5 * reward
    for row in range(6):
        there = GUIDED.mask[row] > 0
        same((gradient[row] / gradient[row, 0])[there], (weight[row] / weight[row, 0])[there])


def test_a_text_on_both_sides_counts_as_it_is() -> None:
    three = make_batch(**{name: x[:3] for name, x in GUIDED.columns().items()} | {"group": torch.zeros(3).long()})
    three = three.replace(reward=torch.tensor([1.0, 0.5, 0.0]).double())
    scale = TokenGuided(alpha=0.5)(credit(dpo(), three))
    same(scale[1], torch.ones(4).double())
    assert (scale[0][:4] != 1).all() and (scale[2][:1] != 1).all()


# MADPO ---------------------------------------------------------------------------------------------------------------

H = torch.tensor([-9.0, -3.0, -1.0, 0.0, 0.5, 2.0, 3.0, 8.0], dtype=torch.float64)


def weights(part: AdaptiveMargin, h: Tensor = H) -> Tensor:
    """What pairs of such margins weigh."""
    n = len(h)
    zero = torch.zeros(2 * n, 1, dtype=torch.float64)
    batch = make_batch(mask=zero + 1, logp=zero, group=torch.arange(n).repeat(2), score=torch.cat([h, 0 * h]))
    return part(batch, torch.arange(n), torch.arange(n) + n)


def test_a_weight_is_above_1_for_hard_pairs_below_1_for_easy_and_disputed_ones() -> None:
    u = weights(AdaptiveMargin(tau=3.0))
    assert u[0] == 1 and u[1] == 1  # disputed by tau and more
    assert u[2] < 1 and u[7] < 1
    assert ((u[4:6] > 1) & (u[4:6] < 2)).all()
    same(u[[3, 6]], torch.ones(2).double())
    assert (u > 0).all()


def test_the_two_orders_of_a_pair_weigh_one_together() -> None:
    part, h = AdaptiveMargin(tau=3.0), torch.tensor([0.2, 1.0, 2.9], dtype=torch.float64)
    same(torch.sigmoid(h) * weights(part, h) + torch.sigmoid(-h) * weights(part, -h), torch.ones(3).double())


def test_the_factor_falls_from_the_largest_to_the_smallest() -> None:
    part = AdaptiveMargin(c_max=4.0, c_min=0.25, tau=5.0)
    c = part.factor(torch.linspace(0, 40, 200, dtype=torch.float64))
    assert (c.diff() <= 0).all() and c[0] > 3.9 and c[-1] == pytest.approx(0.25)
    assert float(part.factor(torch.tensor(5.0))) == pytest.approx(1.0)
    far = AdaptiveMargin().factor(torch.tensor([1e4]))  # exponentials overflow in float32
    assert float(far) == 0.5


@pytest.mark.parametrize("ends", [(1.0, 1.0), (1.0, 0.5), (2.0, 1.0)])
def test_without_a_range_of_factors_it_is_dpo(ends: tuple[float, float]) -> None:
    alike(madpo(c_max=ends[0], c_min=ends[1]), dpo(), BATCH.replace(score=uniform(3)[:, 0]))


# MODPO ---------------------------------------------------------------------------------------------------------------

SCORED = BATCH.replace(score=4 * uniform(7)[:, 0] - 2, teacher_logp=-2 * uniform(8))


def test_one_objective_and_equal_margins_are_dpo() -> None:
    alike(modpo(0.1, (1.0, 0.0)), dpo(), SCORED)
    alike(modpo(0.1, (0.25, 3.0)), dpo(beta=0.4), SCORED.replace(score=torch.ones(6).double()))


def test_a_common_factor_of_weights_and_beta_changes_nothing() -> None:
    alike(modpo(0.1, (0.4, 0.6)), modpo(0.3, (1.2, 1.8)), SCORED)


def test_what_others_say_for_the_chosen_text_makes_the_pull_stronger() -> None:
    pull = [
        worked(modpo(0.1, (0.5, 0.5)), SCORED.replace(score=m * GOOD.double()))[1][GOOD].abs().max() for m in (0, 2, 4)
    ]
    assert pull[0] < pull[1] < pull[2]


def test_at_the_start_the_loss_is_that_of_the_margin() -> None:
    start = SCORED.replace(ref_logp=SCORED.logp)
    gap = SCORED.score[GOOD] - SCORED.score[BAD]
    loss = worked(modpo(0.1, (0.4, 0.6)), start)[0]
    assert loss == pytest.approx(float(-torch.nn.functional.logsigmoid(-1.5 * gap).mean()))


def test_another_model_is_an_objective_by_its_implicit_reward() -> None:
    reward = 0.3 * ((SCORED.teacher_logp - SCORED.ref_logp) * SCORED.mask).sum(-1)
    by_role = modpo(0.1, (0.5, 0.2, 0.3), ("score",), ("teacher",), role_beta=0.3)
    by_column = modpo(0.1, (0.5, 0.5), ("score",))
    alike_columns = SCORED.replace(score=0.4 * SCORED.score + 0.6 * reward)
    (a, up), (b, down) = worked(by_role, SCORED), worked(by_column, alike_columns)
    assert a == pytest.approx(b)
    same(up, down)
    assert "teacher" in by_role.roles and "teacher" not in by_column.roles


@pytest.mark.parametrize("given", [(0.0, 1.0), (1.0,), (0.5, 0.2, 0.3)])
def test_weights_that_do_not_fit_are_refused(given: tuple[float, ...]) -> None:
    with pytest.raises(
        ValueError, match="expected one above 0 for the objective of the pairs, then one for each of score"
    ):
        modpo(0.1, given)


# TDPO ----------------------------------------------------------------------------------------------------------------

KEY = FORWARD.key
SPREAD = BATCH.with_statistics({KEY: uniform(9) * BATCH.mask})


def gradients(recipe: Recipe, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    loss, found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp, KEY: batch.stat(FORWARD)})
    return float(loss), found


def test_without_alpha_it_is_dpo_and_at_the_reference_log_2() -> None:
    same(worked(dpo(), BATCH)[1], gradients(tdpo(alpha=0.0), SPREAD)[1]["logp"])
    start = BATCH.replace(ref_logp=BATCH.logp).with_statistics({KEY: 0 * BATCH.mask})
    for variant in (1, 2):
        assert gradients(tdpo(variant), start)[0] == pytest.approx(math.log(2))


def test_the_second_variant_pulls_the_rejected_side_down_and_the_first_the_chosen_one_up_too() -> None:
    one, two = (gradients(tdpo(v), SPREAD)[1][KEY] for v in (1, 2))
    there = BATCH.mask > 0
    assert (two[GOOD] == 0).all() and (two[BAD][there[BAD]] > 0).all()
    assert (one[GOOD][there[GOOD]] < 0).all() and (one[BAD][there[BAD]] > 0).all()


def test_the_statistic_is_the_kl_from_the_reference_to_the_policy() -> None:
    p, q = (torch.randn(3, 7, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    expected = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1)
    same(FORWARD(q, torch.zeros(3).long(), {"reference": p}), expected)
    assert "reference" in tdpo().roles and swapped(BATCH).reward[0] == 0
