"""The local engine: the gradient belongs to the batch, and an update is all or nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Tensor

from policyopt.engine.local import LocalEngine
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models import head
from policyopt.models.causal import SplitModel, split_model
from policyopt.models.critic import ValueModel
from policyopt.models.load import LoRA
from policyopt.objective import credit, objective, shaped, token_gradients
from policyopt.part import Surrogate, Unit, part
from policyopt.parts import ClippedValueLoss, EntropyBonus, LogProb
from policyopt.parts.probe.watched import Watched
from policyopt.parts.regularizer.kl import KL
from policyopt.parts.span.kinds import Regex
from policyopt.recipe import Recipe
from policyopt.registry import Method
from policyopt.rows import Batch
from policyopt.training.batches import minibatches
from policyopt.training.metrics import update_metrics
from tests.batches import COVERING_METHODS, SOME_METHODS, with_all_terms, with_named
from tests.tiny import load_tiny, plain_columns, rows_of, token_batch, with_contexts

Gradient = dict[str, Tensor]


@part
class CoupledRows(Surrogate):
    """A soft maximum over the responses of the batch: the token weights of each row depend on all others."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        rows = (log_ratio.exp() * batch.advantage * batch.mask).sum(1)
        return -rows.logsumexp(0) * log_ratio.exp() * batch.advantage

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"clip_fraction/high": torch.ones_like(log_ratio)}


@part
class Cliff(Surrogate):
    """A loss of zero whose gradient is infinite."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return (batch.logp - batch.logp.detach()).abs().sqrt()


def engine_of(
    folder: Path, recipe: Recipe, dtype: str = "float64", lora: LoRA | None = None, **options: Any
) -> LocalEngine:
    """An engine whose policy has moved away from its reference, and whose critic says something."""
    torch.manual_seed(3)
    teacher = load_tiny(folder, dtype)
    with torch.no_grad():
        for p in teacher.model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    engine = LocalEngine(load_tiny(folder, dtype, lora=lora), recipe, {"teacher": teacher}, **options)
    # Norms of the tiny model are computed in float32 whatever its weights are: packing rows changes the order of sums,
    # and its rounding would hide how exact the rest is. Packing has tests of its own.
    engine.likelihood = dataclasses.replace(split_model(engine.policy.model), packs=0)
    if engine.critic is not None:
        engine.critic.packs = 0
    with torch.no_grad():
        for p in [p for o in engine.weights.optimizers.values() for p in o.param_groups[0]["params"]]:
            p.add_(0.05 * torch.randn_like(p))
    return engine


ORIGINS = {"srpo": (0, 0, 1, 2, 3, 4)}
"""Where the rows of a prompt come from, of methods whose loss takes one row of each."""


def groups_of(method: Method, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the groups that a method is tried on: so many groups, of as many rows as its loss takes."""
    return (len(ORIGINS[method.name]),) * len(sizes) if method.name in ORIGINS else sizes


def drawn(engine: LocalEngine, recipe: Recipe, drift: float = 0.3, groups: tuple[int, ...] = (4, 3)) -> Batch:
    """A batch as the loop hands it to the engine; ``drift`` is how far the policy has moved since it was drawn."""
    batch = token_batch(groups)
    if recipe.name in ORIGINS:
        batch = batch.replace(origin=torch.tensor(ORIGINS[recipe.name] * len(groups)))
    # Nothing is truncated: where that makes an answer worthless, a group of two might have nothing to learn from.
    whole = torch.zeros_like(batch.reward)
    batch = batch.replace(temperature=torch.full_like(batch.reward, recipe.source.temperature), truncated=whole)
    noise = drift * torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        now = plain_columns(engine.policy.model, batch)["logp"].double()
    batch = batch.replace(old_logp=(now + noise) * batch.mask)
    columns = {k: x.to(engine.dtype) for k, x in batch.columns().items() if x.is_floating_point()}
    batch = engine.annotate(with_contexts(with_named(recipe, batch.replace(**columns)), recipe), recipe)
    if {"step_end", "step_reward"} & recipe.needs:
        last = batch.mask.sum(1).long()[:, None] - 1
        batch = batch.replace(step_end=last, step_reward=batch.reward[:, None])
    if recipe.memory is not None:
        batch = batch.replace(history=torch.full((len(batch.mask), recipe.memory.width), math.nan).to(batch.mask))
    return credit(recipe, engine.prepare(shaped(recipe, batch), recipe))


