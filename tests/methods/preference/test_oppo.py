"""The page of oppo."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.methods.preference.oppo import encoder_loss, on_the_sphere, oppo, triplet


def codes(seed: int, pairs: int = 6) -> Tensor:
    return torch.randn(pairs, 3, generator=torch.Generator().manual_seed(seed)).double()


def test_a_pair_that_is_apart_by_the_margin_teaches_nothing() -> None:
    star = torch.zeros(3).double().requires_grad_()
    near, far = torch.tensor([[0.1, 0, 0]]).double(), torch.tensor([[0, 2.0, 0]]).double()
    loss = triplet(star, near, far, margin=1.0)
    assert loss.item() == 0 and torch.autograd.grad(loss, star)[0].abs().max() == 0
    assert triplet(star, far, near, margin=1.0).item() == pytest.approx(2.9, abs=1e-5), "the other way round it does"
    assert triplet(star, near[:0], far[:0]).item() == 0


def test_preferred_codes_are_pulled_and_the_others_pushed() -> None:
    star = torch.zeros(3).double()
    better, worse = (codes(i).requires_grad_() for i in (1, 2))
    by_better, by_worse = torch.autograd.grad(triplet(star, better, worse, margin=9.0), (better, worse))
    assert ((by_better * better).sum(1) > 0).all(), "a step along minus the gradient goes to the star"
    assert ((by_worse * worse).sum(1) < 0).all()


def test_the_star_is_held_while_the_encoder_learns_and_all_codes_stay_on_the_sphere() -> None:
    star, batches = codes(0)[0].requires_grad_(), [codes(1).requires_grad_(), codes(2).requires_grad_()]
    loss = encoder_loss(0.0, batches, star, batches[0][:0], batches[1][:0], norm=0.5)
    assert loss.item() == pytest.approx(0.5 * sum(on_the_sphere(b).item() for b in batches))
    whole = encoder_loss(0.0, batches, star, *batches)
    assert torch.autograd.grad(whole, star, allow_unused=True)[0] is None
    assert on_the_sphere(torch.nn.functional.normalize(codes(3), dim=1)).item() == pytest.approx(0)


def test_the_star_ends_nearer_to_what_was_preferred() -> None:
    chance = torch.Generator().manual_seed(5)
    better = torch.randn(30, 4, generator=chance).double() * 0.3 + torch.tensor([1.0, 0, 0, 0]).double()
    worse = torch.randn(30, 4, generator=chance).double() * 0.3 - torch.tensor([1.0, 0, 0, 0]).double()
    far = torch.tensor([-1.0, 0, 0, 0]).double()
    star = oppo(better, worse, start=far)
    assert ((star - better).norm(dim=1) < (star - worse).norm(dim=1)).double().mean() > 0.95
    assert triplet(star, better, worse) < triplet(far, better, worse)
    torch.testing.assert_close(oppo(better, worse), oppo(better, worse), rtol=0, atol=0)


def test_codes_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"\[3, 3\] and \[2, 3\]; give two tables \[P, d\]"):
        oppo(codes(0, 3), codes(1, 2))
    with pytest.raises(UserError, match="a row for each pair"):
        oppo(codes(0, 3)[:0], codes(1, 3)[:0])
