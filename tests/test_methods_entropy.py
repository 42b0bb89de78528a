"""Methods that steer exploration: their limits, what a right implementation shows, and entropy held at a target."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt import methods as po
from policyopt.control import Thermostat
from policyopt.methods.entropy.aepo import GroupWithAuxiliary, ReplaceByAuxiliary, RewardedAuxiliary
from policyopt.methods.entropy.dcpo_distribution import LogProbAt, TargetGap, VirtualTemperature
from policyopt.methods.entropy.epo import EntropyBand, TurnHistory, TwoPhases, two_phases
from policyopt.methods.entropy.lp_reg import LeastLikely, MinPLogProb, ProxyShield
from policyopt.methods.entropy.rapo import ForwardKL, RewardTempered
from policyopt.methods.entropy.siren import EntropyAnchor, FirstValue, NucleusEntropy
from policyopt.methods.entropy.ulorl import Mastered
from policyopt.objective import credit, objective, selected
from policyopt.parts import AboveQuantile, EntropyBonus, PPOClip, TokenMean
from policyopt.parts.statistic.tempered import tempered_logp
from policyopt.recipe import Recipe
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.sources.program import Response
from policyopt.steering import States, control
from tests.asking import ask
from tests.batches import dlogp, gradients, random_batch, ready

SEEDS = pytest.mark.parametrize("seed", range(3))


def logits(seed: int = 0, m: int = 7, v: int = 5) -> Tensor:
    return 1.5 * torch.randn(m, v, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over_vocabulary(statistic: Any, z: Tensor, others: dict[str, Tensor] | None = None) -> Tensor:
    """The statistic of every token of the vocabulary at every position, [M, V]."""
    ids = torch.arange(z.shape[1])
    columns = [statistic(z, i.expand(len(z)), others or {}) for i in ids]
    return torch.stack(columns, dim=1)


def equal(one: Recipe, other: Recipe, batch: Batch) -> bool:
    """Whether two recipes have the same loss and the same gradients on a batch, to the bit."""
    (loss, gradient), (loss2, gradient2) = (gradients(r, ready(r, batch)) for r in (one, other))
    return torch.equal(loss, loss2) and all(
        torch.equal(gradient.get(name, torch.zeros(())), x) for name, x in gradient2.items()
    )


# Methods in their limits ---------------------------------------------------------------------------------------------


def token_mean_grpo(**clip: Any) -> Recipe:
    return po.grpo(kl_coef=0.0).replace(aggregate=TokenMean(), surrogate=PPOClip(**clip))


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


def test_the_least_likely_are_counted_among_tokens_of_their_sign() -> None:
    batch = random_batch(1)
    batch = batch.replace(advantage=(torch.arange(9) % 2 * 2.0 - 1)[:, None] * batch.mask)
    for sign, factor in (("negative", -1), ("positive", 1)):
        among = batch.mask.bool() & (factor * batch.advantage > 0)
        picked = LeastLikely(0.4, sign)(batch)  # type: ignore[arg-type]
        assert int(picked.sum()) == int(0.4 * int(among.sum())) > 2
        assert (picked & ~among).sum() == 0
        assert batch.logp[picked].max() < batch.logp[among & ~picked].min()
    assert not LeastLikely(0.4, least=100)(batch).any()
    assert not LeastLikely(0.0)(batch).any()


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


def test_the_band_is_that_of_the_turn_and_starts_late() -> None:
    batch = random_batch(lengths=(6,) * 9)
    batch = batch.replace(entropy=torch.full_like(batch.entropy, 1.0), turn=torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]))
    band = EntropyBand(history=(1.0, 5.0), max_turns=3, alpha=0.2, phase=0.5)
    outside = band.penalty(batch)
    assert (outside[:3] == 0).all(), "turn 0 is inside its band"
    assert (outside[3:6] == 0.1).all(), "turn 1 is below its own"
    assert (outside[6:] == 0).all(), "turn 2 has no history"
    assert not torch.equal(band.penalty(batch.replace(turn=batch.turn.roll(1))), outside)
    early = batch.replace(turn=torch.zeros_like(batch.turn))
    assert not band.applied(early)
    assert not replace(band, history=(5.0, 5.0)).penalty(early).any()


def test_with_a_lower_edge_of_zero_only_no_entropy_at_all_is_too_little() -> None:
    batch = random_batch()
    band = EntropyBand(low=0.0, high=1e9, history=(1.0,))
    assert not band.penalty(batch).any()
    assert band.penalty(batch.replace(entropy=torch.zeros_like(batch.entropy)))[batch.mask > 0].all()


def test_by_response_the_mean_entropy_decides_for_all_its_tokens() -> None:
    batch = random_batch(3)
    penalty = EntropyBand(level="sequence", history=(0.8,), low=0.9, high=1.1).penalty(batch)
    for row, mask in zip(penalty, batch.mask.bool(), strict=True):
        assert row[mask].unique().numel() == 1
    assert penalty.any()


def test_the_weight_of_the_phases() -> None:
    values = [two_phases(step, 150) for step in (0, 75, 75.001, 150)]
    assert values == pytest.approx([1, 1 - 0.2 * (1 - math.exp(-2)), 0.8, 0.8 * math.exp(-3)], rel=1e-3)
    recipe, controller = po.epo(max_epochs=4), TwoPhases("regularizers.EntropyBand.phase", 4)
    assert controller in recipe.controllers
    states: States = {}
    seen = []
    for _ in range(7):
        recipe = control(recipe, {}, states)
        seen.append(recipe.get("regularizers.EntropyBand.phase"))
    assert seen == pytest.approx([two_phases(min(s, 4), 4) for s in range(7)])


def test_the_history_of_a_turn_is_its_mean_over_the_steps_that_reached_it() -> None:
    batch = random_batch(lengths=(6,) * 9)
    recipe = po.epo(max_turns=3)
    recipe = recipe.replace(controllers=tuple(c for c in recipe.controllers if isinstance(c, TurnHistory)))
    states: States = {}
    means: list[list[float]] = [[], [], []]
    for seed, turns in enumerate(([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1])):
        step = batch.replace(entropy=random_batch(seed).entropy.abs() + 0.1, turn=torch.tensor(turns))
        step = step.replace(entropy=torch.where(step.mask > 0, step.entropy, torch.nan))
        said = recipe.regularizers[0].metrics(step)
        metrics = {name: float(torch.where(step.mask > 0, x, 0.0).sum() / step.mask.sum()) for name, x in said.items()}
        recipe = control(recipe, metrics, states)
        for u in set(turns):
            means[u].append(float(step.entropy[step.turn == u].mean()))
        reached = [sum(m) / len(m) for m in means if m]
        assert recipe.get("regularizers.EntropyBand.history") == pytest.approx(reached)
    assert control(recipe, {}, states) == recipe, "a step without tokens changes nothing"


# SIREN ---------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_nucleus_is_the_usual_one_or_lacks_its_last_token(seed: int) -> None:
    z = logits(seed)
    target = torch.zeros(len(z), dtype=torch.long)
    for edge in ("exclusive", "inclusive"):
        for row, found in zip(z.softmax(-1), NucleusEntropy(0.75, edge)(z, target, {}), strict=True):  # type: ignore[arg-type]
            p, mass = row.sort(descending=True).values.tolist(), 0.0
            kept = []
            for x in p:
                if mass + (x if edge == "exclusive" else 0.0) < 0.75:
                    kept.append(x)
                mass += x
            shares = [x / sum(kept) for x in kept] or [1.0]
            assert float(found) == pytest.approx(-sum(x * math.log(x) for x in shares), abs=1e-12)


def test_all_of_the_mass_is_the_entropy_and_tokens_outside_have_no_gradient() -> None:
    z = logits().requires_grad_()
    target = torch.zeros(len(z), dtype=torch.long)
    logp = z.log_softmax(-1)
    whole = -(logp.exp() * logp).sum(-1)
    found = NucleusEntropy(1.0, "inclusive")(z, target, {})
    torch.testing.assert_close(found, whole)
    expected = torch.autograd.grad(whole.sum(), z, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(found.sum(), z)[0], expected)

    gradient = torch.autograd.grad(NucleusEntropy(0.6, "inclusive")(z, target, {}).sum(), z)[0]
    ordered = z.softmax(-1).sort(-1, descending=True)
    inside = torch.zeros_like(z).scatter(
        -1, ordered.indices, (ordered.values.cumsum(-1) - ordered.values < 0.6).double()
    )
    assert (gradient[inside == 0] == 0).all()
    assert (gradient[(inside == 1) & (inside.sum(-1, keepdim=True) > 1)] != 0).all()


@pytest.mark.parametrize("edge", ["exclusive", "inclusive"])
def test_a_peaked_position_has_a_nucleus_without_entropy_or_nan(edge: Any) -> None:
    z = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    found = NucleusEntropy(0.8, edge)(z, torch.tensor([0]), {})
    assert float(found.detach()) == 0
    assert torch.autograd.grad(found.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("above", [False, True])
def test_the_anchor_pulls_the_peaks_of_each_response_back_and_nothing_else(above: bool) -> None:
    part = EntropyAnchor(coef=1.0, anchor=0.0 if above else 9.0, tokens=AboveQuantile(q=0.8, scope="row", strict=True))
    batch = random_batch(4)
    entropy = batch.entropy.clone().requires_grad_()
    gradient = torch.autograd.grad(part(batch.replace(entropy=entropy)), entropy)[0]
    picked = part.tokens(batch)
    assert torch.equal(gradient != 0, picked)
    assert (gradient[picked] > 0).all() if above else (gradient[picked] < 0).all()
    calm = replace(part, anchor=float(part.mean(batch)))
    assert torch.autograd.grad(calm(batch.replace(entropy=entropy)), entropy)[0].abs().max() == 0


def test_the_anchor_is_the_first_value_that_is_measured() -> None:
    recipe = po.siren()
    controllers = recipe.controllers
    assert isinstance(controllers[0], FirstValue)
    states: States = {}
    seen = []
    for metrics in ({}, {"entropy/peak": 0.7}, {"entropy/peak": 0.2}):
        recipe = control(recipe, metrics, states)
        seen.append(recipe.get("regularizers.EntropyAnchor.anchor"))
    assert seen == [None, 0.7, 0.7]
    assert po.siren(anchor=0.4).get("regularizers.EntropyAnchor.anchor") == 0.4


# Lp-Reg --------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_proxy_is_the_policy_without_its_tail(seed: int) -> None:
    z = logits(seed)
    p = z.softmax(-1)
    proxy = over_vocabulary(MinPLogProb(0.2), z).exp()
    torch.testing.assert_close(proxy.sum(-1), torch.ones(7, dtype=torch.float64))
    assert torch.equal(proxy > 0, p >= 0.2 * p.amax(-1, keepdim=True))
    assert (proxy[proxy > 0] >= p[proxy > 0] - 1e-12).all()
    assert (proxy == 0).any()
    fixed = over_vocabulary(MinPLogProb(0.3, relative=False), z).exp()
    assert torch.equal(fixed > 0, p >= 0.3)
    torch.testing.assert_close(over_vocabulary(MinPLogProb(0.0), z), z.log_softmax(-1))


def shield_batch(seed: int, proxy: Callable[[Batch], Tensor], part: ProxyShield) -> Batch:
    batch = credit(po.grpo(kl_coef=0.0), random_batch(seed))
    return batch.with_statistics({FIXED + part.proxy.key: proxy(batch)})


@SEEDS
def test_shielded_tokens_are_pulled_up_and_nothing_else_changes(seed: int) -> None:
    part = ProxyShield(low=0.1, high=0.1, coef=0.7, negative=0.6)
    batch = shield_batch(seed, lambda b: torch.where(torch.arange(6) % 2 == 0, b.old_logp + 0.3, -torch.inf), part)
    recipe = token_mean_grpo(low=0.1, high=0.1)
    (_, found), (_, plain) = (gradients(recipe.replace(surrogate=s), batch) for s in (part, recipe.surrogate))
    shielded = part.shielded(batch)
    assert shielded.any()
    assert (batch.advantage[shielded] < 0).all()
    assert (shielded.nonzero()[:, 1] % 2 == 0).all(), "what the proxy cuts off is no shielded token"
    assert (part.unlikely(batch) & ~shielded).any()
    assert torch.equal(found["logp"][~shielded], plain["logp"][~shielded])
    d = batch.fixed(part.proxy) - batch.logp
    unclipped = -batch.advantage * (batch.logp - batch.old_logp).exp()
    expected = (unclipped + 0.7 * (1 - d.exp())) / batch.mask.sum()
    torch.testing.assert_close(found["logp"][shielded], expected[shielded])


def test_on_policy_with_the_whole_distribution_as_proxy_nothing_is_shielded() -> None:
    part = ProxyShield(negative=1.0, positive=1.0)
    batch = shield_batch(0, lambda b: b.old_logp, part)
    assert part.unlikely(batch).any()
    assert not part.shielded(batch.replace(logp=batch.old_logp)).any()


def test_the_pull_ends_at_its_limit() -> None:
    part = ProxyShield(low=None, high=None, negative=1.0, limit=2.0)
    batch = shield_batch(0, lambda b: torch.zeros_like(b.mask), part).replace(logp=torch.full((9, 6), -20.0))
    recipe = token_mean_grpo(low=None, high=None)
    found, plain = (gradients(recipe.replace(surrogate=s), batch)[1] for s in (part, recipe.surrogate))
    assert part.shielded(batch).any()
    torch.testing.assert_close(found["logp"], plain["logp"])


# RAPO ----------------------------------------------------------------------------------------------------------------


@SEEDS
def test_the_reference_is_flattened_by_the_reward(seed: int) -> None:
    z, reference = logits(seed), logits(seed + 10)
    for floor, reward, power in ((0.4, 0.0, 0.4), (0.4, 0.5, 0.7), (0.4, 3.0, 1.0), (0.0, -2.0, 0.0), (1.0, 0.0, 1.0)):
        others = {"reference": reference, "reward": torch.full((7,), reward, dtype=torch.float64)}
        found = over_vocabulary(RewardTempered(floor), z, others)
        torch.testing.assert_close(found, (power * reference.log_softmax(-1)).log_softmax(-1))
    torch.testing.assert_close(
        tempered_logp(z, torch.zeros(7, dtype=torch.long), 0.0), torch.full((7,), -math.log(5)).double()
    )


@SEEDS
def test_the_forward_kl_is_unbiased_and_lets_go_of_what_the_reference_rules_out(seed: int) -> None:
    part = ForwardKL(coef=1.0)
    policy, reference = (logits(seed + k, m=6).log_softmax(-1) for k in (0, 10))
    total = torch.zeros(6, dtype=torch.float64)
    for v in range(5):  # one row of six positions, all of which drew token v
        batch = make_batch(mask=torch.ones(1, 6), logp=policy[None, :, v])
        batch = batch.with_statistics({FIXED + part.target.key: reference[None, :, v]})
        found = part.estimate(batch)[0]
        assert (found >= 0).all()
        total += policy[:, v].exp() * found
    torch.testing.assert_close(total, (reference.exp() * (reference - policy)).sum(-1))

    logp = torch.tensor([[-1.0, -1.0, -9.0]], dtype=torch.float64, requires_grad=True)
    batch = make_batch(mask=torch.ones(1, 3), logp=logp)
    batch = batch.with_statistics({FIXED + part.target.key: torch.tensor([[-1.0, -60.0, -1.0]], dtype=torch.float64)})
    gradient = torch.autograd.grad(part.estimate(batch).sum(), logp, retain_graph=True)[0][0]
    assert gradient[0] == 0
    assert abs(gradient[1]) < 1e-20
    assert gradient[2] == pytest.approx(-8 * math.exp(8))
    assert torch.autograd.grad(replace(part, limit=100.0).estimate(batch).sum(), logp)[0][0, 2] == 0


# AEPO and DCPO -------------------------------------------------------------------------------------------------------


@SEEDS
def test_auxiliary_rows_are_a_group_of_their_own_and_worth_a_constant_or_nothing(seed: int) -> None:
    batch = random_batch(seed, groups=(6, 6), lengths=(3,) * 12)
    origin = torch.tensor([0, 0, 0, 0, 1, 1] * 2)
    found = RewardedAuxiliary(constant=2.0, threshold=0.05)(batch.replace(origin=origin))
    main = origin == 0
    torch.testing.assert_close(found[main], po.grpo().advantage(batch[main]))
    for g in (0, 1):
        own = (batch.group == g) & ~main
        best = batch.reward[own] == batch.reward[own].max()
        assert torch.equal(found[own], 2.0 * best[:, None] * batch.mask[own])


def test_rewarded_auxiliary_rows_replace_as_many_of_the_main_program() -> None:
    batch = random_batch(lengths=(2,) * 9).replace(origin=torch.tensor([0, 0, 1, 0, 1, 1, 0, 1, 0]), noise=None)
    batch = batch.replace(advantage=torch.tensor([0.0, -1, 1, 0, 0, 1, 3, 1, -2])[:, None] * batch.mask)
    rule = ReplaceByAuxiliary(limit=2)
    assert rule(batch).nonzero()[:, 0].tolist() == [2, 3, 5, 6, 8]
    assert replace(rule, limit=0)(batch).nonzero()[:, 0].tolist() == [0, 1, 3, 6, 8]
    assert replace(rule, limit=9, share=0.5)(batch).nonzero()[:, 0].tolist() == [1, 2, 3, 6, 8]
    assert rule(batch.replace(origin=None)).all()
    turn = torch.tensor([0.5, 0.4, 0.9, 0.1, 0.0, 0.2, 0.3, 0.3, 0.9])
    drawn = batch.replace(noise=turn[:, None] * batch.mask)
    assert rule(drawn).nonzero()[:, 0].tolist() == [0, 1, 5, 7, 8], "those whose turn comes first, of either kind"
    order = torch.tensor([4, 8, 0, 3, 7, 1, 2, 6, 5])
    assert torch.equal(rule(drawn[order]), rule(drawn)[order]), "whatever the order of rows"


class Spy:
    """A sampler that only writes down what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, tuple[int, ...]]] = []

    async def generate(
        self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        self.calls.append((temperature, key))
        return [Response([1], [-0.5], [0.5], "eos", temperature=temperature) for _ in range(n)]


def test_one_prompt_in_four_is_answered_at_another_temperature_but_scored_at_the_main_one() -> None:
    rollout = GroupWithAuxiliary(size=3, temperature=0.9, auxiliary_temperature=1.3)
    spy = Spy()
    sizes = []
    for i in range(8):
        drawn = asyncio.run(rollout.draw(*ask(spy, (1, 2), 5, (0, 0, i))))
        sizes.append(len(drawn))
        assert [r.origin for r in drawn] == [0] * 3 + [1] * (len(drawn) - 3)
        assert {r.temperature for r in drawn} == {0.9}
    assert sizes == [6, 3, 3, 3] * 2
    assert sorted(t for t, _ in spy.calls) == [0.9] * 8 + [1.3] * 2
    assert len({key for _, key in spy.calls}) == 10, "no two draws share their randomness"
    assert "rollout_logp" in rollout.needs, "the sampler's log-probabilities are of the wrong temperature"


def test_the_thermostat_is_hot_at_the_target_and_before_the_first_measurement() -> None:
    states: States = {}
    recipe, seen = po.aepo(entropy_target=0.5), []
    for metrics in ({}, {"entropy": 0.6}, {}, {"entropy": 0.5}, {"entropy": 0.4}):
        recipe = control(recipe, metrics, states)
        seen.append((recipe.get("source.auxiliary_temperature"), recipe.get("select.ReplaceByAuxiliary.share")))
    hot, cold = (1.2, 1.0), (0.8, 0.5)
    assert seen == [hot, cold, cold, hot, hot]
    gap = TargetGap("advantage.gap", 0.5, below=0.1, above=0.05)
    assert [gap.value(x) for x in (0.0, 0.45, 0.5, 0.53, 9.0)] == pytest.approx([0.1, 0.05, 0.0, -0.03, -0.05])
    assert isinstance(gap, Thermostat)


@SEEDS
def test_the_virtual_temperature_is_a_change_of_measure(seed: int) -> None:
    z = logits(seed)
    logp = z.log_softmax(-1)
    for temperature in (1.2, 0.8):
        ratio = (over_vocabulary(LogProbAt(temperature), z) - logp).exp()
        torch.testing.assert_close((logp.exp() * ratio).sum(-1), torch.ones(7, dtype=torch.float64))
        rare, likely = (ratio.gather(-1, at[:, None]) for at in (logp.argmin(-1), logp.argmax(-1)))
        assert (rare > likely).all() == (temperature > 1)
    torch.testing.assert_close(over_vocabulary(LogProbAt(1.0), z), logp)


def virtual(part: VirtualTemperature, batch: Batch) -> Batch:
    found = {part.hot: 0.2, part.cold: -0.2, 1.0: 0.0}
    return batch.with_statistics({FIXED + LogProbAt(t).key: batch.old_logp + x for t, x in found.items()})


def test_only_rewarded_rows_get_the_extra_term_and_few_of_them_get_more() -> None:
    batch = random_batch().replace(reward=torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0, 0], dtype=torch.float64))
    plain = po.grpo().advantage(batch)
    for gap, ratio in ((0.1, math.exp(0.2)), (-0.1, math.exp(-0.2))):
        part = VirtualTemperature(gap=gap)
        found = part(virtual(part, batch))
        alpha = (0.1 / (4 / 9)) / (1 + 0.1 / (4 / 9))
        rewarded = (batch.reward > 0)[:, None]
        torch.testing.assert_close(found, (1 - alpha) * plain + alpha * ratio * rewarded * batch.mask)
    right = batch.replace(reward=torch.ones(9, dtype=torch.float64))
    assert (part(virtual(part, right))[batch.mask > 0] > 0).all(), "groups that are all right still pull"
    assert part.strength(right) < part.strength(batch)
    wrong = batch.replace(reward=torch.zeros(9, dtype=torch.float64))
    assert part.strength(wrong) == 0
    assert not part(virtual(part, wrong)).any()


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
    make = getattr(po, method.replace("-", "_"))
    late = bandit(make(entropy_target=target, t_high=2.0, t_low=0.5, group_size=8), steps=300)[-50:]
    assert sum(late) / len(late) == pytest.approx(target, abs=0.12)


# UloRL ---------------------------------------------------------------------------------------------------------------


@SEEDS
def test_mastered_tokens_rest_and_stay_in_the_divisor(seed: int) -> None:
    recipe = po.ulorl(tau=0.2, entropy_target=1.4, importance="sais")
    batch = random_batch(seed)
    rest = recipe.get("weight.SelectedWeight.tokens")(ready(recipe, batch))
    assert rest.any()
    found, whole = dlogp(recipe, batch), dlogp(recipe.replace(weight=()), batch)
    assert torch.equal(found, torch.where(rest, 0.0, whole))
    mean = batch.sampled_entropy.mul(batch.mask).sum(-1) / batch.mask.sum(-1)
    rows = rest.any(-1)
    assert (batch.correct[rows] == 1).all()
    assert (mean[rows] < 1.4).all()
    assert (batch.logp[rest].exp() >= 0.2).all()
    assert not Mastered(tau=0.2, sigma=1.4)(ready(recipe, batch).replace(reward=torch.full((9,), 0.9))).any()


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
