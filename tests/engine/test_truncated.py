"""Truncated draws: the trainer's distribution is the one that the sampler drew from, whatever happens in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.models import head
from policyopt.models.likelihood import Wanted
from policyopt.models.load import LoRA, Policy
from policyopt.objective import credit, shaped
from policyopt.parts import EntropyBonus
from policyopt.parts.statistic.jsd import JSD
from policyopt.rows import Batch, join
from policyopt.sources.program import Response
from policyopt.sources.truncation import Truncation
from policyopt.training.rows import to_batch
from tests.tiny import load_tiny

PROMPTS = ((7, 8, 9), (20, 21, 22, 23))
TRUNCATIONS = (Truncation(top_p=0.7), Truncation(top_k=5), Truncation(min_p=0.1), Truncation(0.9, 20, 0.02))


def draw(policy: Policy, truncation: Truncation | None, **how: Any) -> list[list[Response]]:
    sampler = LocalSampler.of(policy)
    asked = {"n": 4, "max_tokens": 8, "temperature": 0.8, "truncation": truncation} | how
    return sampler.run([sampler.generate(p, key=(1, i), **asked) for i, p in enumerate(PROMPTS)])


def batch_of(groups: Sequence[Sequence[Response]], dtype: torch.dtype = torch.float64) -> Batch:
    rows = [(i, r) for i, group in enumerate(groups) for r in group]
    said = [Verdict(float(j % 3), j % 3 > 0, True, "") for j in range(len(rows))]
    return to_batch([PROMPTS[i] for i, _ in rows], [r for _, r in rows], said, [i for i, _ in rows], 8, dtype)


def plain(model: Any, batch: Batch, groups: Sequence[Sequence[Response]]) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy [N, T] over what each token was drawn from, token by token through the whole model."""
    rows = [(i, r) for i, group in enumerate(groups) for r in group]
    logp, entropy = torch.zeros_like(batch.mask), torch.zeros_like(batch.mask)
    for n, (i, r) in enumerate(rows):
        logits = model(input_ids=torch.tensor([[*PROMPTS[i], *r.tokens]]), use_cache=False).logits[0]
        for t, token in enumerate(r.tokens):
            ids = list(r.supports[t]) or list(range(logits.shape[-1]))
            p = torch.distributions.Categorical(logits=logits[len(PROMPTS[i]) - 1 + t, ids] / 0.8)
            logp[n, t] = p.log_prob(torch.tensor(ids.index(token)))
            entropy[n, t] = p.entropy()
    return logp, entropy


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
def test_on_policy_the_ratio_is_one_because_the_truncation_is_replayed(
    tiny_model: Path, truncation: Truncation
) -> None:
    policy = load_tiny(tiny_model, "float32")
    batch = batch_of(draw(policy, truncation), torch.float32)
    whole = batch.replace(support=None, support_ids=None)
    with torch.no_grad():
        replayed, not_replayed = (policy.likelihood().leaves(b)["logp"] for b in (batch, whole))
    assert ((replayed - batch.old_logp).exp() - 1).abs().max() < 1e-5
    ratio = ((not_replayed - batch.old_logp).exp() * batch.mask).sum() / batch.mask.sum()
    assert ratio < 0.9, "the mass of what is left out is missing"


@pytest.mark.parametrize("truncation", TRUNCATIONS[:3], ids=str)
def test_what_is_recorded_is_what_the_truncation_leaves(tiny_model: Path, truncation: Truncation) -> None:
    policy = load_tiny(tiny_model)
    for i, group in enumerate(draw(policy, truncation)):
        for r in group:
            ids = torch.tensor([[*PROMPTS[i], *r.tokens]])
            logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(PROMPTS[i]) - 1 : -1]
            for p, support, token in zip((logits / 0.8).softmax(-1), r.supports, r.tokens, strict=True):
                ordered = p.sort(descending=True)
                count = int(((ordered.values.cumsum(0) - ordered.values) < truncation.top_p).sum())
                count = min(count, truncation.top_k or count, int((p >= truncation.min_p * p.max()).sum()))
                assert list(support) == sorted(ordered.indices[:count].tolist())
                assert token in support


