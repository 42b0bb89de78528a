"""Rows that are passed chunk by chunk: the plain gradient, with the activations of one chunk."""

from __future__ import annotations

import itertools
import math
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import policyopt.models.chunked as chunked
from policyopt.engine.local import LocalEngine
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.models.adapters import LoRA
from policyopt.models.causal import SplitModel
from policyopt.models.chunked import Chunked, Chunks, Selection, check_chunks, selected
from policyopt.models.likelihood import Wanted
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.tiny import exact, family_model, load_tiny, token_batch, unusual_model

BOTH = Wanted(entropy=True)


def small(name: str = "qwen3") -> Any:
    return exact(family_model(name, torch.float64, scale=4.0))


def in_chunks(model: Any, tokens: int | None, **fields: Any) -> SplitModel:
    backbone = model.base_model if not hasattr(model, "get_base_model") else model.get_base_model().base_model
    logits = model.get_output_embeddings()
    vocab = model.get_input_embeddings().weight.shape[0]
    parted = None if tokens is None else Chunked(backbone, Chunks(tokens=tokens, **fields))
    return SplitModel(backbone, logits, vocab, chunked=parted)


def batch_of(vocab: int = 41) -> Batch:
    """Rows of 3 to 20 tokens."""
    batch = token_batch((4, 3), width=14)
    return batch.replace(tokens=batch.tokens % vocab, prompt=batch.prompt % vocab)


def gradient(model: Any, split: SplitModel, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    found = split.leaves(batch, BOTH)
    (found["logp"] * batch.noise + found["entropy"] * (1 - batch.noise)).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters() if p.requires_grad]


def furthest(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max() / y.abs().max().clamp(min=1e-12)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("tokens", [1, 5, 8, 64])
def test_the_gradient_is_that_of_plain_backward(tokens: int, family: str) -> None:
    model, batch = small(family), batch_of()
    plain = gradient(model, in_chunks(model, None), batch)
    assert furthest(gradient(model, in_chunks(model, tokens), batch), plain) < 1e-10
    whole, parted = in_chunks(model, None).leaves(batch, BOTH), in_chunks(model, tokens).leaves(batch, BOTH)
    for name, x in whole.items():
        torch.testing.assert_close(parted[name], x, rtol=0, atol=1e-10)


def test_the_gradient_that_later_chunks_hand_over_is_part_of_it() -> None:
    model, batch = small(), batch_of()
    plain = gradient(model, in_chunks(model, None), batch)
    with mock.patch.object(chunked, "selected", lambda count, *_: Selection(range(count), handed=0.0)):
        assert furthest(gradient(model, in_chunks(model, 5), batch), plain) > 0.01


@pytest.mark.parametrize("targets", ["q_proj,v_proj", "q_proj"])
def test_adapters_get_their_gradient(targets: str, tiny_model: Path) -> None:
    """With queries alone the keys and values of the first layer depend on nothing that is trained."""
    policy = load_tiny(tiny_model, lora=LoRA(rank=2, targets=targets))
    model, batch = exact(policy.model), batch_of(102)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(len(name)))
    plain = gradient(model, in_chunks(model, None), batch)
    assert max(float(g.abs().max()) for g in plain) > 0
    assert furthest(gradient(model, in_chunks(model, 4), batch), plain) < 1e-10


def engine(folder: Path, recipe: Recipe, **options: Any) -> LocalEngine:
    policy = load_tiny(folder, chunks=Chunks(**options))
    exact(policy.model)
    return LocalEngine(policy, recipe, micro_batch=3)


def trained(engine: LocalEngine) -> list[Tensor]:
    """The gradient that an engine has found."""
    return [p.grad.clone() for _, p in engine.policy.trainable() if p.grad is not None]


