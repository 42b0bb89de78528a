"""What peers compute, written down once more with plain numbers, token by token, and the recipes that equal it.

Formulas of verl (``core_algos``, ``rollout_corr_helper``), prime-rl (``trainer/rl/loss``), slime (``ppo_utils``) and AReaL
(``trainer/ppo/actor``, ``utils/functional``), none of which is there. ``docs/ported.md`` names these tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from policyopt.methods.offpolicy.m2po import SecondMomentBounds
from policyopt.objective import token_gradients
from policyopt.parts import KL, ClipMask, Proximal, Rejection, SamplerMismatch, SequenceRatio, TokenMean, TokenRatio
from policyopt.parts.weight.mismatch import Mode
from policyopt.recipe import Recipe
from policyopt.registry import get_method
from policyopt.rows import Batch
from tests.batches import random_batch

Loss = Callable[[float, float, float], float]
"""Derivative of a token's loss with respect to its log-probability: of new and old log-probability and advantage."""


def batch(drift: float = 0.8) -> Batch:
    """Rows of unlike length whose advantages are given, some of them 0."""
    made = random_batch(seed=4, drift=drift)
    advantage = (
        torch.tensor([1.0, -0.5, 0.7, -1.2, 0.0, 0.4, -0.3, 2.0, -2.0], dtype=torch.float64)[:, None] * made.mask
    )
    return made.replace(advantage=advantage)


def gradient(recipe: Recipe, given: Batch) -> Tensor:
    """dL/dlogp of a batch whose advantages are given, times its tokens."""
    recipe = recipe.replace(aggregate=TokenMean())
    return token_gradients(recipe, given, {"logp": given.logp})[1]["logp"] * given.mask.sum()


def by_hand(given: Batch, loss: Loss) -> Tensor:
    found = torch.zeros_like(given.mask)
    for i, t in given.mask.nonzero().tolist():
        new, old, a = (float(x[i, t]) for x in (given.logp, given.old_logp, given.advantage))
        found[i, t] = loss(new, old, a)
    return found


def dppo(low: float, high: float, divergence: Callable[[float, float], float], cap: float = math.inf) -> Loss:
    def slope(new: float, old: float, a: float) -> float:
        far = divergence(math.exp(new), math.exp(old))
        silent = (a > 0 and new > old and far > high) or (a < 0 and new < old and far > low)
        return 0.0 if silent else -a * min(math.exp(new - old), cap)

    return slope


def tv(p: float, q: float) -> float:
    return abs(p - q)


