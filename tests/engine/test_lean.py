"""Decoding by the weights alone gives what the model gives, whoever shares a prompt and whatever becomes of the weights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.local import lean as decoding
from policyopt.engine.local.flight import Flight
from policyopt.engine.local.lean import Lean
from policyopt.engine.local.tokens import HELD, sampled
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA, with_adapters
from policyopt.models.causal import split_model
from policyopt.models.lean import Decoder
from policyopt.sources.program import Response
from tests.tiny import family_model, load_tiny, token_batch

BUILDS: dict[str, dict[str, Any]] = {
    "qwen3": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "llama": {"attention_bias": True, "mlp_bias": True, "num_attention_heads": 4, "num_key_value_heads": 1},
    "mistral": {"sliding_window": None},
}
"""Fewer heads of keys than of queries, norms over heads, biases."""


def built(family: str, dtype: torch.dtype) -> Any:
    model = family_model(family, dtype, **BUILDS[family])
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:  # biases are made as 0, norms as 1: none would be missed
                p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))).to(dtype))
    return model


def texts(*lengths: int, vocab: int = 41) -> list[tuple[int, ...]]:
    g = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(6, vocab, (n,), generator=g).tolist()) for n in lengths]


def gap(model: Any, prompt: tuple[int, ...], response: Response) -> float:
    """The largest difference from the log-probabilities of the model on the whole text."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response.tokens]]), use_cache=False).logits[0]
    logp = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
    own = logp.gather(-1, torch.tensor(response.tokens)[:, None])[:, 0]
    return float((own - torch.tensor(response.logp, dtype=torch.float64)).abs().max())


def drawn(sampler: LocalSampler, asked: list[tuple[int, ...]], n: int = 4, budget: int = 9) -> list[list[Response]]:
    """Some responses to each prompt, which end at different times."""

    async def one(i: int, prompt: tuple[int, ...]) -> list[Response]:
        some = [sampler.generate(prompt, max_tokens=1 + (5 * j + i) % budget, key=(i, j)) for j in range(n)]
        return [r for [r] in await asyncio.gather(*some)]

    return sampler.run([one(i, prompt) for i, prompt in enumerate(asked)])


