"""The page of SubPO."""

from __future__ import annotations

import torch

from policyopt.methods.credit.subpo import gains, left_out, subpo
from policyopt.objective import advantages, shaped
from policyopt.rows import Batch
from tests.batches import random_batch


def test_gains_telescope_and_what_is_covered_again_earns_nothing() -> None:
    elements = torch.tensor([[[0, 1], [1, 2], [1, 0], [3, -1]]])
    weight = torch.tensor([1.0, 0.5, 2.0, 0.7, 9.0]).double()[elements.clamp(min=0)]
    found = gains(elements, weight)
    torch.testing.assert_close(found, torch.tensor([[1.5, 2.0, 0.0, 0.7]]).double())
    disjoint = torch.tensor([[[0, 1], [2, 3], [4, 5]]])
    ones = torch.ones(disjoint.shape, dtype=torch.float64)
    assert gains(disjoint, ones).tolist() == [[2, 2, 2]], "additive where nothing repeats"


def test_a_response_earns_what_would_be_lost_without_it() -> None:
    kind = torch.tensor([0, 0, 1, 2, 2, 3])
    worth = torch.tensor([1.0, 1.0, 0.6, 0.9, 0.2, -1.0], dtype=torch.float64)

    def value(keep: torch.Tensor) -> float:
        return sum(max(0.0, *worth[keep & (kind == k)].tolist(), 0.0) for k in range(4))

    every = torch.ones(6, dtype=torch.bool)
    without = [value(every & (torch.arange(6) != i)) for i in range(6)]
    torch.testing.assert_close(left_out(worth, kind), value(every) - torch.tensor(without, dtype=torch.float64))


def texts(batch: Batch, *answers: str) -> Batch:
    return batch.with_records([{"response": f"Answer: {a}"} for a in answers])


def test_in_a_group_only_the_rare_right_answer_is_credited() -> None:
    batch = random_batch(groups=(4, 1))
    batch = texts(batch.replace(reward=torch.tensor([1.0, 1, 1, 0, 1]).double()), "3", "3", "7", "8", "7")
    assert shaped(subpo(), batch).reward.tolist() == [0, 0, 1, 0, 1], "the other prompt has its own set"


def test_over_turns_every_token_has_the_gains_that_are_still_to_come() -> None:
    mask = torch.ones(1, 6, dtype=torch.float64)
    ends, states = torch.tensor([[1, 3, 5, -1]]), torch.tensor([[4, 7, 4, -1]])
    batch = Batch(
        {"mask": mask, "reward": torch.ones(1).double(), "group": torch.zeros(1).long(), "turn_end": ends, "turn_state": states}
    )  # fmt: skip
    recipe = subpo(over="turns", baseline="none")
    batch = shaped(recipe, batch)
    assert batch.total_reward().tolist() == [1], "7 is new, and 4 was there at the beginning"
    assert advantages(recipe, batch).tolist() == [[1, 1, 0, 0, 0, 0]]