def kl(p: float, q: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


@pytest.mark.parametrize(
    ("hyper", "wanted"),
    [
        ({"low": 0.02, "high": 0.01}, dppo(0.02, 0.01, tv)),
        ({"divergence": "kl", "low": 0.002, "high": 0.001}, dppo(0.002, 0.001, kl)),
        ({"divergence": "kl", "low": 0.002, "high": 0.001, "cap": 1.2}, dppo(0.002, 0.001, kl, 1.2)),
    ],
)
def test_dppo_is_that_of_verl(hyper: dict[str, float], wanted: Loss) -> None:
    given = batch()
    found, hand = gradient(get_method("dppo")(**hyper), given), by_hand(given, wanted)
    torch.testing.assert_close(found, hand)
    there = given.mask.bool() & (given.advantage != 0)
    assert 0 < int((found[there] == 0).sum()) < int(there.sum()) / 2


@pytest.mark.parametrize("ipo", [False, True])
def test_the_losses_of_prime_rl(ipo: bool) -> None:
    """Its kl_tau times the squared log-ratio on all tokens; with ``ipo`` the mask looks at no sign."""

    def slope(new: float, old: float, a: float) -> float:
        up = math.exp(new) - math.exp(old)
        silent = abs(up) > 0.02 if ipo else (up > 0.02 if a > 0 else up < -0.02)
        return (0.0 if silent else -a * math.exp(new - old)) + 2e-3 * (new - old)

    given = batch()
    recipe = get_method("dppo")(low=0.02, high=0.02, drift_coef=1e-3, sides="two" if ipo else "one")
    torch.testing.assert_close(gradient(recipe, given), by_hand(given, slope))


@pytest.mark.parametrize("delta", [0.01, 0.2])
def test_the_mask_of_sequences_is_that_of_slime(delta: float) -> None:
    given = batch()
    mask = get_method("deepseek-v3.2")(delta=delta).get("weight.ClipMask")
    found = mask(torch.zeros_like(given.mask), given)
    for i in range(len(given)):
        mine = given.mask[i].bool()
        behind = float((given.old_logp - given.logp)[i][mine].mean())
        bad = float(given.advantage[i, 0]) < 0
        assert set(found[i][mine].tolist()) == {0.0 if bad and behind > delta else 1.0}


def test_the_unbiased_kl_is_that_of_slime_and_trl() -> None:
    given = batch()
    ref = given.ref_logp

    def term(logp: Tensor) -> Tensor:
        k3 = (ref - logp).exp() - 1 - (ref - logp)
        return 0.1 * (logp - given.old_logp).exp() * k3

    free = given.logp.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((term(free) * given.mask).sum(), free)
    only = get_method("grpo")().replace(
        surrogate=None, advantage=None, regularizers=(KL(coef=0.1, ratio=TokenRatio()),)
    )
    found = gradient(only, given)
    torch.testing.assert_close(found, wanted)
    r, k1 = (given.logp - given.old_logp).exp(), given.logp - ref
    torch.testing.assert_close(
        found, 0.1 * r * k1 * given.mask
    )  # the gradient of KL(policy || reference), from old tokens


K = {"k1": lambda d: -d, "k2": lambda d: d * d / 2, "k3": lambda d: math.exp(d) - 1 - d}


@pytest.mark.parametrize("over", ["token", "sum", "mean", "max"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_rejection_is_that_of_verl(over: str, estimator: str) -> None:
    """``rollout_rs`` with bounds in nats, ``token_k1`` to ``seq_max_k3``."""
    given = batch()
    given = given.replace(rollout_logp=given.old_logp + 0.3 * (given.ref_logp - given.old_logp))
    high = {"token": 0.05, "sum": 0.3, "mean": 0.05, "max": 0.3}[over] * (1 if estimator == "k1" else 0.3)
    part = Rejection(estimator=estimator, over=over, low=-0.2 if estimator == "k1" else None, high=high)  # type: ignore[arg-type]
    found = part(torch.zeros_like(given.mask), given)
    counts = 0
    for i in range(len(given)):
        mine = given.mask[i].bool()
        each = [K[estimator](d) for d in (given.old_logp - given.rollout_logp)[i][mine].tolist()]
        if over != "token":
            each = [{"sum": sum(each), "mean": sum(each) / len(each), "max": max(each)}[over]] * len(each)
        wanted = [float((estimator != "k1" or k >= -0.2) and k <= high) for k in each]
        assert found[i][mine].tolist() == wanted
        counts += sum(wanted)
    assert 0 < counts < int(given.mask.sum())


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_truncate", "token_mask"])
def test_weights_over_their_mean_are_those_of_verl(mode: Mode) -> None:
    given = batch()
    d = (given.old_logp - given.rollout_logp) * given.mask
    raw = (d.sum(1, keepdim=True).expand_as(d) if mode == "sequence_truncate" else d).exp()
    weight = raw * (raw <= 1.01) if mode == "token_mask" else raw.clamp(max=1.01)
    rows = torch.stack([w[m.bool()].mean() for w, m in zip(weight, given.mask, strict=True)])
    mean = rows.mean() if mode == "sequence_truncate" else weight[given.mask.bool()].mean()
    part = SamplerMismatch(mode=mode, high=1.01, normalise=True)
    torch.testing.assert_close(part(d, given) * given.mask, weight / mean * given.mask)
    assert part.unit == "batch"


@pytest.mark.parametrize("proximal", ["recomputed", "interpolated"])
def test_decoupled_ppo_is_that_of_areal(proximal: str) -> None:
    given = batch()
    given = given.replace(lag=torch.arange(9) % 4)
    prox = given.prox_logp
    if proximal == "interpolated":  # one update a batch: versions and updates are the same
        alpha = (given.lag / (given.lag + 1.0))[:, None]
        prox = given.old_logp + alpha * (given.logp - given.old_logp)
    free = given.logp.clone().requires_grad_()
    r, w = (free - prox).exp(), (prox - given.old_logp).exp()
    a = given.advantage
    loss = torch.maximum(-a * r, -a * r.clamp(0.8, 1.2)) * torch.where(w > 1.3, 0.0, w)
    (wanted,) = torch.autograd.grad((loss * given.mask).sum(), free)
    recipe = get_method("decoupled-ppo")(proximal=proximal, weight_high=1.3, minibatches=1)
    torch.testing.assert_close(gradient(recipe, given), wanted)
    assert (wanted[given.mask.bool() & (a != 0)] == 0).any()


@pytest.mark.parametrize("budget", [0.01, 0.1, 10.0])
def test_the_second_moment_mask_is_that_of_areal(budget: float) -> None:
    """The largest squares are taken away until the mean of the rest is below the budget, one at least stays."""
    given = batch()
    squares = sorted(((given.prox_logp - given.old_logp)[given.mask.bool()] ** 2).tolist())
    while len(squares) > 1 and sum(squares) / len(squares) >= budget:
        squares.pop()
    bounds = SecondMomentBounds(budget=budget, tokens="all", beyond="kept")
    ratio = TokenRatio(of="proximal", to="old")
    mask = ClipMask(sides="two", low=0.0, high=0.0, bounds=bounds, ratio=ratio)
    keep = mask(torch.zeros_like(given.mask), given)
    wanted = ((given.prox_logp - given.old_logp) ** 2 <= squares[-1] + 1e-12).to(keep)
    assert torch.equal(keep * given.mask, wanted * given.mask)
    assert mask.unit == "batch" and mask.needs == {"prox_logp"}


def test_direct_reward_optimisation_of_verl() -> None:
    """``dro``: log-probability times advantage, and half of beta times the squared log-ratio."""
    given = batch()
    recipe = get_method("opmd-asymre")(clip_mode="none", regularizer="k2", reg_coef=0.15)
    wanted = by_hand(given, lambda new, old, a: -a + 0.3 * (new - old))
    torch.testing.assert_close(gradient(recipe, given), wanted)
    assert recipe.regularizers == (Proximal(coef=0.3, deviation="k2"),)


def test_a_ratio_of_whole_responses_can_be_that_of_any_two_policies() -> None:
    given = batch()
    found = SequenceRatio(of="proximal", to="sampler")(given)
    for i in range(len(given)):
        mine = given.mask[i].bool()
        torch.testing.assert_close(found[i, 0], (given.prox_logp - given.rollout_logp)[i][mine].mean())
