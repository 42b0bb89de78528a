"""The page of imitation-irl."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.distillation.imitation_irl import TemporalDifference, following, imitation_irl
from policyopt.methods.preference.sft import sft
from policyopt.objective import objective
from policyopt.parts import SoftValue
from policyopt.rows import Batch, make_batch

MASK = torch.tensor([[1.0, 1, 0, 1], [1, 1, 0, 0]], dtype=torch.float64)
VALUE = SoftValue(beta=1.0)


def made(logits: Tensor) -> Batch:
    """Rows with a gap and with padding, token 1 everywhere."""
    columns = {"mask": MASK, "group": torch.zeros(2), "logp": logits.log_softmax(-1)[..., 1], "old_logp": 0 * MASK}
    value = VALUE(logits.flatten(0, 1), torch.ones(8), {}).view(2, 4)
    return make_batch(**columns).with_statistics({VALUE.key: value})


def logits(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_implied_reward_runs_to_the_next_token_that_counts() -> None:
    q = logits()
    v = q.logsumexp(-1)
    assert following(MASK).tolist() == [[1, 3, 3, 4], [1, 4, 4, 4]]
    found = TemporalDifference(gamma=0.9).reward(made(q))
    expected = [q[0, 0, 1] - 0.9 * v[0, 1], q[0, 1, 1] - 0.9 * v[0, 3], q[0, 3, 1]]
    torch.testing.assert_close(found[0][MASK[0].bool()], torch.stack(expected))
    torch.testing.assert_close(found[1, :2], torch.stack([q[1, 0, 1] - 0.9 * v[1, 1], q[1, 1, 1]]))
    assert not found[MASK == 0].any()


def test_the_level_of_the_logits_counts_and_only_in_the_penalty() -> None:
    q = logits()
    raised = q.clone()
    raised[0, 1] += 2.0
    plain, irl = sft(), imitation_irl(td_coef=0.3)
    torch.testing.assert_close(objective(plain, made(q)), objective(plain, made(raised)))
    assert float(objective(irl, made(raised)) - objective(irl, made(q))) != 0
    assert imitation_irl(td_coef=0.0) == plain


def test_the_gradient_goes_through_the_value_of_the_next_state() -> None:
    q = logits().requires_grad_()
    batch = made(q)
    found = torch.autograd.grad(objective(imitation_irl(), batch) - objective(sft(), batch), q)[0]
    reward, after = TemporalDifference().reward(made(q)).detach(), q[0, 1].softmax(-1).detach()
    pull = 0.2 / 5 * (reward[0, 1] * torch.eye(5, dtype=torch.float64)[1] - reward[0, 0] * after)
    torch.testing.assert_close(found[0, 1], pull)
