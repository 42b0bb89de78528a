"""The page of THR."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.methods.credit.thr import HiddenReward, TokenInfluence, thr
from policyopt.methods.group.grpo import grpo
from policyopt.parts.statistic.group import from_logits
from policyopt.rows import Batch, make_batch
from tests.batches import dlogp, random_batch
from tests.methods.shared_surrogates import same


def drawn(correct: list[float]) -> tuple[Batch, Tensor, Tensor]:
    """A batch of one group with its hidden states, and the logits that a linear head makes of them."""
    g = torch.Generator().manual_seed(2)
    n, width, head = len(correct), 4, torch.randn(6, 3, generator=g, dtype=torch.float64)
    hidden = torch.randn(n, width, 3, generator=g, dtype=torch.float64)
    mask = (torch.arange(width) < torch.tensor([4, 2, 3, 1])[:n, None]).double()
    tokens = torch.randint(6, (n, width), generator=g)
    right = torch.tensor(correct).double()
    batch = make_batch(mask=mask, tokens=tokens, group=torch.zeros(n, dtype=torch.long), correct=right, reward=right)
    return batch, hidden, head


def test_a_small_step_moves_the_right_responses_by_the_sum_of_influences() -> None:
    """On a linear head: each token's step, times its advantage, adds its THR."""
    batch, hidden, head = drawn([1.0, 0.0, 1.0, 0.0])
    credit = torch.tensor([0.7, -0.4, 0.2, -0.9], dtype=torch.float64)[:, None] * batch.mask

    def logp(weight: Tensor) -> Tensor:
        return (hidden @ weight.T).log_softmax(-1).gather(-1, batch.tokens[..., None])[..., 0] * batch.mask

    weight = head.clone().requires_grad_()
    (step,) = torch.autograd.grad((credit * logp(weight)).sum(), weight)
    right = batch.correct[:, None]
    (slope,) = torch.autograd.grad((right * logp(weight)).sum(), weight)
    found = from_logits(TokenInfluence(), batch, hidden @ head.T, hidden)
    same((credit * found).sum(), (step * slope).sum())
    same(from_logits(TokenInfluence(), batch, hidden @ head.T, 3 * hidden), 9 * found)


def test_groups_of_one_outcome_and_certain_tokens_have_none() -> None:
    batch, hidden, head = drawn([0.0, 0.0, 0.0])
    assert not from_logits(TokenInfluence(), batch, hidden @ head.T, hidden).any()
    batch, hidden, head = drawn([1.0, 0.0, 1.0])
    sure = torch.where(torch.arange(6) == batch.tokens[..., None], 0.0, -torch.inf).double()
    logits = torch.where((torch.arange(4) == 1)[None, :, None], sure, hidden @ head.T)
    assert not from_logits(TokenInfluence(), batch, logits, hidden)[:, 1].any()


def test_a_token_aligned_with_right_ones_counts_for_them_and_against_wrong_responses() -> None:
    batch, hidden, _ = drawn([1.0, 0.0])
    one = hidden[:1, :1].expand(2, 4, 3)
    batch = batch.replace(tokens=torch.full((2, 4), 2))
    found = from_logits(TokenInfluence(), batch, torch.zeros(2, 4, 6).double(), one)
    part = HiddenReward(tau=0.0)
    reward = part.reward(batch.with_statistics({f"fixed:{part.statistic.key}": found}))
    assert (reward[0] > 0).all() and (reward[1, :2] < 0).all()


@pytest.mark.parametrize("p", [0.5, -0.5])
def test_p_makes_one_sign_larger_and_the_other_smaller(p: float) -> None:
    batch = random_batch()
    plain = dlogp(grpo(kl_coef=0.0), batch)
    same(dlogp(thr(p=0.0, tau=0.0), batch), plain)
    ratio = (dlogp(thr(p=p, tau=0.0), batch) / plain)[plain != 0]
    assert {round(float(x), 6) for x in ratio} == {1 + p, 1 - p}
    kept = dlogp(thr(p=0.0, tau=0.15), batch)
    assert 0 < int((kept != 0).sum()) < int((plain != 0).sum())