@pytest.mark.parametrize("worth", [0, 1 << 30], ids=["shared", "copied"])
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-4), (torch.float64, 1e-10), (torch.bfloat16, 0.5)], ids=str
)
@pytest.mark.parametrize("family", BUILDS)
def test_rows_give_what_the_model_gives(
    family: str, dtype: torch.dtype, bound: float, worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups on prompts of unlike length, whose rows end at different times and are followed by others."""
    monkeypatch.setattr(decoding, "WORTH", worth)
    model = built(family, dtype)
    sampler = LocalSampler(split_model(model), eos=(), max_rows=7)
    assert type(sampler.stepper) is Lean
    asked = texts(3, 17, 1, 9)
    groups = drawn(sampler, asked)
    assert {len(r.tokens) for group in groups for r in group} > {1, 3, 6}
    assert max(gap(model, p, r) for p, group in zip(asked, groups, strict=True) for r in group) < bound


def test_a_group_draws_the_same_whether_its_prompt_is_shared_or_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside rows that do the other, and where a prompt goes on from one that is held."""
    model = built("qwen3", torch.float64)
    asked = texts(6, 13)
    plain = drawn(LocalSampler(split_model(model), eos=()), asked)
    sampler = LocalSampler(split_model(model), eos=(), max_rows=5)
    seen: list[bool] = []
    shared = Lean._shared

    def watched(stepper: Lean, *args: Any) -> Any:
        seen.append(args[2].absent is not None)
        return shared(stepper, *args)

    monkeypatch.setattr(decoding, "WORTH", 10)  # a last row that comes alone is not worth it
    with mock.patch.object(Lean, "_shared", watched):
        mixed = drawn(sampler, asked)
    assert set(seen) == {True, False}
    assert [[r.tokens for r in group] for group in mixed] == [[r.tokens for r in group] for group in plain]

    sampler = LocalSampler(sampler.split, eos=())

    async def grown() -> list[Response]:
        first = await sampler.generate(asked[1], n=3, max_tokens=4, key=(0,), keep=True)
        before = sampler.computed
        stems = [(*asked[1], *r.tokens) for r in first]
        leaves = await asyncio.gather(*(sampler.generate(s, n=6, max_tokens=3, key=(1, *s)) for s in stems))
        assert sampler.computed - before == 3 + 3 * 6 * 2, "all but the last token of each stem was held"
        return [Response([*a.tokens, *b.tokens], [*a.logp, *b.logp], []) for a, bs in zip(first, leaves) for b in bs]

    [whole] = sampler.run([grown()])
    assert max(gap(model, asked[1], r) for r in whole) < 1e-10


def test_no_weight_is_stale(tiny_model: Path) -> None:
    """Parameters that are changed in place, and those that get other numbers, are read as they are."""
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    assert type(sampler.stepper) is Lean
    [prompt] = texts(8)
    for _ in range(2):
        before = drawn(sampler, [prompt])[0]
        with torch.no_grad():
            for p in policy.model.parameters():
                p.add_(0.05 * torch.randn_like(p))
        sampler.version += 1
        assert gap(policy.model, prompt, before[0]) > 1e-3
        assert max(gap(policy.model, prompt, r) for r in drawn(sampler, [prompt])[0]) < 1e-10
    for p in policy.model.parameters():
        p.data = p.data * 1.1
    assert max(gap(policy.model, prompt, r) for r in drawn(sampler, [prompt])[0]) < 1e-10


def test_adapters_are_merged_once_for_each_version(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model, lora=LoRA(rank=4))
    engine = LocalEngine(policy, grpo(kl_coef=0.0), lr=3e-2)
    sampler: Any = engine.sampler
    assert type(sampler.stepper) is Lean
    module = policy.model.get_base_model().model.layers[0].self_attn.q_proj
    batch = token_batch().replace(advantage=token_batch().mask)
    [prompt] = texts(8)
    for _ in range(3):
        engine.update(grpo(kl_coef=0.0), batch.replace(old_logp=torch.zeros_like(batch.mask)))
        with mock.patch.object(type(module), "forward", side_effect=AssertionError("no module is called for a token")):
            with mock.patch.object(module, "get_delta_weight", wraps=module.get_delta_weight) as merged:
                [group] = drawn(sampler, [prompt])
        assert merged.call_count == 1
        assert max(gap(policy.model, prompt, r) for r in group) < 1e-10
    assert float(module.lora_B["default"].weight.detach().abs().max()) > 1e-3, "the adapters have moved"
    with policy.model.disable_adapter():
        [group] = drawn(sampler, [prompt])
        assert max(gap(policy.model, prompt, r) for r in group) < 1e-10
    assert gap(policy.model, prompt, group[3]) > 1e-3


def changed_in_flight(model: Any, sampler: Any, tokens: int, turns: int) -> int:
    """Give a model other adapters while it draws so many tokens. Returns how many were drawn before, after it was seen that each
    token is drawn from the weights of its time."""
    [prompt] = texts(5)

    async def change() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.add_(0.3)
        sampler.version += 1
        sampler.reread()

    async def asker() -> Response:
        return (await sampler.generate(prompt, max_tokens=tokens, key=(0,)))[0]

    response, _ = sampler.run([asker(), change()])
    at: int = response.versions.index(1)
    assert 0 < at < tokens and response.versions == [0] * at + [1] * (tokens - at)
    after = Response(response.tokens[at:], response.logp[at:], [])
    assert gap(model, (*prompt, *response.tokens[:at]), after) < 1e-10
    assert gap(model, prompt, Response(response.tokens[:at], response.logp[:at], [])) > 1e-3
    return at


def test_what_is_in_flight_goes_on_with_new_adapters() -> None:
    model = with_adapters(built("qwen3", torch.float64), LoRA(rank=2), "model")
    changed_in_flight(model, LocalSampler(split_model(model), eos=()), tokens=20, turns=8)


def test_a_model_of_another_build_or_that_is_watched_is_left_to_its_modules() -> None:
    def way(model: Any) -> Any:
        sampler = LocalSampler(split_model(model), eos=(2,))
        assert not sampler.slow
        return type(sampler.stepper)

    assert way(family_model("llama")) is Lean
    assert way(family_model("gpt2")) is Flight
    assert way(family_model("mistral", sliding_window=6)) is Flight
    assert way(family_model("granite", residual_multiplier=0.5)) is Flight
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    assert way(family_model("llama", rope_parameters=dynamic)) is Flight
    model = family_model("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: out + 1)
    assert way(model) is Flight
    decoder = family_model("qwen3")
    decoder.model.layers[0].mlp.up_proj = torch.nn.Sequential(decoder.model.layers[0].mlp.up_proj)
    with pytest.raises(UserError, match="Sequential is no plain matrix"):
        Decoder(decoder.model)
    adapted = with_adapters(family_model("qwen3"), LoRA(rank=2), "model")
    adapted.get_base_model().model.layers[0].mlp.up_proj.lora_bias["default"] = True
    assert way(adapted) is Flight


# Drawing


@pytest.mark.parametrize("width", [5, 4096, 5000, 9728])
def test_a_large_vocabulary_is_drawn_from_as_a_small_one(width: int) -> None:
    """Two levels give the token of one sum over all, for numbers up to the ends, and none of probability 0."""
    g = torch.Generator().manual_seed(0)
    p = (4 * torch.randn(40, width, generator=g)).softmax(-1)
    p[:, ::3] = 0
    p[:, -1] = 0
    p[::2, width // 2 :] = 0  # whole blocks of nothing
    u = torch.rand(40, generator=g, dtype=torch.float64)
    u[:4] = torch.tensor([0.0, 0.0, 1 - 2**-53, 1 - 2**-53], dtype=torch.float64)
    token = sampled(p, u)
    assert bool((p.gather(-1, token[:, None]) > 0).all())
    whole = p.double().cumsum(-1)
    below = whole.gather(-1, token[:, None])[:, 0] - p.double().gather(-1, token[:, None])[:, 0]
    above = whole.gather(-1, token[:, None])[:, 0]
    target = u * whole[:, -1]
    assert bool(((below - 1e-6 <= target) & (target <= above + 1e-6)).all())
    assert len(set(token.tolist())) > 1


def test_plain_rows_and_others_are_noted_alike(tiny_model: Path) -> None:
    """What is drawn together is what each row draws alone, whoever stands beside it: rows of more tokens than are held, end
    tokens, greedy rows and other temperatures."""
    sampler = LocalSampler(load_tiny(tiny_model).likelihood(), eos=(2, 90))
    a, b = texts(5, 9, vocab=90)

    async def all_of(*more: Any) -> list[Response]:
        asked = [
            sampler.generate(a, n=6, max_tokens=70, key=(0,)),
            sampler.generate(b, n=2, max_tokens=150, temperature=0.6, key=(1,)),
            sampler.generate(b, max_tokens=9, temperature=0.0, key=(2,)),
        ]
        return [r for group in await asyncio.gather(*asked, *more) for r in group][:9]

    [plain] = sampler.run([all_of()])
    [mixed] = sampler.run([all_of(sampler.generate(a, n=2, max_tokens=30, key=(3,), top=2, stop=((7, 8),)))])
    assert max(len(r.tokens) for r in plain) > HELD
    for x, y in zip(plain, mixed, strict=True):
        assert (x.tokens, x.stop_reason, x.versions) == (y.tokens, y.stop_reason, y.versions)
        assert len(x.tokens) == len(x.logp) == len(x.entropy) == len(x.versions)
        np.testing.assert_allclose(x.logp, y.logp, atol=1e-10)
        np.testing.assert_allclose(x.entropy, y.entropy, atol=1e-10)
        assert (x.stop_reason == "eos") == (x.tokens[-1] in (2, 90))