def test_when_the_policy_has_moved_every_leaf_is_over_the_recorded_set(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    groups = draw(policy, Truncation(top_k=5))
    batch = batch_of(groups)
    recipe = grpo(kl_coef=0.1, group_size=4).replace(regularizers=(EntropyBonus(0.01),))
    engine = LocalEngine(policy, recipe)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype))
    of = JSD(beta=1.0, target="reference")
    roles: Any = {"reference": policy.reference()}
    found = engine.likelihood.leaves(batch, Wanted(entropy=True, statistics=(of,)), roles)
    logp, entropy = plain(policy.model, batch, groups)
    assert torch.allclose(found["logp"], logp, atol=1e-6)
    assert torch.allclose(found["entropy"], entropy, atol=1e-6)
    assert found[of.key].abs().max() < 1e-9, "the reference is the policy, over the same tokens"
    assert (found["logp"] - batch.old_logp).abs().max() > 0.01
    tokens = int(batch.mask.sum())
    assert tokens > 5
    with mock.patch.object(head, "CHUNK_BYTES", 3 * 4 * 2 * engine.likelihood.vocab):  # type: ignore[attr-defined]
        pieces = engine.likelihood.leaves(batch, Wanted(entropy=True, statistics=(of,)), roles)
    for name, x in found.items():
        assert torch.allclose(pieces[name], x, atol=1e-12), name


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["whole", "lora"])
def test_the_gradient_belongs_to_the_batch_and_is_that_of_autograd(tiny_model: Path, lora: LoRA | None) -> None:
    policy = load_tiny(tiny_model, lora=lora)
    groups = draw(policy, Truncation(top_p=0.8))
    recipe = grpo(kl_coef=0.1, group_size=4)
    gradients = []
    for micro_batch in (None, 1, 3):
        engine = LocalEngine(policy, recipe, micro_batch=micro_batch)
        engine.likelihood = dataclasses.replace(engine.likelihood, packs=0)  # type: ignore[type-var]
        batch = engine.annotate(batch_of(groups), recipe)
        batch = credit(recipe, engine.prepare(shaped(recipe, batch), recipe))
        engine.gradient(recipe, batch)
        gradients.append({n: p.grad.clone() for n, p in policy.trainable() if p.grad is not None})
    for other in gradients[1:]:
        assert all(torch.allclose(other[n], g, rtol=1e-6, atol=1e-10) for n, g in gradients[0].items())
    assert batch.ref_logp is not None
    assert torch.allclose(batch.ref_logp, batch.old_logp, atol=1e-5), "the reference is asked over the same tokens"

    for _, p in policy.trainable():
        p.grad = None
    logp, _ = plain(policy.model, batch, groups)
    whole = batch.replace(logp=logp, share=recipe.aggregate(batch))
    # on policy every ratio is 1 and the KL has no slope: what is left is the policy gradient
    (-(whole.share * whole.advantage * logp).sum()).backward()
    named = dict(policy.trainable())
    assert gradients[0].keys() == {n for n, p in named.items() if p.grad is not None}
    assert all(torch.allclose(named[n].grad, g, rtol=1e-3, atol=1e-6) for n, g in gradients[0].items())


def test_truncated_rows_stand_beside_whole_ones(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    some = draw(policy, Truncation(top_k=5))
    mixed = batch_of([[some[0][0]], draw(policy, None)[1]])
    joined = join([batch_of(draw(policy, None)), batch_of(some)])
    assert torch.equal(mixed.support[1:], torch.zeros_like(mixed.support[1:]))
    for batch in (mixed, joined):
        with torch.no_grad():
            logp = policy.likelihood().leaves(batch)["logp"]
        assert torch.allclose(logp, batch.old_logp, atol=1e-5)
        rows = torch.tensor([len(batch.mask) - 1, 0])
        assert torch.allclose(policy.likelihood().leaves(batch[rows])["logp"], logp[rows], atol=1e-5)


def test_greedy_draws_are_whole_and_forced_tokens_may_always_be_drawn(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    assert all(not r.support for group in draw(policy, Truncation(top_k=5), temperature=0.0) for r in group)
    groups = draw(policy, Truncation(top_k=2), forced=(50, 51), top=4)
    for group in groups:
        for r in group:
            assert r.tokens[:2] == [50, 51]
            assert 50 in r.supports[0] and len(r.supports[0]) <= 3
            assert all(len(ids) == len(s) for (ids, _), s in zip(r.top, r.supports, strict=True)), "none is impossible"
    batch = batch_of(groups)
    with torch.no_grad():
        assert torch.allclose(policy.likelihood().leaves(batch)["logp"], batch.old_logp, atol=1e-5)


def test_what_leaves_nothing_out_records_nothing(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    groups = [draw(policy, t) for t in (None, Truncation(), Truncation(top_k=1000))]
    assert len({str([[r.tokens for r in g] for g in found]) for found in groups}) == 1
    assert all(batch_of(found).support is None for found in groups)
