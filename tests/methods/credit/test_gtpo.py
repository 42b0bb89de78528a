"""The page of GTPO."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.control import FirstValue
from policyopt.methods.credit.gtpo import ConflictFree, gtpo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, RatioTimesAdvantage
from policyopt.rows import Batch, make_batch, pad
from tests.batches import random_batch
from tests.methods.shared_credit import same


def written(*rows: list[int], reward: list[float], entropy: float = 0.0, group: list[int] | None = None) -> Batch:
    tokens = pad(rows, torch.long, 7)  # padding that looks like a token
    mask = pad([[1] * len(row) for row in rows], torch.float64)
    return make_batch(
        tokens=tokens, mask=mask, reward=torch.tensor(reward, dtype=torch.float64),
        group=torch.tensor(group or [0] * len(rows)), sampled_entropy=torch.full_like(mask, entropy),
    )  # fmt: skip


def factor(batch: Batch, omega: float = 2.0) -> list[list[float]]:
    part = ConflictFree(omega=omega)
    found: Tensor = part.factor(part.of(batch).amax(-1) + part.of(batch).amin(-1), batch) * batch.mask
    return found.tolist()


def test_openings_and_endings_that_both_kinds_share_are_spared() -> None:
    batch = written([1, 2, 3, 4, 5], [1, 2, 9, 4, 8, 5], [1, 2], reward=[1, 0, 0])
    assert factor(batch) == [[2, 2, 1, 1, 2, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    same_text = written([1, 2], [1, 2], reward=[1, 0])
    assert factor(same_text, omega=3.0) == [[9, 9], [0, 0]], "both runs are the whole response"


def test_without_both_kinds_there_is_no_conflict_and_prompts_are_apart() -> None:
    assert factor(written([1, 2], [1, 2], reward=[1, 1])) == [[1, 1], [1, 1]]
    two = written([1, 2], [3, 2], [1, 5], [1, 5], reward=[1, 0, 0, 0], group=[0, 0, 1, 1])
    assert factor(two) == [[1, 2], [1, 0], [1, 1], [1, 1]]
    neutral = written([1], [1], [1], reward=[1, 0, 0.5])
    assert factor(neutral) == [[4], [0], [1]]


def test_text_of_others_does_not_break_a_run() -> None:
    batch = written([1, 6, 2, 3], [1, 2, 4, 4], reward=[1, 0])
    mask = batch.mask.clone()
    mask[0, 1] = 0
    assert factor(batch.replace(mask=mask)) == [[2, 0, 2, 1], [0, 0, 1, 1]]


def test_uncertain_responses_leave_only_if_the_policy_began_below() -> None:
    batch = written([1], [2], reward=[1, 0])
    batch = batch.replace(sampled_entropy=torch.tensor([[1.0], [0.2]], dtype=torch.float64))
    assert ConflictFree(initial=0.3)(batch)[:, 0].tolist() == [0, pytest.approx(-0.52)]
    assert ConflictFree(initial=0.8)(batch)[:, 0].tolist() == [pytest.approx(0.4), pytest.approx(-0.52)]
    assert ConflictFree()(batch)[0, 0] == 0, "the mean of the batch, 0.6, is below ln 2"
    flat = written([1], [2], reward=[1, 1], entropy=0.5)
    assert ConflictFree()(flat)[:, 0].tolist() == pytest.approx([-0.05] * 2), "the entropy term stays"


def test_with_all_of_it_off_it_is_the_centred_policy_gradient() -> None:
    off = gtpo(conflict_weight=1.0, entropy_coef=0.0, entropy_init=100.0)
    parent = grpo(kl_coef=0.0).replace(
        advantage=Normalise(centre="group", scale="none"), surrogate=RatioTimesAdvantage()
    )
    batch = random_batch()
    apart = torch.arange(len(batch))[:, None].expand_as(batch.tokens)  # no token is shared
    same(off, parent, batch.replace(tokens=apart))
    assert isinstance(gtpo().controllers[0], FirstValue)
    assert not off.controllers