@pytest.mark.parametrize("recipe", [grpo(kl_coef=0.0), gspo()], ids=lambda recipe: recipe.name)
def test_any_recipe_trains_as_with_whole_rows(recipe: Recipe, tiny_model: Path) -> None:
    batch = token_batch(width=14)
    batch = batch.replace(advantage=batch.noise, old_logp=-batch.noise)
    whole, parted = engine(tiny_model, recipe), engine(tiny_model, recipe, tokens=5)
    reports = [e.gradient(recipe, batch) for e in (whole, parted)]
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-10)
    assert furthest(trained(parted), trained(whole)) < 1e-10


def test_a_critic_passes_in_chunks_too(tiny_model: Path) -> None:
    batch = token_batch(width=14)
    batch = batch.replace(advantage=batch.noise, old_logp=-batch.noise, returns=batch.noise, old_value=batch.noise)
    recipe = ppo(kl_coef=0.0)
    found = []
    for options in ({}, {"tokens": 5}):
        e = engine(tiny_model, recipe, **options)
        assert e.critic is not None
        exact(e.critic)
        torch.nn.init.constant_(e.critic.head.weight, 0.1)
        e.gradient(recipe, batch)
        found.append([p.grad for p in e.critic.parameters() if p.grad is not None])
    assert len(found[1]) > 10 and furthest(found[1], found[0]) < 1e-10


# Memory --------------------------------------------------------------------------------------------------------------


class Kept:
    """Bytes that graphs hold at once for backward, at most; parameters do not count."""

    def __init__(self, model: Any) -> None:
        self.free = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.held: dict[int, list[int]] = {}
        self.peak = 0

    def pack(self, x: Tensor) -> tuple[Tensor, Any]:
        place, size = x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()
        token = torch.empty(0)
        if place not in self.free:
            self.held.setdefault(place, [size, 0])[1] += 1
            self.peak = max(self.peak, sum(size for size, _ in self.held.values()))
            weakref.finalize(token, self.let_go, place)
        return x.detach(), token

    def let_go(self, place: int) -> None:
        self.held[place][1] -= 1
        if not self.held[place][1]:
            del self.held[place]

    def __call__(self, split: SplitModel, width: int) -> int:
        self.peak = 0
        ids = torch.arange(width)[None] % 41
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda packed: packed[0]):
            hidden = split.predicting(
                make_batch(mask=torch.ones(1, width), tokens=ids, prompt=ids[:, :1], prompt_mask=torch.ones(1, 1))
            )
            hidden.square().sum().backward()
        return self.peak


def test_memory_for_activations_is_that_of_one_chunk() -> None:
    model = family_model(
        "qwen3", torch.float64, num_hidden_layers=4, max_position_embeddings=1024, intermediate_size=256
    )
    kept = Kept(model)
    plain, parted = ([kept(in_chunks(model, tokens), width) for width in (128, 256, 512)] for tokens in (None, 16))
    assert plain[2] > 1.9 * plain[1] > 3.6 * plain[0]
    assert parted[2] < plain[2] / 10
    # What grows is what a chunk attends to, keys and values of four layers and its mask, and what the loss reads.
    attended, mask, read = 4 * 2 * 16, 2 * 16, 32 + 1
    assert parted[2] - parted[1] <= 1.05 * 256 * 8 * (attended + mask + read)


# A share of the chunks ------------------------------------------------------------------------------------------------


def over_selections(model: Any, batch: Batch, selections: list[Selection]) -> list[Tensor]:
    """The mean gradient over selections."""
    found = []
    for selection in selections:
        with mock.patch.object(chunked, "selected", lambda *_, selection=selection: selection):
            found.append(gradient(model, in_chunks(model, 6), batch))
    return [torch.stack(same).mean(0) for same in zip(*found, strict=True)]


