"""Methods that draw trees, or credit responses by what they share: limits, and what a wrong one would not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.engine.local import LocalSampler
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.xrpo import xrpo
from policyopt.methods.tree.arpo_agentic import EntropyJump, arpo_agentic
from policyopt.methods.tree.rose import SemanticBranching, rose
from policyopt.methods.tree.spo_segment import spo_segment
from policyopt.methods.tree.tempo import tempo
from policyopt.methods.tree.treepo import Segments, SubtreeAdvantage, treepo
from policyopt.parts import EdgeAdvantage, Normalise, TokenMean
from policyopt.parts.advantage.tree import node_values
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch, join, make_batch
from policyopt.sources.draw import Levels, Tree
from policyopt.sources.program import Response
from policyopt.training.batches import with_replay
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_trees import PROMPT, assert_tree, batch_of, draw, prompt


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Two recipes have the same loss and gradient on a batch."""
    (loss, got), (other, wanted) = gradients(a, ready(a, batch)), gradients(b, ready(b, batch))
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got["logp"], wanted["logp"], rtol=1e-12, atol=1e-14)


def without_tree(batch: Batch) -> Batch:
    return batch.replace(node=None, node_end=None, node_value=None)


RULES: dict[str, Tree] = {
    "levels": Tree(size=12, branching=Levels(widths=(3, 2, 2), segment=4)),
    "segments": Tree(size=16, branching=Segments(depth=4)),
    "least likely": Tree(size=16, branching=Segments(depth=2, first_low=2, first_high=2, restart="least-likely")),
    "block": Tree(size=16, branching=Segments(depth=3, first_low=2, first_high=2, restart="block", block=3)),
    "entropy": Tree(size=10, branching=EntropyJump(initial=3, alpha=0.6, segment=4, probe=3)),
    "semantic": Tree(size=8, branching=SemanticBranching(explore=0.3, candidates=5)),
}


@pytest.mark.parametrize("name", RULES)
def test_a_tree_is_one(name: str, sampler: LocalSampler, endless: LocalSampler) -> None:
    rollout = RULES[name]
    for by in (sampler, endless):
        [responses] = draw(rollout, by)
        assert_tree(responses)
        assert all(1 <= len(r.tokens) <= 24 for r in responses)
        if by is endless or name != "levels":
            assert len(responses) == rollout.size
        assert any(len(r.nodes) > 1 for r in responses), "something branched"
        again = draw(rollout, by)[0]
        assert [r.tokens for r in again] == [r.tokens for r in responses], "randomness comes from the prompt's key"
        for r in responses:
            said = by.run([by.logprobs(PROMPT, tuple(r.tokens), temperature=1.0)])[0]
            assert said.logp == pytest.approx(r.logp, abs=1e-6), "log-probabilities are those of the whole path"
            assert said.finished or by is endless or not r.finished


def test_sixteen_leaves_cost_less_than_half_of_sixteen_responses(endless: LocalSampler) -> None:
    rollout = Tree(size=16, branching=Levels(widths=(1, 4, 4), segment=16))
    before = endless.computed
    [responses] = draw(rollout, endless, prompt(budget=48))
    tree, before = endless.computed - before, endless.computed
    assert [len(r.tokens) for r in responses] == [48] * 16
    assert len({tuple(r.tokens) for r in responses}) == 16 and len({tuple(r.tokens[:16]) for r in responses}) == 1
    independent = [prompt(i, 48, (*PROMPT[:-1], 30 + i))[0] for i in range(16)]
    endless.run([endless.generate(p.tokens, max_tokens=48, key=p.key) for p in independent])
    apart = endless.computed - before
    assert tree <= 0.5 * apart
    assert tree <= len(PROMPT) + 16 + 4 * 16 + 16 * 16 + 4 + 4, "every node once, and the token before each fork again"


def test_levels_end_where_rows_end_and_are_as_many_as_was_said(endless: LocalSampler) -> None:
    [responses] = draw(Tree(size=12, branching=Levels(widths=(3, 2, 2), segment=4)), endless)
    assert [r.ends for r in responses] == [[4, 8, 24]] * 12
    with pytest.raises(ValueError, match="size is 5, but the branching makes 12"):
        Tree(size=5, branching=Levels(widths=(3, 4)))
    with pytest.raises(ValidationError):
        Levels(widths=())


