"""The page of otc-po."""

from __future__ import annotations

import math

import torch

from policyopt.methods.agents.otc_po import FewestCalls, ToolProductivity, otc_po
from policyopt.rows import Batch, make_batch
from tests.batches import random_batch


def called(
    calls: list[float], correct: list[float], before: float = math.nan, reward: list[float] | None = None
) -> Batch:
    x = torch.tensor(correct, dtype=torch.float64)
    return make_batch(
        mask=torch.ones(len(calls), 1, dtype=torch.float64), group=torch.zeros(len(calls), dtype=torch.long), correct=x,
        reward=x if reward is None else torch.tensor(reward, dtype=torch.float64), history=torch.full((len(calls), 1), before, dtype=torch.float64),
        **{"component[tool_calls]": torch.tensor(calls, dtype=torch.float64)},
    )  # fmt: skip


def test_the_fewest_calls_are_worth_all_of_it() -> None:
    batch = called([2, 3, 5, 1], [1, 1, 1, 0])
    factor, found = ToolProductivity().factor(batch), ToolProductivity()(batch).reward
    assert found[3] == 0, "a wrong answer stays worth nothing, however few its calls"
    torch.testing.assert_close(factor[0], torch.tensor(1.0, dtype=torch.float64))
    assert 1 > factor[1] > factor[2] > 0


def test_where_no_call_was_needed_each_costs() -> None:
    calls = [0.0, 1.0, 2.0, 9.0]
    few, many = (ToolProductivity(smoothing=c).factor(called(calls, [1] * 4)) for c in (2.0, 200.0))
    assert few[0] == 1 and (few.diff() < 0).all() and (few[1:] < many[1:]).all() and (many[1:] > 0.9).all()


def test_what_sufficed_once_is_remembered() -> None:
    batch = called([3, 5], [1, 1], before=1.0)
    assert FewestCalls()(batch)[:, 0].tolist() == [1, 1]
    assert (ToolProductivity()(batch).reward < ToolProductivity(best="local")(batch).reward + 1e-12).all()
    assert FewestCalls()(called([3, 5], [0, 0]))[:, 0].tolist() == [-1, -1]
    assert FewestCalls()(called([3, 5], [0, 1], before=-1.0))[:, 0].tolist() == [5, 5]
    assert ToolProductivity()(called([3, 5], [0, 0], reward=[0.2, 0.0])).reward.tolist() == [0, 0], (
        "nobody was right yet"
    )


def test_without_tools_it_is_the_parent_on_right_answers() -> None:
    batch = random_batch().replace(history=None)
    batch = batch.replace(reward=batch.correct)
    torch.testing.assert_close(ToolProductivity()(batch).reward, batch.reward)
    assert otc_po("critic").critic is not None and otc_po("critic").memory is None
