"""The page of oreo."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.methods.critic.oreo import Beam, SoftBellman, SoftBellmanValue, action_starts, oreo
from policyopt.parts import SeqMeanTokenMean
from policyopt.rows import Batch, make_batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_search import BREAK, END, Grammar, best_below, draw, prompt

# The soft Bellman equation -------------------------------------------------------------------------------------------

BETA = 0.4


REWARD = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.3, (1, 1): 0.7}


def solved_tree() -> Batch:
    """All responses of a tree of two binary tokens, under the optimal policy, with the optimal values."""
    ref = {(): 0.3, (0,): 0.6, (1,): 0.2}  # probability of token 0

    def p(at: tuple[int, ...], token: int) -> float:
        return ref[at] if token == 0 else 1 - ref[at]

    def v(at: tuple[int, ...]) -> float:
        if len(at) == 2:
            return REWARD[at]
        return BETA * math.log(sum(p(at, a) * math.exp(v((*at, a)) / BETA) for a in (0, 1)))

    rows = sorted(REWARD)
    ref_logp = [[math.log(p(y[:t], y[t])) for t in (0, 1)] for y in rows]
    gain = [[(v(y[: t + 1]) - v(y[:t])) / BETA for t in (0, 1)] for y in rows]
    value = torch.tensor([[v(y[:t]) for t in (0, 1)] for y in rows], dtype=torch.float64)
    ref_column = torch.tensor(ref_logp, dtype=torch.float64)
    logp = ref_column + torch.tensor(gain, dtype=torch.float64)
    torch.testing.assert_close(logp.sum(-1).exp().sum(), torch.ones((), dtype=torch.float64))
    return make_batch(
        mask=torch.ones(4, 2, dtype=torch.float64),
        group=torch.zeros(4),
        reward=torch.tensor([REWARD[y] for y in rows], dtype=torch.float64),
        ref_logp=ref_column, logp=logp, old_logp=logp, value=value, old_value=value,
        step_end=torch.tensor([[0, 1]] * 4),
    )  # fmt: skip


@pytest.mark.parametrize("action", ["token", "step", "response"])
def test_the_optimal_policy_and_its_values_solve_the_equation(action: Any) -> None:
    recipe = oreo(beta=BETA, alpha=0.0, action=action)
    loss, gradient = gradients(recipe, ready(recipe, solved_tree()))
    assert float(loss) < 1e-24 and all(x.abs().max() < 1e-12 for x in gradient.values())
    other = solved_tree()
    moved = ready(recipe, other.replace(value=other.value + 0.1))
    assert float(gradients(recipe, moved)[0]) == pytest.approx(2 * 0.01)


@pytest.mark.parametrize("action", ["token", "step", "response"])
def test_both_losses_are_the_same_number_and_move_different_models(action: Any) -> None:
    batch = ready(oreo(), random_batch(gaps=True))
    policy, critic = SoftBellman(beta=0.5, action=action), SoftBellmanValue(beta=0.5, action=action)
    share = SeqMeanTokenMean()(batch)

    def loss(part: Any, logp: Tensor, value: Tensor) -> Tensor:
        there = batch.replace(logp=logp, value=value)
        return (share * (part(logp, there) if part is policy else part(there))).sum()

    leaves = [batch.logp.clone().requires_grad_(), batch.value.clone().requires_grad_()]
    one, two = loss(policy, *leaves), loss(critic, *leaves)
    torch.testing.assert_close(one, two)
    of_policy = torch.autograd.grad(one, leaves, allow_unused=True)
    of_critic = torch.autograd.grad(two, leaves, allow_unused=True)
    assert of_policy[1] is None and of_critic[0] is None
    assert of_policy[0] is not None and of_policy[0].abs().max() > 1e-3
    residual = policy.residual(batch)
    states = action_starts(batch, action)
    count = states.sum(-1, keepdim=True).clamp(min=1)
    assert of_critic[1] is not None
    torch.testing.assert_close(of_critic[1], 2 * residual / count / len(count))
    if action == "token":  # the gradient of a token comes from its own residual
        torch.testing.assert_close(of_policy[0], 0.5 * of_critic[1])


def test_a_step_passes_the_gradient_of_its_residual_to_all_of_its_tokens() -> None:
    batch = ready(oreo(), random_batch(lengths=(6,) * 9)).replace(step_end=torch.tensor([[1, 3, 5, -1]] * 9))
    torch.testing.assert_close(action_starts(batch, "step"), torch.tensor([[1.0, 0, 1, 0, 1, 0]] * 9).double())
    recipe = oreo(beta=0.5, alpha=0.0, action="step")
    part = SoftBellman(beta=0.5, action="step")
    residual = part.residual(batch)
    expected = (2 * 0.5 * residual / 3 / 9)[:, [0, 0, 2, 2, 4, 4]]
    torch.testing.assert_close(gradients(recipe, batch)[1]["logp"], expected)
    # With one step it is the response level, with one for each token the token level.
    for ends, other in (([[5]] * 9, "response"), ([[*range(6)]] * 9, "token")):
        same = SoftBellman(beta=0.5, action=other)  # type: ignore[arg-type]
        torch.testing.assert_close(part.residual(batch.replace(step_end=torch.tensor(ends))), same.residual(batch))


def test_text_of_others_begins_no_action() -> None:
    batch = random_batch(lengths=(6,) * 9).replace(step_end=torch.tensor([[1, 3, 5]] * 9))
    gap = batch.replace(mask=torch.tensor([[0.0, 1, 0, 0, 1, 1]] * 9).double())
    torch.testing.assert_close(action_starts(gap, "step"), torch.tensor([[0.0, 1, 0, 0, 1, 0]] * 9).double())
    torch.testing.assert_close(action_starts(gap, "response"), torch.tensor([[0.0, 1, 0, 0, 0, 0]] * 9).double())


def test_too_high_a_value_lowers_the_taken_token() -> None:
    recipe, batch = oreo(alpha=0.0), random_batch()
    for shift in (100.0, -100.0):
        found = ready(recipe, batch.replace(value=batch.value + shift))
        weight = -gradients(recipe, found)[1]["logp"]
        assert ((weight * shift <= 0) | (batch.mask == 0)).all() and weight.abs().max() > 0


def test_a_beam_follows_the_values_line_by_line() -> None:
    sampler = Grammar()
    [best] = draw(Beam(width=1, samples=3), prompt(best_below), sampler)
    assert best.tokens == [7, BREAK, 6, BREAK, END] and best.finished
    assert best.logp == [-1.0] * 5 and len(best.versions) == len(best.entropy) == 5
    assert [tokens for tokens, *_ in sampler.asked] == [(9, 9), (9, 9, 7, BREAK), (9, 9, 7, BREAK, 6, BREAK)]
    assert len({key for *_, key in sampler.asked}) == 3, "every request has random numbers of its own"
    several = draw(Beam(size=4, width=2, samples=3), prompt(best_below))
    assert [best_below(r.tokens) for r in several] == sorted((best_below(r.tokens) for r in several), reverse=True)
    with pytest.raises(UserError, match=r"no critic: set recipe\.critic"):
        draw(Beam(), prompt())


def test_a_beam_that_the_budget_cuts_comes_after_those_that_have_ended() -> None:
    cut = draw(Beam(size=9, width=2, samples=3), prompt(best_below, budget=4))
    assert cut and all(len(r.tokens) == 4 and not r.finished for r in cut)
    stopped = draw(Beam(width=1, samples=3, steps=1), prompt(best_below))
    assert [r.tokens for r in stopped] == [[7, BREAK]]