def test_tree_columns_survive_joining(endless: LocalSampler) -> None:
    small = batch_of(draw(Tree(size=2, branching=Levels(widths=(2,))), endless)[0])
    large = batch_of(draw(RULES["levels"], endless)[0])
    both = join([small, large.replace(group=large.group + 1)])
    values = node_values(both)
    torch.testing.assert_close(values[:2, -1], small.reward)
    torch.testing.assert_close(values[2:], node_values(large))
    assert batch_of([Response([1], [-1.0], [0.1], "eos")]).node is None


# Credit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["leaves", "children"])
def test_edges_add_up_to_the_reward_minus_the_root(over: Any) -> None:
    batch = random_batch()
    value = node_values(batch, over)
    torch.testing.assert_close(EdgeAdvantage(values=over).edges(batch).sum(-1), batch.reward - value[:, 0])
    torch.testing.assert_close(EdgeAdvantage(values=over).edges(batch.replace(reward=-batch.reward)),
                               -EdgeAdvantage(values=over).edges(batch))  # fmt: skip
    chain = EdgeAdvantage(values="continuations").edges(batch)
    torch.testing.assert_close(chain.sum(-1)[:-1], (batch.reward - batch.node_value[:, 0])[:-1])


def test_children_count_the_same_however_many_leaves_they_have() -> None:
    batch = make_batch(
        mask=torch.ones(4, 2, dtype=torch.float64), group=torch.zeros(4), reward=torch.tensor([1.0, 0.0, 0.0, 0.0]).double(),
        node=torch.tensor([[1, 0], [2, 3], [2, 4], [2, 5]]), node_end=torch.tensor([[2, 0], [1, 2], [1, 2], [1, 2]]),
    )  # fmt: skip
    assert node_values(batch, "children")[:, 0].tolist() == pytest.approx([0.5] * 4)
    assert node_values(batch, "leaves")[:, 0].tolist() == [0.25] * 4
    uneven = EdgeAdvantage(values="children", scale="siblings", eps=0.0)(batch.replace(reward=batch.reward * 7))
    assert uneven[:, 0].tolist() == pytest.approx([1.0, -1.0, -1.0, -1.0]), "in units of the spread of the siblings"


def test_without_a_tree_all_come_to_their_parents() -> None:
    batch = without_tree(random_batch())
    same(rose(alpha=0.0, kl_coef=0.0), dr_grpo(), batch)
    same(arpo_agentic(credit="hard"), grpo(kl_coef=0.0), batch)
    same(arpo_agentic(), grpo(kl_coef=0.0), random_batch())
    same(tempo(td_coef=0.0), grpo(high=0.28, kl_coef=0.0).replace(aggregate=TokenMean()), batch)
    same(xrpo(cap=0.0), grpo(), batch)
    same(xrpo(novelty=0.0), grpo(), batch)
    flat = Normalise(centre="group", scale="none", whiten="token")
    torch.testing.assert_close(SubtreeAdvantage()(batch), flat(batch), rtol=1e-6, atol=1e-8)
    one = EdgeAdvantage(values="children")(batch)
    torch.testing.assert_close(one, Normalise(centre="group", scale="none")(batch), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("recipe", [tempo(widths=(2, 2)), treepo(), rose(), arpo_agentic("hard"), spo_segment("tree"),
                                    spo_segment(), xrpo()], ids=lambda r: r.name)  # fmt: skip
def test_a_recipe_is_read_back(recipe: Recipe) -> None:
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_batches_that_are_trained_on_again_know_their_age() -> None:
    new, old, older = (random_batch(seed).replace(age=None) for seed in range(3))
    found = with_replay(new, [None, old, older])
    assert found.age.tolist() == [0] * 9 + [2] * 9 + [3] * 9
    assert len(set(found.group.tolist())) == 9
    assert with_replay(new, []) is new
