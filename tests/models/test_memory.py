"""Memory that is spared changes no update: activations worked out again, another attention, compiled code."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import policyopt.models.memory as memory
from policyopt.engine.local import LocalSampler
from policyopt.engine.local.engine import LocalEngine
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA
from policyopt.models.causal import split_model
from policyopt.models.memory import recompute_layers
from policyopt.rows import Batch
from tests.tiny import family_model, load_tiny, token_batch


def gradients(folder: Path, **options: Any) -> dict[str, Tensor]:
    recipe = grpo(kl_coef=0.0)
    engine = LocalEngine(load_tiny(folder, **options), recipe)
    batch = token_batch()
    batch = batch.replace(advantage=batch.noise, old_logp=-batch.noise)
    engine.gradient(recipe, batch)
    return {name: p.grad for name, p in engine.policy.trainable() if p.grad is not None}


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
@pytest.mark.parametrize("option", [{"gradient_checkpointing": True}, {"attention": "eager"}])
def test_the_gradient_is_the_same(option: dict[str, Any], lora: LoRA | None, tiny_model: Path) -> None:
    plain, spared = gradients(tiny_model, lora=lora), gradients(tiny_model, lora=lora, **option)
    assert plain.keys() == spared.keys()
    for name in plain:  # norms of the tiny model are computed in float32
        torch.testing.assert_close(spared[name], plain[name], rtol=1e-4, atol=1e-7)


def numbers_kept(critic: torch.nn.Module, batch: Batch) -> int:
    """How many numbers a pass keeps for the way back."""
    sizes: list[int] = []
    with saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
        critic(batch)
    return sum(sizes)


def test_the_critic_passes_its_layers_again_too(tiny_model: Path) -> None:
    found, kept = [], []
    for recomputed in (False, True):
        recipe = ppo(kl_coef=0.0)
        engine = LocalEngine(load_tiny(tiny_model, gradient_checkpointing=recomputed), recipe)
        assert engine.critic is not None
        torch.nn.init.ones_(engine.critic.head.weight)
        batch = token_batch()
        batch = batch.replace(advantage=batch.noise, returns=batch.noise, old_value=batch.noise, old_logp=-batch.noise)
        kept.append(numbers_kept(engine.critic, batch))
        engine.gradient(recipe, batch)
        found.append({name: p.grad for name, p in engine.critic.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any("layers.0" in name for name in found[0])
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-7)
    assert kept[1] < kept[0] / 3, "of each layer its input alone is kept"


def test_layers_are_passed_again_and_keep_nothing(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, gradient_checkpointing=True)
    calls: list[bool] = []
    layer = policy.model.model.layers[0]
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    out = policy.likelihood().leaves(token_batch())["logp"]
    once = len(calls)
    out.sum().backward()
    assert len(calls) == once + 1
    assert not policy.model.training
    assert type(layer).__name__ == "Qwen3DecoderLayer"


def test_a_copy_passes_its_own_layers(tiny_model: Path) -> None:
    """The reference is a copy: were it to call the policy's layers, it would move with them."""
    policy = load_tiny(tiny_model, gradient_checkpointing=True)
    reference = policy.reference()
    with reference as split, torch.no_grad():
        before = split.leaves(token_batch())["logp"]
        for _, p in policy.trainable():
            p.mul_(0.5)
        torch.testing.assert_close(split.leaves(token_batch())["logp"], before, rtol=0, atol=0)


def test_a_model_that_is_passed_again_is_sampled_from_as_before(tiny_model: Path) -> None:
    def drawn(**options: Any) -> list[int]:
        sampler = LocalSampler.of(load_tiny(tiny_model, **options))
        [[response]] = sampler.run([sampler.generate((7, 8, 9), max_tokens=12, key=(1,))])
        return response.tokens

    assert drawn() == drawn(gradient_checkpointing=True) == drawn(attention="eager")


def test_a_model_without_layers_that_can_be_passed_again_is_refused() -> None:
    with pytest.raises(UserError, match=r"--gradient-checkpointing: Linear .* has no layers that can be passed again"):
        recompute_layers("here", torch.nn.Linear(2, 2))


def test_compiled_code_is_used_for_whole_texts_and_must_be_right(tiny_model: Path) -> None:
    """With a compiler that changes nothing; the real one takes a minute and is tried by hand."""
    policy = load_tiny(tiny_model)
    policy.compiled = True
    with mock.patch.object(torch, "compile", side_effect=lambda f, **_: mock.MagicMock(wraps=f)):
        split: Any = policy.likelihood()
        assert not split.packs
        found = split.leaves(token_batch())["logp"]
        assert split.whole.call_count == 2, "the probe, and the batch"
    torch.testing.assert_close(found, split_model(policy.model).leaves(token_batch())["logp"], rtol=0, atol=1e-6)


def test_code_that_does_not_compile_is_refused_in_a_line() -> None:
    model = family_model("qwen3")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nat all")

    with mock.patch.object(torch, "compile", return_value=broken):
        with pytest.raises(
            UserError, match=r"--compile: Qwen3Model cannot be compiled here \(no compiler\); leave it out"
        ):
            memory.compiled(model.model, 41)
    other = copy.deepcopy(model.model)
    with torch.no_grad():
        other.norm.weight.mul_(torch.linspace(0.5, 1, 32))
    with mock.patch.object(torch, "compile", return_value=other):
        with pytest.raises(UserError, match="gives other numbers when compiled"):
            memory.compiled(model.model, 41)


def test_rows_go_one_by_one_where_padding_is_not_without_effect() -> None:
    """A model that looks to the right is found out, and its numbers are those of each row alone."""
    model = family_model("qwen3", torch.float64)
    forward = model.model.forward

    def sees_the_end(*args: Any, **keywords: Any) -> Any:
        out = forward(*args, **keywords)
        out.last_hidden_state = out.last_hidden_state + keywords["input_ids"].shape[1]
        return out

    with mock.patch.object(model.model, "forward", sees_the_end):
        split = split_model(model)
        assert not split.pads
        assert not split.packs
        batch = token_batch()
        batch = batch.replace(tokens=batch.tokens % 41, prompt=batch.prompt % 41)
        found = split.leaves(batch)["logp"]
        for i in range(len(batch.mask)):
            alone = split.leaves(batch[torch.tensor([i])])["logp"]
            torch.testing.assert_close(found[i], alone[0], rtol=0, atol=1e-12)
        assert not torch.allclose(found, dataclasses.replace(split, pads=True).leaves(batch)["logp"])
