"""Log-probabilities: right, whatever the chunks, the padding and the architecture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import policyopt.models.head as head
from policyopt.errors import UserError
from policyopt.methods.critic.ppo import ppo
from policyopt.models.causal import Chunk, split_model
from policyopt.models.critic import ValueModel
from policyopt.models.likelihood import Wanted
from policyopt.models.load import Policy
from policyopt.models.places import pack
from policyopt.rows import Batch
from tests.tiny import FAMILIES, UNUSUAL, family_model, load_tiny, plain_columns, rows_of, token_batch, unusual_model


def small_vocabulary(batch: Batch, vocab: int) -> Batch:
    return batch.replace(tokens=batch.tokens % vocab, prompt=batch.prompt % vocab)


def heated(batch: Batch, temperature: float) -> Batch:
    """The batch as drawn at a temperature."""
    return batch.replace(temperature=torch.full((batch.mask.shape[0],), temperature, dtype=batch.mask.dtype))


def gradient(model: Any, columns: dict[str, Tensor]) -> list[Tensor]:
    """Of a sum with unlike weights, so that no two tokens can be exchanged."""
    total = sum((x * (1 + torch.arange(x.numel()).view(x.shape).to(x)).sin()).sum() for x in columns.values())
    found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_what_its_own_forward_gives(family: str) -> None:
    model = family_model(family, torch.float64)
    batch = small_vocabulary(token_batch(groups=(3, 2), width=12), 41)
    found = split_model(model).leaves(heated(batch, 0.7), Wanted(entropy=True))
    right = plain_columns(model, batch, temperature=0.7)
    for name in ("logp", "entropy"):  # some families compute norms and attention in float32, whatever the weights are
        torch.testing.assert_close(found[name], right[name], rtol=0, atol=1e-6)
    mine, true = gradient(model, found), gradient(model, right)
    scale = max(float(g.abs().max()) for g in true)
    assert max(float((a - b).abs().max()) for a, b in zip(mine, true, strict=True)) < 1e-6 * scale


@pytest.mark.parametrize("family", UNUSUAL)
def test_unusual_families_are_trained_as_their_own_forward_says(family: str) -> None:
    """Right padding, prompts that rows share, heads of their own: value and gradient of each row alone."""
    model = unusual_model(family)
    batch = small_vocabulary(token_batch(groups=(3, 2), width=12), 41)
    found, right = split_model(model).leaves(batch), plain_columns(model, batch)
    torch.testing.assert_close(found["logp"].double(), right["logp"].double(), rtol=0, atol=2e-4)
    mine, true = gradient(model, {"logp": found["logp"]}), gradient(model, {"logp": right["logp"]})
    scale = max(float(g.abs().max()) for g in true)
    assert max(float((a - b).abs().max()) for a, b in zip(mine, true, strict=True)) < 1e-3 * scale


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("tokens", [1, 5])
def test_chunks_change_neither_values_nor_gradients(tokens: int, entropy: bool, tiny_model: Path) -> None:
    model = load_tiny(tiny_model).model
    plain, batch = split_model(model), heated(token_batch(), 1.3)
    split = dataclasses.replace(plain, logits=lambda hidden: plain.logits(hidden))  # no longer known as a matrix
    whole = split.leaves(batch, Wanted(entropy=entropy))
    seen: list[int] = []

    def counted(chunk: Chunk, hidden: Tensor, *rest: Any) -> Any:
        seen.append(len(hidden))
        return original(chunk, hidden, *rest)

    original = Chunk.__call__
    with (
        mock.patch.object(head, "CHUNK_BYTES", tokens * 4 * split.vocab),
        mock.patch.object(Chunk, "__call__", counted),
    ):
        chunked = split.leaves(batch, Wanted(entropy=entropy))
        count = int(batch.mask.sum())
        assert seen == [tokens] * (count // tokens) + [count % tokens] * (count % tokens > 0)
        mine = gradient(model, chunked)
        assert len(seen) == 2 * -(-count // tokens), (
            "backward makes each chunk's logits again, rather than keeping them"
        )
    assert chunked.keys() == whole.keys() == ({"logp", "entropy"} if entropy else {"logp"})
    for name in whole:
        torch.testing.assert_close(chunked[name], whole[name], rtol=0, atol=1e-13)
    for a, b in zip(mine, gradient(model, whole), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    with torch.no_grad(), mock.patch.object(head, "CHUNK_BYTES", 4 * split.vocab):
        torch.testing.assert_close(split.leaves(batch)["logp"], whole["logp"], rtol=0, atol=1e-13)


def test_padding_may_hold_anything(tiny_model: Path) -> None:
    model = load_tiny(tiny_model).model
    split, batch = split_model(model), token_batch()
    clean = split.leaves(batch, Wanted(entropy=True))
    for name, x in clean.items():
        assert x[batch.mask == 0].abs().max() == 0, name
    g = torch.Generator().manual_seed(1)
    junk = torch.randint(0, 102, batch.tokens.shape, generator=g)
    wide = batch.replace(
        tokens=torch.nn.functional.pad(torch.where(batch.mask.bool(), batch.tokens, junk), (0, 3), value=-100),
        mask=torch.nn.functional.pad(batch.mask, (0, 3)),
        prompt=torch.nn.functional.pad(torch.where(batch.prompt_mask.bool(), batch.prompt, 10**9), (0, 2), value=-1),
        prompt_mask=torch.nn.functional.pad(batch.prompt_mask, (0, 2)),
    )
    dirty = split.leaves(wide, Wanted(entropy=True))
    for name in clean:
        torch.testing.assert_close(dirty[name][:, :-3], clean[name], rtol=0, atol=1e-12)
        assert dirty[name][:, -3:].abs().max() == 0
    for a, b in zip(gradient(model, {n: x[:, :-3] for n, x in dirty.items()}), gradient(model, clean), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


PACKING = sorted(set(FAMILIES) - {"bloom", "gemma2"})
"""Families whose attention goes through the interface of transformers and is no other than plain."""

WINDOW = {"gemma3_text": 6, "mistral": 6}
"""How long their rows may be at most."""


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_prompt_that_rows_share_is_passed_once_and_changes_nothing(family: str) -> None:
    model = family_model(family, torch.float64)
    split = split_model(model)
    longest = WINDOW.get(family, split.packs) if family in PACKING else 0
    assert split.packs == longest
    batch = small_vocabulary(token_batch(groups=(4, 1, 5), width=12), 41)
    apart = dataclasses.replace(split, packs=0).leaves(batch, Wanted(entropy=True))
    calls: list[int] = []

    def counted(module: Any, args: Any, keywords: Any) -> None:
        if "forward" not in vars(module):  # else its head is computed around hidden states that are given
            calls.append(keywords["input_ids"].numel())

    count = model.base_model.register_forward_pre_hook(counted, with_kwargs=True)
    together = split.leaves(batch, Wanted(entropy=True))
    count.remove()
    texts = [tuple(x[: p + t - 1].tolist()) for x, p, t in rows_of(batch)]
    if longest >= max(map(len, texts)):
        distinct = {text[:i] for text in texts for i in range(1, len(text) + 1)}
        assert len(distinct) <= sum(calls) <= 1.1 * len(distinct) < 0.9 * sum(map(len, texts))
    for name in apart:
        torch.testing.assert_close(together[name], apart[name], rtol=0, atol=1e-6)
    mine, true = gradient(model, together), gradient(model, apart)
    scale = max(float(g.abs().max()) for g in true)
    assert max(float((a - b).abs().max()) for a, b in zip(mine, true, strict=True)) < 1e-6 * scale


def test_rows_are_joined_without_a_gap() -> None:
    batch = token_batch()
    ids, row, position = pack(batch)
    expected = list(rows_of(batch))
    assert ids.shape[1] == max(len(x) for x, _, _ in expected)
    assert len(row) == len(position) == batch.mask.sum()
    for i, (x, p, t) in enumerate(expected):
        assert ids[i, : p + t].tolist() == x.tolist()
        assert position[row == i].tolist() == list(range(p - 1, p + t - 1))


def test_16_bit_models_give_float32_columns() -> None:
    model = family_model("qwen3", torch.bfloat16)
    batch = small_vocabulary(token_batch(), 41).replace(mask=token_batch().mask.float())
    found = split_model(model).leaves(batch, Wanted(entropy=True))
    assert {x.dtype for x in found.values()} == {torch.float32}
    torch.testing.assert_close(
        found["logp"].double(),
        plain_columns(model.double(), token_batch().replace(**{n: getattr(batch, n) for n in ("tokens", "prompt")}))[
            "logp"
        ],
        rtol=0.1,
        atol=0.3,
    )
    assert ValueModel(family_model("qwen3", torch.bfloat16).base_model)(batch).dtype == torch.float32


# Splitting


class Doubled(LlamaForCausalLM):
    """Does something to its logits that no configuration tells of."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out