def grads(engine: LocalEngine) -> Gradient:
    """The gradient that lies in ``.grad``, by role and name."""
    return {
        f"{role}/{name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for role, parameters in engine.weights.parameters.items()
        for name, p in parameters.items()
    }


def naive(engine: LocalEngine, recipe: Recipe, batch: Batch) -> Gradient:
    """The gradient by autograd on the whole batch at once, each row by itself through the whole model."""
    for optimizer in engine.weights.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    roles = {name: role.model for name, role in engine.roles.items()}
    leaves = plain_columns(engine.policy.model, batch, 1.0, recipe.live, roles)
    if engine.critic is not None:
        values = []
        for ids, p, t in rows_of(batch):
            hidden = engine.critic.backbone(input_ids=ids[None]).last_hidden_state[0, p - 1 : -1]
            values.append(torch.nn.functional.pad(engine.critic.head(hidden)[:, 0], (0, batch.mask.shape[1] - t)))
        leaves["value"] = torch.stack(values)
    objective(recipe, batch.with_leaves(leaves)).backward()
    return grads(engine)


def difference(a: Gradient, b: Gradient) -> float:
    """Largest difference over the largest entry, the worst over the roles."""
    worst = 0.0
    for role in {name.split("/")[0] for name in a}:
        names = [name for name in a if name.startswith(role)]
        scale = max(float(b[n].abs().max()) for n in names)
        assert scale > 0, f"no gradient reaches the {role}"
        worst = max(worst, max(float((a[n] - b[n]).abs().max()) for n in names) / scale)
    return worst


def assert_same_for_any_partition(engine: LocalEngine, recipe: Recipe, batch: Batch) -> None:
    truth = naive(engine, recipe, batch)
    n = len(batch.mask)
    first = None
    same, mixed = torch.arange(n), torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for micro, order in ((None, same), (None, mixed), (1, same.flip(0)), (3, same), (3, mixed)):
        engine.micro_batch = micro
        with mock.patch.object(head, "CHUNK_BYTES", 4 * engine.vocab * (6 if micro == 3 else 10**6)):
            report = engine.gradient(recipe, batch[order])  # by three rows, in stages of six tokens
        assert difference(grads(engine), truth) < 1e-10, f"micro_batch {micro}, order {order.tolist()}"
        weight = torch.empty_like(report.weight)
        weight[order] = report.weight
        first = first or (report, weight)
        assert report.loss == pytest.approx(first[0].loss, rel=1e-10)
        torch.testing.assert_close(weight, first[1], rtol=1e-10, atol=1e-14)
        assert report.sums == pytest.approx(first[0].sums, rel=1e-9, abs=1e-12)


# Partition invariance


@COVERING_METHODS
def test_the_gradient_is_the_same_for_any_micro_batch_and_order_of_rows(method: Method, tiny_model: Path) -> None:
    recipe = with_all_terms(method)
    engine = engine_of(tiny_model, recipe)
    assert_same_for_any_partition(engine, recipe, drawn(engine, recipe, groups=groups_of(method, (4, 3))))


@SOME_METHODS
def test_so_is_that_of_each_mini_batch(method: Method, tiny_model: Path) -> None:
    recipe = with_all_terms(method)
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe, groups=groups_of(method, (3, 2, 4, 2)))
    n = len(batch)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(2))
    pieces = list(minibatches(batch, 2, (0, 1, 0)))
    assert sorted(torch.cat(pieces).tolist()) == list(range(n))
    for rows, others in zip(pieces, minibatches(batch[shuffled], 2, (0, 1, 0)), strict=True):
        assert {int(g) for g in batch.group[rows]}.isdisjoint(
            set(batch.group.tolist()) - set(batch.group[rows].tolist())
        )
        assert sorted(shuffled[others].tolist()) == sorted(rows.tolist())
        engine.micro_batch = 2
        engine.gradient(recipe, batch[shuffled][others])
        assert difference(grads(engine), naive(engine, recipe, batch[rows])) < 1e-10


