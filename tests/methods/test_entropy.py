"""Methods that steer exploration: their limits, what a right implementation shows, and entropy held at a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt import methods as po
from policyopt.index import function_name
from policyopt.methods.entropy.aepo import GroupWithAuxiliary
from policyopt.objective import credit, objective, selected
from policyopt.parts import AboveQuantile, EntropyBonus
from policyopt.recipe import Recipe
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.steering import States, control
from tests.batches import dlogp, gradients, random_batch, ready
from tests.methods.shared_entropy import SEEDS, token_mean_grpo


def equal(one: Recipe, other: Recipe, batch: Batch) -> bool:
    """Whether two recipes have the same loss and the same gradients on a batch, to the bit."""
    (loss, gradient), (loss2, gradient2) = (gradients(r, ready(r, batch)) for r in (one, other))
    return torch.equal(loss, loss2) and all(
        torch.equal(gradient.get(name, torch.zeros(())), x) for name, x in gradient2.items()
    )


LIMITS: dict[str, tuple[Callable[[], Recipe], Callable[[], Recipe]]] = {
    "entropy-high-tokens, rho 1": (lambda: po.entropy_high_tokens(rho=1.0), lambda: po.dapo()),
    "epo, no entropy": (lambda: po.epo(entropy_coef=0.0), lambda: po.ppo(kl_coef=0.0)),
    "epo, no penalty": (
        lambda: po.epo(alpha=0.0).set("regularizers.EntropyBand.history", (0.5,)),
        lambda: po.ppo(kl_coef=0.0, entropy_coef=0.001),
    ),
    "epo, no smoothing": (
        lambda: po.epo(smooth_coef=0.0).set("regularizers.EntropyBand.history", (0.5,)),
        lambda: po.ppo(kl_coef=0.0, entropy_coef=0.001),
    ),
    "siren, beta 0": (lambda: po.siren(beta=0.0, anchor=0.3), lambda: po.dr_grpo(0.28, 0.28)),
    "siren, no anchor yet": (lambda: po.siren(), lambda: po.dr_grpo(0.28, 0.28)),
    "lp-reg, no share": (lambda: po.lp_reg(neg_fraction=0.0), lambda: token_mean_grpo(low=1.0, high=9.0)),
    "rapo, no terms": (lambda: po.rapo(alpha=0.0, beta=0.0), lambda: po.grpo(kl_coef=0.0)),
    "dcpo-distribution, at the target": (lambda: po.dcpo_distribution(), lambda: token_mean_grpo(dual=3.0)),
    "ulorl, sigma 0": (
        lambda: po.ulorl(entropy_target=0.0, importance="sais"),
        lambda: po.dapo(0.2, 0.2, reward_wrong=0.0).replace(shape=po.ulorl().shape),
    ),
}


@SEEDS
@pytest.mark.parametrize("name", LIMITS)
def test_a_method_is_its_parent_in_the_limit_that_its_entry_names(name: str, seed: int) -> None:
    limit, parent = (make() for make in LIMITS[name])
    assert equal(limit, parent, random_batch(seed, gaps=True))


@SEEDS
@pytest.mark.parametrize("change", [{"n_reinforce": 0}, {"select_threshold": 1e6}])
def test_aepo_without_auxiliary_rows_is_grpo(change: dict[str, Any], seed: int) -> None:
    batch = random_batch(seed)
    mixed = batch.replace(origin=(torch.arange(9) % 3 == 2).long())
    recipe = po.aepo(**change)
    credited = credit(recipe, mixed)
    keep = selected(recipe, credited)

    alone = ready(token_mean_grpo(dual=3.0), batch[mixed.origin == 0])
    assert keep.tolist() == (mixed.origin == 0).tolist()
    loss, gradient = gradients(recipe, credited[keep])
    loss2, gradient2 = gradients(token_mean_grpo(dual=3.0), alone)
    torch.testing.assert_close(loss, loss2)
    torch.testing.assert_close(gradient["logp"], gradient2["logp"])


# Selectors -----------------------------------------------------------------------------------------------------------


@SEEDS
@pytest.mark.parametrize("scope", ["row", "batch"])
def test_the_quantile_is_that_of_the_tokens_alone(scope: Any, seed: int) -> None:
    batch, selector = random_batch(seed, gaps=True), AboveQuantile(q=0.7, scope=scope)
    cut = selector.cut(batch)
    for i, mask in enumerate(batch.mask.bool()):
        among = batch.entropy[batch.mask.bool()] if scope == "batch" else batch.entropy[i, mask]
        if len(among):
            torch.testing.assert_close(cut[i], among.quantile(0.7))
    poisoned = batch.replace(entropy=torch.where(batch.mask > 0, batch.entropy, 99.0))
    assert torch.equal(selector(poisoned), selector(batch))
    assert not selector(batch)[batch.mask == 0].any()


def test_the_quantile_of_a_row_or_a_batch_without_tokens_picks_nothing() -> None:
    batch = random_batch(lengths=(0, 1, 2, 3, 4, 5, 6, 1, 2))
    assert not AboveQuantile(scope="row")(batch)[0].any()
    assert not AboveQuantile()(batch.replace(mask=torch.zeros_like(batch.mask))).any()


def test_where_all_tokens_are_alike_the_strict_quantile_picks_none_and_the_other_all() -> None:
    batch = random_batch()
    batch = batch.replace(entropy=torch.full_like(batch.entropy, 0.1))
    assert not AboveQuantile(scope="row", strict=True)(batch).any()
    assert torch.equal(AboveQuantile()(batch), batch.mask.bool())


@SEEDS
def test_high_entropy_tokens_have_the_gradient_of_dapo_and_the_others_none(seed: int) -> None:
    recipe, batch = po.entropy_high_tokens(rho=0.3), random_batch(seed)
    picked = recipe.get("weight.SelectedWeight.tokens")(batch)
    found, whole = dlogp(recipe, batch), dlogp(po.dapo(), batch)
    assert torch.equal(found, torch.where(picked, whole, 0.0))
    assert 0.25 < float(picked.sum() / batch.mask.sum()) < 0.45
    stretched = batch.replace(entropy=(3 * batch.entropy).exp())
    torch.testing.assert_close(recipe.get("weight.SelectedWeight.tokens").cut(batch).unique().numel(), 1)
    assert recipe.set("weight.SelectedWeight.tokens.q", 0.5).weight[0](batch.logp, stretched).sum() == (
        recipe.set("weight.SelectedWeight.tokens.q", 0.5).weight[0](batch.logp, batch).sum()
    )


# EPO -----------------------------------------------------------------------------------------------------------------


def test_the_published_penalty_moves_the_loss_and_no_parameter_and_the_hinge_moves_both() -> None:
    batch = random_batch(2)
    losses = {}
    for form in ("indicator", "hinge"):
        recipe = po.epo(entropy_coef=0.1, form=form).set("regularizers.EntropyBand.history", (0.6,))
        bonus = recipe.replace(regularizers=(EntropyBonus(coef=0.1),), controllers=())
        loss, gradient = gradients(recipe, ready(recipe, batch))
        plain, gradient2 = gradients(bonus, ready(bonus, batch))
        losses[form] = loss - plain
        extra = (gradient["entropy"] - gradient2["entropy"])[batch.mask > 0]
        level = batch.entropy[batch.mask > 0]
        if form == "indicator":
            assert torch.equal(extra, torch.zeros_like(extra))
        else:  # down where entropy is too high, up where it is too low, nothing inside the band
            assert torch.equal(extra.sign(), (level > 0.9).double() - (level < 0.3).double())
    assert all(x > 0 for x in losses.values())


def bandit(recipe: Recipe, steps: int, seed: int = 0, arms: int = 8, lr: float = 1.0) -> list[float]:
    """Entropies of a policy over arms, half of them right three times in four, trained with a recipe as the loop does."""
    g = torch.Generator().manual_seed(seed)
    theta = torch.zeros(arms, dtype=torch.float64)
    right = 0.75 * (torch.arange(arms) % 2 == 0).double()
    states: States = {}
    metrics: dict[str, float] = {}
    seen = []
    for _ in range(steps):
        recipe = control(recipe, metrics, states)
        logp = theta.log_softmax(-1)
        metrics = {"entropy": -float((logp.exp() * logp).sum())}
        seen.append(metrics["entropy"])
        main = torch.multinomial(logp.exp(), 64, replacement=True, generator=g)
        groups, origin, drawn = torch.arange(64) // 8, torch.zeros(64, dtype=torch.long), main
        if isinstance(recipe.source, GroupWithAuxiliary):
            hot = (theta / recipe.source.auxiliary_temperature).softmax(-1)
            drawn = torch.cat([main, torch.multinomial(hot, 16, replacement=True, generator=g)])
            groups, origin = torch.cat([groups, torch.arange(16) // 8]), torch.cat([origin, torch.ones(16).long()])
        reward = torch.bernoulli(right[drawn], generator=g)
        batch = make_batch(
            mask=torch.ones(len(drawn), 1, dtype=torch.float64), group=groups, origin=origin,
            reward=reward, correct=reward, old_logp=logp[drawn][:, None],
        )  # fmt: skip
        z = theta.expand(len(drawn), -1)
        batch = batch.with_statistics({FIXED + s.key: s(z, drawn, {})[:, None] for s in recipe.fixed})
        batch = credit(recipe, batch)
        keep = selected(recipe, batch)
        free = theta.clone().requires_grad_()
        loss = objective(recipe, batch[keep].replace(logp=free.log_softmax(-1)[drawn[keep]][:, None]))
        theta = theta - lr * torch.autograd.grad(loss, free)[0]
    return seen


@pytest.mark.parametrize("method", ["aepo", "dcpo-distribution"])
@pytest.mark.parametrize("target", [0.5, 1.1])
def test_entropy_settles_around_its_target(method: str, target: float) -> None:
    make = getattr(po, function_name(method))
    late = bandit(make(entropy_target=target, t_high=2.0, t_low=0.5, group_size=8), steps=300)[-50:]
    assert sum(late) / len(late) == pytest.approx(target, abs=0.12)


def test_pseudo_on_policy_nothing_is_clipped() -> None:
    recipe, batch = po.ulorl(entropy_target=0.0), random_batch(drift=2.0)
    batch = batch.replace(prox_logp=batch.logp)
    credited = ready(recipe, batch)
    loss, gradient = gradients(recipe, credited)
    torch.testing.assert_close(loss, -(credited.advantage * batch.mask).sum() / batch.mask.sum())
    torch.testing.assert_close(gradient["logp"], -credited.advantage / batch.mask.sum())
    assert not torch.allclose(dlogp(po.ulorl(entropy_target=0.0, importance="sais"), batch), gradient["logp"])


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: po.entropy_high_tokens(rho=1.2),
        lambda: AboveQuantile("margin"),
        lambda: AboveQuantile(scope="group"),
        lambda: po.epo(kappa_low=-0.1),
        lambda: po.epo(max_turns=0),
        lambda: po.epo(max_epochs=1),
        lambda: po.siren(top_p=1.1),
        lambda: po.siren(edge="both"),
        lambda: po.lp_reg(neg_fraction=-0.01),
        lambda: po.lp_reg(min_p=2.0),
        lambda: po.rapo(phi_min=-1.0),
        lambda: po.rapo(alpha=-1.0),
        lambda: po.aepo(t_high=0.0),
        lambda: po.aepo(strength=0.0),
        lambda: po.aepo(entropy_target=math.nan),
        lambda: po.dcpo_distribution(t_low=0.0),
        lambda: po.dcpo_distribution(alpha_cap=-0.1),
        lambda: po.ulorl(tau=1.5),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValidationError):
        make()
