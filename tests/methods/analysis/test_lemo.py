"""The page of LeMo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.errors import UserError
from policyopt.methods.analysis.lemo import (
    DroppedTokens,
    _turned_back,
    block_scores,
    dropping,
    informativeness,
    kept_blocks,
    lemo,
    positions_in,
)
from policyopt.models.causal import SplitModel
from tests.tiny import family_model, load_tiny, token_batch, unusual_model

IDS = torch.tensor([[5, 9, 3, 30, 22, 7, 11, 18, 29]])


def hidden(model: Any, ids: Tensor = IDS) -> Tensor:
    out: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return out


# Which tokens -----------------------------------------------------------------------------------------------------------


def test_a_negative_score_changes_nothing_and_a_positive_one_counts() -> None:
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 6, 4, generator=g).abs(), torch.randn(2, 6, 4, generator=g).abs()
    before = block_scores(query, key, 2)
    key[:, 4:] = -key[:, 4:]  # every product with the last block turns negative
    after = block_scores(query, key, 2)
    torch.testing.assert_close(after[:2, :2], before[:2, :2], rtol=0, atol=0)
    assert after[2, 2] == 0 and torch.equal(after[2, :2], before[2, :2])
    key[:, 0] *= 2
    assert (informativeness(block_scores(query, key, 2)) >= informativeness(after)).all()
    assert torch.equal(after, after.T)


def test_blocks_and_their_positions() -> None:
    informative = torch.tensor([0.5, 3.0, 1.0, 2.0])
    assert [kept_blocks(informative, r).tolist() for r in (1.0, 0.75, 0.5, 0.49, 0.01)] == [
        [0, 1, 2, 3], [1, 2, 3], [1, 3], [1], [1],
    ]  # fmt: skip
    assert positions_in(torch.tensor([1, 3]), 2, 7).tolist() == [2, 3, 6], "the last block is short"


# A model without them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "gpt_neox"])
def test_with_all_blocks_model_and_gradient_are_what_they_were(family: str) -> None:
    model = family_model(family, torch.float64, scale=4.0)
    found = []
    for remain in (None, 1.0):
        model.zero_grad()
        if remain is None:
            out = hidden(model)
        else:
            with dropping(model.base_model, remain, block=2):
                out = hidden(model)
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # the output projection of gpt2 has a bias
def test_what_is_left_out_passes_the_residual_alone(family: str) -> None:
    model = family_model(family, torch.float64, num_hidden_layers=3)
    layers = model.model.layers if family == "llama" else model.transformer.h
    attention = layers[1].self_attn if family == "llama" else layers[1].attn
    seen: list[Tensor] = []
    with dropping(model.base_model, 0.5, block=3, first=1 / 3):
        attention.register_forward_hook(lambda m, args, out: seen.append(out[0][0].detach()))
        out = hidden(model)
    silent = (seen[0] == 0).all(-1)
    assert silent.sum() == 6 and not (seen[0][~silent] == 0).all(-1).any(), "one block of three is kept"
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, hidden(model)), "and afterwards the model is whole again"


def test_no_gradient_reaches_keys_through_what_is_left_out() -> None:
    model = family_model("llama", torch.float64, num_hidden_layers=2)
    states: list[Tensor] = []

    def keep(module: Any, args: Any, out: Tensor) -> None:
        out.retain_grad()
        states.append(out)

    with dropping(model.base_model, 0.4, block=3):
        attention = model.model.layers[0].self_attn
        hooks = [getattr(attention, name).register_forward_hook(keep) for name in ("q_proj", "k_proj", "v_proj")]
        kept: list[Tensor] = []
        attention.register_forward_hook(lambda m, args, out: kept.append((out[0][0] != 0).any(-1)))
        hidden(model).square().sum().backward()
    del hooks
    for x in states:
        assert x.grad is not None
        assert not x.grad[0, ~kept[0]].any() and x.grad[0, kept[0]].any()


def test_scores_are_those_before_the_rotation() -> None:
    model = family_model("llama", torch.float64)
    attention, found = model.model.layers[0].self_attn, {}

    def rotated(module: Any, args: Any, keywords: Any) -> None:
        found["rotation"] = keywords["position_embeddings"]

    attention.register_forward_pre_hook(rotated, with_kwargs=True)
    attention.q_proj.register_forward_hook(lambda m, args, out: found.__setitem__("plain", out[0]))
    hidden(model)
    cos, sin = found["rotation"]
    plain = found["plain"].unflatten(-1, (-1, cos.shape[-1])).transpose(0, 1)
    one, other = plain.chunk(2, -1)
    turned = plain * cos[0] + torch.cat([-other, one], -1) * sin[0]
    torch.testing.assert_close(_turned_back(turned, cos, sin), plain, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(turned, plain)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_attention_of_another_kind_is_refused(family: str) -> None:
    model = family_model(family)
    with pytest.raises(UserError, match=r"--with lemo: .* is not plain"), dropping(model.base_model, 1.0, 2):
        hidden(model)


def test_a_model_that_does_not_attend_is_refused() -> None:
    with pytest.raises(UserError, match="--with lemo: the attention of MambaModel cannot be reached"):
        with dropping(unusual_model("mamba").base_model, 1.0, 2):
            pass


# What comes of it --------------------------------------------------------------------------------------------------------


def test_the_study_finds_no_bias_with_all_tokens_and_some_without(tiny_model: Path) -> None:
    policy, batch = load_tiny(tiny_model), token_batch()
    (probe,) = lemo(block=2, first=0.0)
    assert probe == DroppedTokens(block=2, first=0.0)
    found = probe.model(policy, batch)
    whole = {name.split("/")[1][:-2]: x for name, x in found.items() if name.endswith("@1")}
    assert whole == pytest.approx({"logp": 0, "low": 1, "high": 1, "cosine": 1, "norm": 1}, abs=1e-9)
    assert 0 < found["lemo/logp@0.75"] < found["lemo/logp@0.25"]
    assert found["lemo/cosine@0.5"] < 0.999 and found["lemo/low@0.5"] < 1 < found["lemo/high@0.5"]
    assert all(p.grad is None for _, p in policy.trainable()), "a probe leaves nothing behind"
    split = policy.likelihood()
    again = SplitModel(split.hidden, split.logits, split.vocab).leaves(batch)["logp"]
    torch.testing.assert_close(again, split.leaves(batch)["logp"], rtol=0, atol=1e-5)


def test_responses_of_one_reward_have_no_gradient_to_compare(tiny_model: Path) -> None:
    batch = token_batch()
    assert DroppedTokens().model(load_tiny(tiny_model), batch.replace(reward=torch.ones_like(batch.reward))) == {}