@pytest.mark.parametrize("with_critic", [False, True])
def test_a_part_that_couples_all_rows_takes_two_passes_and_keeps_its_gradient(
    with_critic: bool, tiny_model: Path
) -> None:
    recipe = grpo(kl_coef=0.1).replace(
        surrogate=CoupledRows(),
        regularizers=(KL(coef=0.1), EntropyBonus(coef=0.05)),
        critic=ClippedValueLoss() if with_critic else None,
    )
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe)
    assert_same_for_any_partition(engine, recipe, batch)
    engine.micro_batch = 3
    with mock.patch.object(SplitModel, "predicting", autospec=True, side_effect=SplitModel.predicting) as passes:
        engine.gradient(recipe, batch)
    assert passes.call_count == 2 * 3, "seven rows by three: once without gradient, once with it"


def test_temperature_is_part_of_the_gradient(tiny_model: Path) -> None:
    recipe = grpo().set("source.temperature", 0.6)
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe)
    assert_same_for_any_partition(engine, recipe, batch)
    hot = naive(engine, recipe, batch.replace(temperature=torch.ones_like(batch.reward)))
    assert difference(hot, naive(engine, recipe, batch)) > 1e-2


# What a gradient is


def test_on_policy_grpo_without_clipping_is_reinforce_with_the_same_advantages(tiny_model: Path) -> None:
    recipe = grpo(low=None, high=None, kl_coef=0.0)
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe, drift=0.0)
    engine.gradient(recipe, batch)
    mine = grads(engine)
    engine.gradient(recipe.replace(surrogate=LogProb()), batch)
    assert difference(mine, grads(engine)) < 1e-10
    engine.gradient(grpo(kl_coef=0.0), batch)
    assert difference(mine, grads(engine)) < 1e-10, "on-policy, no ratio is beyond its bounds"
    moved = drawn(engine, recipe, drift=0.3)
    engine.gradient(recipe, moved)
    off = grads(engine)
    engine.gradient(recipe.replace(surrogate=LogProb()), moved)
    assert difference(off, grads(engine)) > 1e-3, "off-policy they must differ"


def test_the_report_holds_the_token_weights_and_their_mass(tiny_model: Path) -> None:
    recipe = grpo(low=None, high=None, kl_coef=0.0)
    engine = engine_of(tiny_model, recipe, micro_batch=2)
    batch = drawn(engine, recipe, drift=0.0)
    report = engine.gradient(recipe, batch)
    expected = recipe.aggregate(batch) * batch.advantage
    torch.testing.assert_close(report.weight, expected)
    assert report.sums["signal/positive"] == pytest.approx(float(expected.clamp(min=0).sum()))
    assert report.sums["signal/negative"] == pytest.approx(float((-expected).clamp(min=0).sum()))
    assert report.sums["tokens"] == batch.mask.sum()


def test_the_log_says_how_much_of_the_training_falls_on_a_span(tiny_model: Path) -> None:
    recipe = grpo(low=None, high=None, kl_coef=0.0).replace(probes=(Watched(Regex("x", label="first")),))
    assert [span.column for span in recipe.spans] == ["span[first]"] and "span[first]" in recipe.needs
    engine = engine_of(tiny_model, recipe, micro_batch=2)
    batch = drawn(engine, recipe, drift=0.0)
    first = torch.zeros_like(batch.mask)
    first[:, 0] = 1
    batch = batch.replace(**{"span[first]": first}, advantage=batch.advantage * (1 + 2 * first))
    weight = (recipe.aggregate(batch) * batch.advantage).abs()
    found = update_metrics([engine.gradient(recipe, batch)])
    assert found["span[first]/tokens"] == pytest.approx(float((first * batch.mask).sum() / batch.mask.sum()))
    assert found["span[first]/weight"] == pytest.approx(float((first * weight).sum() / weight.sum()))
    assert found["span[first]/weight"] > found["span[first]/tokens"]
    silent = update_metrics([engine.gradient(recipe, batch.replace(advantage=torch.zeros_like(batch.mask)))])
    assert "span[first]/tokens" in silent and "span[first]/weight" not in silent, "of nothing there is no share"


