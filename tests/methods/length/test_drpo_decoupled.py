"""The page of DRPO, the one with decoupled rewards."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.contrast.disco import disco
from policyopt.methods.length.drpo_decoupled import drpo_decoupled
from policyopt.rows import Batch
from tests.batches import dlogp, random_batch
from tests.methods.shared_judges import same


def batch() -> Batch:
    found = random_batch(groups=(4, 3), lengths=(3, 6, 2, 5, 4, 6, 1))
    right = torch.tensor([1.0, 1, 0, 0, 1, 1, 1], dtype=torch.float64)
    return found.replace(correct=right, reward=right, old_logp=found.logp)


def rows(lam: float, max_len: float = 8.0, given: Batch | None = None) -> Tensor:
    """What the loss wants of the score of each response."""
    found = batch() if given is None else given
    return -2 * dlogp(drpo_decoupled(lam=lam, max_len=max_len), found).sum(1)


def test_right_answers_share_one_weight_and_are_never_pushed_down() -> None:
    found = rows(0.3)
    same(found[:2].sum(), torch.tensor(1.0, dtype=torch.float64))
    assert found[0] > found[1] > 0 and (found[2:4] < 0).all() and not found[4:].any()
    same(found[0] / found[1], torch.tensor((6 - 3) / 8 / 0.3, dtype=torch.float64).exp())
    same(found[2:4], rows(0.01)[2:4])


def test_lambda_goes_from_the_shortest_one_to_disco() -> None:
    same(rows(1e-5)[:2], torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(rows(1e12), -2 * dlogp(disco(), batch()).sum(1), rtol=1e-8, atol=1e-10)


def test_a_short_wrong_answer_changes_no_weight_of_right_ones() -> None:
    given = batch()
    lengths = given.length().to(given.reward)
    lengths[2] = 1e9
    same(rows(0.01)[:2], rows(0.01, given=given.replace(true_length=lengths))[:2])
    assert rows(1e-3, max_len=1e-2).isfinite().all()