def test_independent_draws_have_no_bias_and_subsets_have_little() -> None:
    """Of a row of three chunks: all eight ways to draw each of them with probability one half, all three subsets of two."""
    model, batch = small(), batch_of()
    batch = batch[(batch.mask.sum(1) + batch.prompt_mask.sum(1)).argmax()[None]]
    assert 12 < int(batch.mask.sum() + batch.prompt_mask.sum()) - 1 <= 18
    plain = gradient(model, in_chunks(model, None), batch)

    def drawn(chunks: tuple[int, ...], kept: float, cap: float = math.inf) -> Selection:
        return Selection(chunks, 3 / kept, min(3 / kept, cap))

    every = [tuple(i for i in range(3) if on[i]) for on in itertools.product((0, 1), repeat=3)]
    assert furthest(over_selections(model, batch, [drawn(c, 1.5) for c in every]), plain) < 1e-10
    assert furthest(over_selections(model, batch, [drawn(c, 1.5, cap=1.0) for c in every]), plain) > 1e-3
    pairs = [drawn(c, 2) for c in itertools.combinations(range(3), 2)]
    assert 1e-4 < furthest(over_selections(model, batch, pairs), plain) < 0.5


def test_which_chunks_are_selected() -> None:
    every = Chunks(tokens=4, kept=2, cap=1.5)
    assert selected(2, every, key=1) == Selection(range(2))
    found = [selected(6, every, key) for key in range(600)]
    assert all(len(set(s.chunks)) == 2 and (s.own, s.handed) == (3.0, 1.5) for s in found)
    counts = torch.tensor([i for s in found for i in s.chunks]).bincount(minlength=6)
    assert counts.min() > 150 and counts.max() < 250
    alone = [selected(6, Chunks(tokens=4, kept=2, drawn="independent"), key) for key in range(600)]
    assert {len(s.chunks) for s in alone} >= {0, 1, 2, 3, 4}
    assert sum(len(s.chunks) for s in alone) / 600 == pytest.approx(2, abs=0.15)


def test_the_selection_follows_from_the_row_and_the_update(tiny_model: Path) -> None:
    batch = token_batch(width=14)
    batch = batch.replace(advantage=batch.noise, old_logp=-batch.noise)
    recipe, parts = grpo(kl_coef=0.0), {"tokens": 4, "kept": 1}
    mine, again = engine(tiny_model, recipe, **parts), engine(tiny_model, recipe, **parts)
    again.micro_batch = 1

    def now(e: LocalEngine, rows: list[int]) -> list[Tensor]:
        e.gradient(recipe, batch[torch.tensor(rows)])
        return trained(e)

    rows = list(range(len(batch)))
    first = now(mine, rows)
    assert furthest(now(again, rows[::-1]), first) < 1e-10
    again.load_tensors(again.tensors(), version=1)
    assert furthest(now(again, rows), first) > 1e-3


# Which models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "opt", "bloom", "cohere", "granite"])
def test_plain_attention_takes_chunks(family: str) -> None:
    check_chunks(family_model(family).base_model, 41)


@pytest.mark.parametrize("family", ["gemma3_text", "mistral"])
def test_windows_are_refused(family: str) -> None:
    with pytest.raises(UserError, match=r"--chunks\.tokens: .* keeps another state .* --gradient-checkpointing"):
        check_chunks(family_model(family).base_model, 41)


@pytest.mark.parametrize("family", ["mamba", "rwkv", "lfm2", "recurrent_gemma"])
def test_other_states_are_refused(family: str) -> None:
    with pytest.raises(UserError, match=r"--chunks\.tokens"):
        check_chunks(unusual_model(family).base_model, 41)


def test_a_model_that_comes_out_another_is_refused() -> None:
    backbone = family_model("qwen3").base_model
    own = backbone.forward
    backbone.forward = lambda past_key_values=None, **how: own(past_key_values=None, **how)
    with pytest.raises(UserError, match=r"gives other numbers when a text comes in chunks"):
        check_chunks(backbone, 41)


def test_kept_chunks_need_a_length() -> None:
    with pytest.raises(ValueError, match=r"chunks\.kept is set, and chunks\.tokens"):
        Chunks(kept=2)