def test_mismatch_is_measured_on_rows_of_the_present_policy_only(tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.0)
    engine = engine_of(tiny_model, recipe, micro_batch=2)
    batch = drawn(engine, recipe, drift=0.0)
    version = torch.tensor([0, 0, 0, 1, 0, 1, 1])
    gap = torch.zeros_like(batch.mask)
    gap[0, 0], gap[3, 0] = 0.25, 0.75
    batch = batch.replace(old_logp=batch.old_logp + gap, version=version)
    sums = engine.gradient(recipe, batch).sums
    assert sums["mismatch/max"] == pytest.approx(0.25)
    assert sums["mismatch/sum"] == pytest.approx(0.25)
    assert sums["mismatch/tokens"] == batch.mask[version == 0].sum()
    engine.version = 1
    assert engine.gradient(recipe, batch).sums["mismatch/max"] == pytest.approx(0.75)


# An update


def state_of(engine: LocalEngine) -> Gradient:
    return {name: x.detach().clone() for name, x in engine.tensors().items()}


def assert_equal_state(a: Gradient, b: Gradient) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["loss", "gradient", "critic"])
def test_an_update_that_is_not_finite_changes_nothing(kind: str, tiny_model: Path) -> None:
    recipe = ppo()
    engine = engine_of(tiny_model, recipe, lr=1e-2, micro_batch=3)
    good = drawn(engine, recipe)
    assert engine.update(recipe, good).applied
    before = state_of(engine)
    bad, batch = recipe, good
    if kind == "loss":
        batch = good.replace(advantage=torch.where(torch.arange(7)[:, None] == 2, torch.nan, good.advantage))
    if kind == "gradient":
        bad = recipe.replace(surrogate=Cliff())
    if kind == "critic":
        batch = good.replace(returns=torch.where(torch.arange(7)[:, None] == 5, torch.inf, good.returns))
    report = engine.update(bad, batch)
    assert not report.applied
    assert math.isfinite(report.loss) == (kind == "gradient")
    assert_equal_state(before, state_of(engine))
    assert engine.version == engine.sampler.version == 1
    assert all(p.grad is None for o in engine.weights.optimizers.values() for p in o.param_groups[0]["params"])
    assert engine.update(recipe, good).applied, "the next good batch is trained on"
    assert engine.version == engine.sampler.version == 2


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_update_size_is_the_relative_change_of_the_parameters(clip_norm: float, tiny_model: Path) -> None:
    recipe = grpo()
    engine = engine_of(tiny_model, recipe, lr=3e-3, clip_norm=clip_norm, eps=1e-6)
    batch = drawn(engine, recipe)
    assert engine.update_size() == 0.0
    for step in range(4):
        engine.set_lr(1.0 - 0.2 * step)
        before = [p.detach().clone() for _, p in engine.policy.trainable()]
        assert engine.update(recipe, batch).applied
        after = [p.detach() for _, p in engine.policy.trainable()]
        moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(after, before, strict=True)))
        size = math.sqrt(sum(float((a**2).sum()) for a in after))
        assert engine.update_size() == pytest.approx(moved / size, rel=1e-5), f"step {step}"


def test_gradients_are_clipped_by_role(tiny_model: Path) -> None:
    recipe = ppo()
    engine = engine_of(tiny_model, recipe, clip_norm=0.05)
    batch = drawn(engine, recipe)
    engine.gradient(recipe, batch)
    norm = math.sqrt(sum(float((g**2).sum()) for name, g in grads(engine).items() if name.startswith("policy/")))
    steps: dict[str, float] = {}

    def spy(role: str) -> Any:
        parameters = engine.weights.optimizers[role].param_groups[0]["params"]
        return lambda *_: steps.update(
            {role: math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None))}
        )

    for role, optimizer in engine.weights.optimizers.items():
        optimizer.register_step_pre_hook(spy(role))
    report = engine.update(recipe, batch)
    assert report.grad_norm == pytest.approx(norm) and norm > 0.05
    assert steps == pytest.approx({"policy": 0.05, "critic": 0.05}, rel=1e-3)


def test_the_critic_learns_its_target(tiny_model: Path) -> None:
    recipe = ppo(clip_value=None, vf_coef=1.0, kl_coef=0.0)
    engine = engine_of(tiny_model, recipe, lr=1e-6, critic_lr=3e-3, clip_norm=10.0)
    batch = drawn(engine, recipe, drift=0.0)
    target = batch.returns + 2 * batch.mask

    def error() -> float:
        with torch.no_grad():
            value = engine.prepare(batch, recipe).old_value
        return float((((value - target) * batch.mask) ** 2).sum() / batch.mask.sum())

    start = error()
    for _ in range(40):
        engine.update(recipe, batch.replace(returns=target, advantage=torch.zeros_like(target)))
    assert error() < 0.1 * start


