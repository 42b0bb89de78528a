"""The page of t-ppo."""

from __future__ import annotations

import torch

from policyopt.methods.critic.ppo import ppo
from policyopt.methods.critic.t_ppo import t_ppo
from policyopt.parts import ClippedValueLoss
from policyopt.parts.advantage.gae import GAE
from policyopt.sources.draw import Windows
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_credit import same
from tests.methods.shared_judges import Echo, asked, run

# T-PPO ---------------------------------------------------------------------------------------------------------------


def test_t_ppo_without_truncation_is_ppo_with_monte_carlo_targets() -> None:
    batch = random_batch(gaps=True).replace(truncated=torch.zeros(9, dtype=torch.float64), new_from=None)
    parent = ppo(kl_coef=0.0).replace(
        advantage=GAE(whiten=False), critic=ClippedValueLoss(clip=None, lam=1.0), shape=t_ppo().shape
    )
    same(t_ppo(), parent, batch)


def test_a_truncated_response_is_taken_to_go_on_as_it_went() -> None:
    batch = random_batch(lengths=(6,) * 9).replace(truncated=torch.tensor([1.0, 0] * 4 + [1.0], dtype=torch.float64))
    batch = ready(t_ppo(), batch)
    cut = batch.truncated > 0.5
    assert not batch.reward[cut].any(), "no outcome leaks in"
    assert (batch.advantage[cut][:, -1] == 0).all()
    value = batch.old_value[cut]
    wanted = sum(0.95**k * (value[:, k + 1] - value[:, k]) for k in range(5))
    torch.testing.assert_close(batch.advantage[cut][:, 0], wanted)
    finished = GAE(whiten=False)(batch)
    torch.testing.assert_close(batch.advantage[~cut], finished[~cut])
    found = gradients(t_ppo(), batch)[1]
    assert not found["value"][cut].any()
    assert found["value"][~cut].any()
    torch.testing.assert_close(batch.returns[~cut], batch.reward[~cut, None].expand(-1, 6))


def test_a_token_trains_the_policy_in_one_window_only() -> None:
    batch = random_batch(lengths=(6, 4, 5, 3, 2, 6, 4, 2, 6))
    total = torch.zeros(9, 6, dtype=torch.float64)
    for start, end in ((0, 2), (2, 5), (5, 6)):
        seen = batch.replace(mask=batch.mask * (torch.arange(6) < end), new_from=torch.full((9,), start))
        part = t_ppo().weight[0]
        weight = part(seen.mask, seen) * seen.mask
        total += weight
        changed = gradients(t_ppo(), ready(t_ppo(), seen))[1]["logp"]
        assert not changed[weight == 0].any()
    torch.testing.assert_close(total, batch.mask)


def test_one_window_is_a_group() -> None:
    assert t_ppo(windows=1).source == Windows(size=8)
    rows = run(Windows(size=2), asked(budget=8), Echo("ab", "cdefghijkl"))
    assert [(r.later, r.use, r.finished) for r in rows] == [(False, "train", True), (False, "train", False)]
