"""The page of otb."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policyopt.methods.baseline.otb import COLLISION, TokenBaseline, otb
from policyopt.rows import FIXED, Batch
from tests.batches import poisoned, random_batch
from tests.methods.shared_limits import alike


def seen(**shape: object) -> Batch:
    batch = random_batch(**shape)  # type: ignore[arg-type]
    spread = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    collision = (batch.old_logp.exp() ** 2).clamp(min=1e-3) + 0.2 * spread
    return batch.with_statistics({FIXED + COLLISION.key: collision.log()})


def by_hand(batch: Batch, alone: str) -> Tensor:
    """The definition, place by place."""
    out = torch.zeros_like(batch.mask)
    own = [[t for t in range(batch.mask.shape[1]) if batch.mask[i, t] > 0] for i in range(len(batch))]
    given = [
        [0.0 if batch.token_reward is None else float(batch.token_reward[i, t]) for t in own[i]]
        for i in range(len(batch))
    ]
    for i, places in enumerate(given):
        if places:
            places[-1] += float(batch.reward[i])
    energy = [
        [1 - 2 * math.exp(batch.old_logp[i, t]) + math.exp(batch.fixed(COLLISION)[i, t]) for t in own[i]]
        for i in range(len(batch))
    ]
    for i in range(len(batch)):
        for k, t in enumerate(own[i]):
            peers = [j for j in range(len(batch)) if batch.group[j] == batch.group[i] and len(own[j]) > k]
            weight = {j: sum(energy[j][: k + 1]) for j in peers}
            to_go = {j: sum(given[j][k:]) for j in peers}
            baseline = sum(weight[j] * to_go[j] for j in peers) / sum(weight.values())
            out[i, t] = to_go[i] - (0.0 if alone == "return" and len(peers) == 1 else baseline)
    return out


@pytest.mark.parametrize("alone", ["silent", "return"])
@pytest.mark.parametrize("shape", [{}, {"gaps": True}, {"groups": (5, 1, 3)}])
def test_each_place_has_the_baseline_of_the_definition(alone: str, shape: dict[str, object]) -> None:
    batch = seen(**shape)
    found = TokenBaseline(alone=alone)(batch)  # type: ignore[arg-type]
    alike(found, by_hand(batch, alone))
    assert found.abs().max() > 0.01


def test_padding_is_never_read() -> None:
    batch = seen()
    bad = poisoned(batch, math.nan)
    alike(TokenBaseline()(bad), TokenBaseline()(batch))


def test_rows_that_were_sure_do_not_move_the_baseline() -> None:
    batch = seen(groups=(2,), lengths=(1, 1)).replace(token_reward=None, reward=torch.tensor([1.0, 0.0]).double())
    sure = batch.replace(old_logp=torch.tensor([[0.0], [-3.0]]).double() * batch.mask[:, :1])
    sure = sure.replace(mask=batch.mask[:, :1]) if sure.mask.shape[1] > 1 else sure
    sure = sure.with_statistics({FIXED + COLLISION.key: torch.tensor([[0.0], [-2.0]]).double()})
    alike(TokenBaseline()(sure)[:, 0].tolist(), [1.0, 0.0])


def test_the_energy_is_the_squared_norm_of_the_gradient_of_the_logits() -> None:
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)[0, 4]
    gradient = torch.autograd.grad(logp, logits)[0]
    collision = COLLISION(logits.detach(), torch.tensor([4]), {}).exp()
    alike(1 - 2 * logp.detach().exp() + collision[0], gradient.square().sum())


def test_the_recipe_is_ppo_over_all_tokens() -> None:
    assert otb(alone="return").advantage == TokenBaseline(alone="return")
    assert not otb().regularizers
    assert otb().fixed == (COLLISION,)