def test_a_fresh_critic_says_zero_and_moves_at_its_own_rate(tiny_model: Path) -> None:
    engine = LocalEngine(load_tiny(tiny_model), ppo(), lr=1e-3)
    batch = token_batch()
    assert engine.prepare(batch, ppo()).old_value.abs().max() == 0
    assert engine.weights.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(1e-2)
    engine.set_lr(0.5)
    assert {o.param_groups[0]["lr"] for o in engine.weights.optimizers.values()} == {5e-4, 5e-3}
    assert engine.critic is not None
    mine = {p.data_ptr() for p in engine.critic.parameters()}
    assert mine.isdisjoint({p.data_ptr() for p in engine.policy.model.parameters()})


# Roles


def test_a_critic_is_passed_once_however_many_stages_the_head_takes(tiny_model: Path) -> None:
    recipe = ppo().replace(regularizers=(EntropyBonus(),))
    engine = engine_of(tiny_model, recipe)
    batch = drawn(engine, recipe)
    truth = naive(engine, recipe, batch)
    with (
        mock.patch.object(head, "CHUNK_BYTES", 10 * 4 * engine.vocab),
        mock.patch.object(ValueModel, "forward", autospec=True, side_effect=ValueModel.forward) as values,
        mock.patch.object(SplitModel, "predicting", autospec=True, side_effect=SplitModel.predicting) as passes,
        mock.patch("policyopt.engine.plan.token_gradients", side_effect=token_gradients) as weighed,
    ):
        engine.gradient(recipe, batch)
    assert difference(grads(engine), truth) < 1e-10
    assert values.call_count == passes.call_count == 1
    assert weighed.call_count > 3, "stages, each with some rows"


def test_only_what_a_recipe_needs_is_made_and_computed(tiny_model: Path) -> None:
    lean = grpo(kl_coef=0.0)
    engine = LocalEngine(load_tiny(tiny_model), lean)
    assert engine.roles == {}
    assert engine.critic is None
    assert engine.weights.optimizers.keys() == {"policy"}
    batch = drawn(engine, lean)
    assert batch.ref_logp is None
    assert batch.old_value is None
    with mock.patch.object(SplitModel, "weighed", autospec=True, side_effect=SplitModel.weighed) as passes:
        engine.gradient(lean, batch)
        assert passes.call_count == 1
        assert not passes.call_args.args[3].entropy
        engine.gradient(lean.replace(regularizers=(EntropyBonus(),)), batch)
        assert passes.call_args.args[3].entropy
    assert LocalEngine(load_tiny(tiny_model), grpo(kl_coef=0.1)).roles.keys() == {"reference"}


