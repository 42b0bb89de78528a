"""The page of arpo-agentic."""

from __future__ import annotations

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.methods.tree.arpo_agentic import EntropyJump, SharedAdvantage
from policyopt.parts import Normalise
from policyopt.sources.draw import Tree
from tests.batches import random_batch
from tests.methods.shared_trees import draw


def test_forks_follow_the_entropy(endless: LocalSampler) -> None:
    rule = EntropyJump(alpha=0.3, beta=0.0)
    assert [rule.probability(x) for x in (-9.0, 0.0, 9.0)] == [0.3] * 3, "without beta it is alpha at every step"
    assert EntropyJump(alpha=0.5, beta=1.0).forks([0.6, -0.6, 0.1], [[0.99], [0.01], [0.61]], 5) == [1, 0, 0]
    assert EntropyJump(alpha=1.0, beta=0.0).forks([0.0] * 3, [[0.5] * 2] * 3, 3) == [2, 1, 0], (
        "in order, while slots last"
    )
    never = Tree(size=6, branching=EntropyJump(initial=2, alpha=0.0, beta=0.0, segment=4))
    [responses] = draw(never, endless)
    assert len(responses) == 6
    assert len({r.nodes[0] for r in responses}) == 6, "what did not fork is drawn from the prompt"


def test_hard_and_soft_credit_have_the_same_gradient_on_shared_tokens() -> None:
    batch = random_batch(groups=(4,), lengths=(6,) * 4)
    node = torch.tensor([[1, 2], [1, 3], [1, 4], [5, 0]])
    end = torch.tensor([[3, 6], [3, 6], [3, 6], [6, 0]])
    batch = batch.replace(node=node, node_end=end, logp=batch.old_logp)
    hard, soft = SharedAdvantage()(batch), Normalise()(batch)
    torch.testing.assert_close(hard[:3, :3].sum(0), soft[:3, :3].sum(0))
    assert len(set(hard[:3, 0].tolist())) == 1
    torch.testing.assert_close(hard[:, 3:], soft[:, 3:])
    with pytest.raises(ValueError, match="gamma"):
        SharedAdvantage(own=Normalise(gamma=0.9))
