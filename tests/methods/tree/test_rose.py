"""The page of rose."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from policyopt.capability import asks_of
from policyopt.engine.local import LocalSampler
from policyopt.methods.tree.rose import SemanticBranching, ShorterAdvantage, semantic_divergence
from policyopt.part import part
from policyopt.parts import EdgeAdvantage
from policyopt.sources.draw import Embedder, InputEmbeddings, Tree
from policyopt.sources.program import Sampler
from tests.batches import random_batch
from tests.methods.shared_trees import PROMPT, draw, prompt


@part
class Opposites(Embedder):
    """Even tokens point one way, odd ones the other."""

    def __call__(self, ids: Tensor, sampler: Sampler) -> Tensor:
        return torch.where(ids % 2 == 0, 1.0, -1.0)[..., None]


def test_semantic_branching_takes_the_place_of_the_largest_semantic_entropy(sampler: LocalSampler) -> None:
    [apart] = draw(Tree(size=5, branching=SemanticBranching(explore=1.0)), sampler)
    assert all(len(r.nodes) == 1 for r in apart), "independent responses"
    rule = SemanticBranching(explore=0.0, candidates=4, embedder=Opposites())
    [first, second, *_] = draw(Tree(size=2, branching=rule), sampler, prompt(3))[0]
    [alone] = sampler.run([sampler.generate(PROMPT, max_tokens=24, key=(0, 1, 3, 0), top=4)])[0]
    assert alone.tokens == first.tokens
    p = torch.tensor([x for _, x in alone.top], dtype=torch.float64).exp()
    even = torch.tensor([[1.0 if i % 2 == 0 else -1.0 for i in ids] for ids, _ in alone.top], dtype=torch.float64)
    want = -torch.tensor(alone.entropy) * ((p * even).sum(-1) ** 2 - (p * p).sum(-1))
    at = int(want.argmax())
    assert (second.ends[0] if len(second.ends) > 1 else 0) == at
    assert second.tokens[:at] == first.tokens[:at]
    sure = SemanticBranching(min_entropy=99.0)
    assert sure.mark(alone, sampler) == [-math.inf] * len(alone.tokens)
    assert SemanticBranching(embedder=InputEmbeddings()).mark(alone, sampler) != rule.mark(alone, sampler)
    assert asks_of(Tree(branching=SemanticBranching())) - asks_of(Tree(branching=rule)) == {"token embeddings"}


def test_semantic_divergence_is_its_double_sum() -> None:
    p, e = torch.rand(3, 4, dtype=torch.float64), torch.randn(3, 4, 5, dtype=torch.float64)
    cos = torch.cosine_similarity(e[:, :, None], e[:, None], dim=-1)
    want = -sum(p[:, i] * p[:, j] * cos[:, i, j] for i in range(4) for j in range(4) if i != j)
    torch.testing.assert_close(semantic_divergence(p, e), want)


def test_length_calibration_of_rose() -> None:
    batch = random_batch()
    plain, lowered = EdgeAdvantage()(batch), ShorterAdvantage(alpha=2.0)(batch)
    torch.testing.assert_close(ShorterAdvantage(alpha=0.0)(batch), plain)
    assert (lowered <= plain + 1e-12).all() and (lowered < plain - 1e-6).any()
    right, length = batch.reward > 0.5, batch.length()
    shortest = [min(length[right & (batch.group == g)].tolist(), default=0) for g in batch.group]
    still = ~right | (length == torch.tensor(shortest))
    torch.testing.assert_close(lowered[still], plain[still])