def test_the_reference_stays_where_the_policy_was(tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.1)
    engine = LocalEngine(load_tiny(tiny_model), recipe, lr=1e-2)
    with torch.no_grad():
        start = plain_columns(engine.policy.model, token_batch())["logp"]
    engine.update(recipe, drawn(engine, recipe))
    batch = engine.annotate(token_batch(), recipe)
    torch.testing.assert_close(batch.ref_logp, start, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert (plain_columns(engine.policy.model, token_batch())["logp"] - start).abs().max() > 1e-3


def test_adapters_alone_are_trained_and_the_reference_is_the_model_without_them(
    tiny_model: Path, tmp_path: Path
) -> None:
    recipe = ppo(kl_coef=0.1, entropy_coef=0.01)
    plain = load_tiny(tiny_model)
    with torch.no_grad():
        base = plain_columns(plain.model, token_batch())["logp"]
    engine = LocalEngine(load_tiny(tiny_model, lora=LoRA(rank=4, alpha=6.5)), recipe, lr=1e-2, micro_batch=3)
    with torch.no_grad():
        torch.testing.assert_close(plain_columns(engine.policy.model, token_batch())["logp"], base)
    scalings = [s for m in engine.policy.model.modules() if isinstance(s := getattr(m, "scaling", None), dict)]
    assert {s["default"] for s in scalings} == {6.5 / 4}, "alpha over rank"
    names = [name for name, _ in engine.policy.trainable()]
    assert names
    assert all("lora_" in name for name in names)
    frozen = {n: p.detach().clone() for n, p in engine.policy.model.named_parameters() if not p.requires_grad}
    for _ in range(3):
        batch = drawn(engine, recipe)
        torch.testing.assert_close(batch.ref_logp, base, rtol=0, atol=1e-12)
        engine.gradient(recipe, batch)
        assert all(p.grad is None for n, p in engine.policy.model.named_parameters() if "lora_" not in n)
        assert difference(grads(engine), naive(engine, recipe, batch)) < 1e-6
        assert engine.update(recipe, batch).applied
    assert all(torch.equal(p, frozen[n]) for n, p in engine.policy.model.named_parameters() if n in frozen)
    with torch.no_grad():
        now = plain_columns(engine.policy.model, token_batch())["logp"]
        assert (now - base).abs().max() > 1e-3
        engine.policy.save(tmp_path / "merged")
        merged = load_tiny(tmp_path / "merged")
        torch.testing.assert_close(plain_columns(merged.model, token_batch())["logp"], now, rtol=0, atol=1e-10)
        torch.testing.assert_close(plain_columns(engine.policy.model, token_batch())["logp"], now, rtol=0, atol=0)


# State


def test_tensors_put_back_continue_to_the_same_bits(tiny_model: Path) -> None:
    recipe = ppo(kl_coef=0.1)
    one = LocalEngine(load_tiny(tiny_model, "float32"), recipe, lr=1e-3)
    batch = drawn(one, recipe)
    one.update(recipe, batch)
    saved, version = state_of(one), one.version
    two = LocalEngine(load_tiny(tiny_model, "float32"), recipe, lr=1e-3)
    two.load_tensors(saved, version)
    assert two.version == two.sampler.version == 1
    for engine in (one, two):
        engine.update(recipe, batch)
        engine.update(recipe, batch)
    assert_equal_state(state_of(one), state_of(two))
    assert two.version == two.sampler.version == 3
    one.load_tensors(saved, version)
    assert_equal_state(state_of(one), saved)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_steps_add_up_in_16_bits_too(dtype: str, tiny_model: Path) -> None:
    """At a learning rate of 1e-6 no single step changes a 16-bit weight; many must, and a checkpoint must not lose them."""
    recipe = ppo(kl_coef=0.0)
    low = LocalEngine(load_tiny(tiny_model, dtype), recipe, lr=1e-5, critic_lr=1e-5)
    high = LocalEngine(load_tiny(tiny_model, "float32"), recipe, lr=1e-5, critic_lr=1e-5)
    high.load_tensors(state_of(low), 0)
    before = state_of(low)
    assert {x.dtype for x in before.values()} == {torch.float32}
    batch = drawn(low, recipe, drift=0.0)
    for _ in range(30):
        for engine in (low, high):
            assert engine.update(recipe, batch).applied
    name = "policy/model.layers.0.mlp.up_proj.weight"
    moved, wanted = (state_of(engine)[name] - before[name] for engine in (low, high))
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0) > 0.9
    assert float(moved.norm() / wanted.norm()) == pytest.approx(1.0, abs=0.1)
    weight = low.policy.model.get_parameter(name.removeprefix("policy/"))
    assert weight.dtype == getattr(torch, dtype)
    assert torch.equal(weight, state_of(low)[name].to(weight.dtype))
    again = LocalEngine(load_tiny(tiny_model, dtype), recipe, lr=1e-5, critic_lr=1e-5)
    again.load_tensors(state_of(low), 30)
    for engine in (low, again):
        engine.update(recipe, batch)
    assert_equal_state(state_of(low), state_of(again))
    assert all(
        torch.equal(a, b) for a, b in zip(low.policy.model.parameters(), again.policy.model.parameters(), strict=True)
    )


def test_tensors_of_another_model_are_refused_by_name(tiny_model: Path) -> None:
    engine = LocalEngine(load_tiny(tiny_model), grpo(kl_coef=0.0))
    saved = state_of(engine)
    name = "policy/model.norm.weight"
    with pytest.raises(KeyError, match=name):
        engine.load_tensors({n: x for n, x in saved.items() if n != name}, 0)
    with pytest.raises(KeyError, match=r"shape \(3,\), expected \(32,\)"):
        engine.load_tensors(saved | {name: torch.zeros(3)}, 0)
