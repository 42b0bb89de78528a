"""The page of rae."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import pytest
import torch

from policyopt.methods.baseline.rae import AgainstHistory, RoleAverage, rae
from policyopt.part import Curriculum, part
from policyopt.rows import make_batch
from policyopt.training.remember import recalled, remember
from tests.batches import random_batch
from tests.methods.shared_limits import alike


def test_a_role_without_a_history_is_measured_by_0() -> None:
    batch = random_batch().replace(token_reward=None)
    known = torch.where(batch.group == 1, 0.25, math.nan)[:, None]
    wanted = torch.where(batch.group == 1, batch.reward - 0.25, batch.reward)
    alike(AgainstHistory()(batch.replace(history=known)), wanted[:, None] * batch.mask)


def test_each_role_has_an_average_of_its_own_that_moves_row_by_row() -> None:
    reward = [1.0, -1.0, 1.0, 0.5, -1.0]
    origin, source = [0, 1, 0, 0, 1], ["poker", "poker", "poker", "dice", "poker"]
    records = [{"id": f"q{i}", "source": s} for i, s in enumerate(source)]
    batch = make_batch(
        records, mask=torch.ones(5, 1).double(), reward=torch.tensor(reward).double(), origin=torch.tensor(origin)
    )
    kept: dict[str, list[float]] = {}
    wanted: dict[tuple[str, int], float] = {}
    for _ in range(2):
        remember(RoleAverage(decay=0.9), batch, kept)
        for r, s, o in zip(reward, source, origin, strict=True):
            wanted[s, o] = 0.9 * wanted.get((s, o), 0.0) + 0.1 * r
    for (s, o), average in wanted.items():
        alike(recalled(RoleAverage(), kept, "a new prompt", s, o)[0], average)
    assert len(kept) == 3
    assert math.isnan(recalled(RoleAverage(), kept, "q0", "chess", 0)[0])


def test_of_a_prompt_the_memory_is_asked_about_all_rows_at_once() -> None:
    class OfPrompts(RoleAverage):
        of: ClassVar[Literal["prompt", "role"]] = "prompt"

    batch = random_batch().with_records([{"id": f"q{i // 3}"} for i in range(9)]).replace(history=None)
    kept: dict[str, list[float]] = {}
    remember(OfPrompts(decay=0.0), batch, kept)
    assert set(kept) == {"q0", "q1", "q2"}
    alike(kept["q2"][0], float(batch.total_reward()[8]))


def test_the_recipe_needs_no_group() -> None:
    assert rae().source.size == 1
    assert rae(decay=0.5).memory == RoleAverage(decay=0.5)


def test_a_curriculum_has_nothing_to_read_of_prompts_where_roles_are_remembered() -> None:
    @part
    class ByHistory(Curriculum):
        needs: ClassVar[frozenset[str]] = frozenset({"history"})

    with pytest.raises(ValueError, match="reads what is remembered of each prompt"):
        rae().replace(curriculum=ByHistory())
