"""The page of ACE-RL."""

from __future__ import annotations

import math

import torch

from policyopt.methods.judge.ace_rl import Checklist, ace_rl
from policyopt.objective import shaped
from tests.batches import random_batch
from tests.methods.shared_judges import with_components

NONE = math.nan


def test_a_long_checklist_weighs_as_much_as_a_short_one() -> None:
    batch = with_components(random_batch(groups=(2, 1)), a=[1.0, 0.5, 1.0], b=[0.0, 0.5, NONE], c=[1.0, NONE, NONE])
    batch = shaped(ace_rl(), batch)
    torch.testing.assert_close(batch.reward, torch.tensor([2 / 3, 0.5, 1.0]).double())


def test_an_empty_checklist_leaves_the_length_alone_and_the_target_is_no_item() -> None:
    batch = random_batch(groups=(3,)).replace(true_length=torch.tensor([100.0, 150.0, 250.0]).double())
    batch = with_components(batch, item=[NONE, NONE, NONE], goal=[100.0, 100.0, 100.0])
    found = shaped(ace_rl(target="goal", w_len=0.5), batch)
    torch.testing.assert_close(found.reward, torch.tensor([0.5, 0.25, 0.0]).double())
    torch.testing.assert_close(found.component("length"), torch.tensor([1.0, 0.5, 0.0]).double())


def test_meeting_one_more_never_lowers_and_a_judge_without_parts_keeps_its_score() -> None:
    batch = random_batch(groups=(2,))
    part = Checklist()
    less, more = (part(with_components(batch, a=[0.5, 0.0], b=[b, 0.0])).reward[0] for b in (0.5, 1.0))
    assert more - less == 1 / (2 * 2)
    assert torch.equal(part(batch).reward, batch.reward)
