"""The page of GUI-G1."""

from __future__ import annotations

import pytest
import torch

from policyopt.judging.boxes import agreement, found_box, judge_box, overlap
from policyopt.methods.agents.gui_g1 import ByTargetSize, gui_g1
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.rows import make_batch
from tests.batches import dlogp, random_batch

BOX = (100, 100, 200, 200)


def test_a_perfect_box_is_worth_a_hit_and_both_other_terms() -> None:
    found = found_box(BOX, BOX, 1000, 600)
    assert found == {"hit": 1, "iou": 1, "size": 1}
    assert found["hit"] + 0.25 * found["iou"] + 0.125 * found["size"] == 1.375


def test_a_tiny_box_hits_and_a_miss_still_agrees_somewhat() -> None:
    tiny, whole = found_box((149, 149, 151, 151), BOX, 1000, 600), found_box((0, 0, 1000, 600), BOX, 1000, 600)
    assert tiny["hit"] == 1
    assert tiny["iou"] < whole["iou"] < 0.02
    assert tiny["size"] < 1
    assert agreement((300, 300, 400, 400), BOX, 1000, 600) > 0
    assert overlap((300, 300, 400, 400), BOX) == overlap((150, 150, 100, 100), BOX) == 0
    assert found_box(None, BOX, 1000, 600) == {"hit": 0, "iou": 0, "size": 0}


def test_the_judge_reads_the_last_box() -> None:
    said = judge_box("", '[1, 2, 3, 4] or {"bbox_2d": [100, 100.0, 200, 200]}', "", BOX, 1000, 600)
    assert said["correct"]
    assert said["parts"]["area"] == pytest.approx(10_000 / 600_000)
    assert not judge_box("", "[1, 2, 3]", "", BOX, 1000, 600)["formatted"]


def test_small_targets_count_more_within_bounds_and_the_mean_is_one() -> None:
    area = torch.tensor([0.5, 0.5, 0.01, 0.0], dtype=torch.float64)
    batch = make_batch(mask=torch.ones(4, 1, dtype=torch.float64), reward=torch.zeros(4, dtype=torch.float64))
    weight = ByTargetSize(bound=2.0)(batch.replace(**{"component[area]": area}))
    assert weight.mean() == pytest.approx(1)
    assert weight[3] / weight[0] == pytest.approx(4), "from 1/2 to 2"
    assert ByTargetSize()(batch).tolist() == [1, 1, 1, 1]


def test_with_equal_weights_it_is_dr_grpo() -> None:
    batch = random_batch()
    assert torch.equal(dlogp(gui_g1(), batch), dlogp(dr_grpo(loss_norm=64.0), batch))
    assert torch.allclose(dlogp(gui_g1(loss_norm=32.0), batch), 2 * dlogp(gui_g1(), batch))