class Reminded(LlamaForCausalLM):
    """Lets the ids speak in its logits, past its hidden states."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        out = super().forward(input_ids=input_ids, **kwargs)
        out.logits = out.logits + torch.nn.functional.one_hot(input_ids, out.logits.shape[-1])
        return out


def test_what_a_model_does_behind_its_head_is_left_to_it() -> None:
    model = Doubled(LlamaConfig(**FAMILIES["llama"])).double().eval()
    batch = small_vocabulary(token_batch(), 41)
    found, right = split_model(model).leaves(batch), plain_columns(model, batch)
    torch.testing.assert_close(found["logp"], right["logp"], rtol=0, atol=1e-6)
    mine, true = gradient(model, found), gradient(model, {"logp": right["logp"]})
    for a, b in zip(mine, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert "forward" not in vars(model.model), "the backbone is itself again"


def test_logits_that_are_no_function_of_the_hidden_states_are_refused() -> None:
    with pytest.raises(
        UserError, match="the logits of Reminded are no function of the hidden states of its LlamaModel"
    ):
        split_model(Reminded(LlamaConfig(**FAMILIES["llama"])).eval())


def test_a_model_without_a_head_is_refused() -> None:
    bert = BertModel(
        BertConfig(vocab_size=41, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    )
    with pytest.raises(UserError, match="BertModel has no output head apart from its backbone"):
        split_model(bert.eval())


@pytest.mark.parametrize(
    ("family", "plain"),
    [
        ("gemma2", {"final_logit_softcapping": None}),
        ("cohere", {"logit_scale": 1.0}),
        ("granite", {"logits_scaling": 1.0}),
    ],
)
def test_transforms_behind_the_head_are_seen(family: str, plain: dict[str, Any]) -> None:
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        transformed = split_model(family_model(family)).logits(hidden)
        bare = split_model(family_model(family, **plain)).logits(hidden)
    assert (transformed - bare).abs().max() > 0.1


# The critic


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "opt", "gemma2"])
def test_the_critic_reads_a_token_before_it_is_written(family: str) -> None:
    """A value is a function of the prompt and the tokens before its own, and of nothing in the padding."""
    torch.manual_seed(0)
    critic = ValueModel(family_model(family, torch.float64).base_model)
    torch.nn.init.normal_(critic.head.weight)
    batch = small_vocabulary(token_batch(), 41)
    with torch.no_grad():
        before = critic(batch)
        t = 2
        changed = batch.tokens.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 41
        after = critic(batch.replace(tokens=changed))
    assert torch.equal(before == 0, batch.mask == 0)
    torch.testing.assert_close(before[:, : t + 1], after[:, : t + 1], rtol=0, atol=1e-12)
    longer = batch.mask[:, t + 1] == 1
    assert longer.any()
    assert (before[longer, t + 1] - after[longer, t + 1]).abs().min() > 1e-6


def test_the_critic_leaves_adapters_out(tiny_model: Path) -> None:
    from policyopt.engine.local import LocalEngine
    from policyopt.models.load import LoRA

    policy: Policy = load_tiny(tiny_model, lora=LoRA(rank=2))
    engine = LocalEngine(policy, ppo())
    assert engine.critic is not None
    plain = dict(load_tiny(tiny_model).model.base_model.named_parameters())
    mine = dict(engine.critic.backbone.named_parameters())
    assert mine.keys() == plain.keys()
    assert all(torch.equal(mine[name], plain[name]) for name in plain)
    assert all(p.requires_grad for p in mine.values())
    assert any("lora_" in name for name, _ in policy.trainable()), "the policy has kept its own"


def test_families_are_what_the_tests_think_they_are() -> None:
    """The sizes reach each family under its own names."""
    for name, sizes in FAMILIES.items():
        config = AutoConfig.for_model(name, **sizes)
        assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (32, 2, 41)
        assert AutoModelForCausalLM.from_config(config).config.model_type == name
