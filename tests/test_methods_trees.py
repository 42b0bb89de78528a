"""Methods that draw trees, or credit responses by what they share: limits, and what a wrong one would not do."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.capability import asks_of
from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.sampling.xrpo import Allocated, NoveltyAdvantage, xrpo
from policyopt.methods.tree.arpo_agentic import EntropyJump, SharedAdvantage, arpo_agentic
from policyopt.methods.tree.rose import SemanticBranching, ShorterAdvantage, rose, semantic_divergence
from policyopt.methods.tree.spo_segment import Chain, MeanOver, Unlikely, cutpoints, spo_segment
from policyopt.methods.tree.tempo import prefix_values, tempo
from policyopt.methods.tree.treepo import Segments, SubtreeAdvantage, repeats, treepo
from policyopt.objective import credit, selected
from policyopt.part import part
from policyopt.parts import EdgeAdvantage, Normalise
from policyopt.parts.advantage.tree import edge_of, node_values
from policyopt.recipe import Recipe, recipe_from_dict
from policyopt.rows import Batch, join, make_batch
from policyopt.sources.draw import Embedder, Growth, InputEmbeddings, Levels, Tree
from policyopt.sources.program import Response, Rollout, Round, Sampler
from policyopt.training.config import Checkpoints
from policyopt.training.loop import with_replay
from policyopt.training.rows import to_batch
from policyopt.training.run import run as training_run
from tests.asking import Asked, ask
from tests.batches import gradients, random_batch, ready
from tests.runs import lines, tiny_run
from tests.tiny import load_tiny, write_task

PROMPT = tuple(range(10, 22))


@pytest.fixture(scope="module")
def sampler(tiny_model: Path) -> LocalSampler:
    return LocalSampler.of(load_tiny(tiny_model))


@pytest.fixture(scope="module")
def endless(tiny_model: Path) -> LocalSampler:
    """A sampler whose responses all run to their budget."""
    found = LocalSampler.of(load_tiny(tiny_model))
    found.eos = frozenset()
    return found


async def judge(responses: Sequence[Response]) -> list[Verdict]:
    return [Verdict(float(sum(r.tokens) % 2), sum(r.tokens) % 2 == 1, True, "") for r in responses]


def prompt(number: int = 0, budget: int = 24, tokens: tuple[int, ...] = PROMPT, by: Any = judge) -> Asked:
    return ask(None, tokens, budget, (0, 1, number), by)


def draw(rollout: Rollout, sampler: LocalSampler, *prompts: Asked) -> list[list[Response]]:
    together = Round()
    asked = [
        (question, dataclasses.replace(context, sampler=sampler, program=rollout, round=together))
        for question, context in prompts or (prompt(),)
    ]
    return sampler.run([rollout.draw(*each) for each in asked])


def batch_of(responses: Sequence[Response], rewards: Sequence[float] | None = None) -> Batch:
    verdicts = [Verdict(r, r > 0, True, "") for r in rewards or [float(i % 2) for i in range(len(responses))]]
    return to_batch([PROMPT] * len(responses), responses, verdicts, [0] * len(responses), 24, torch.float64)


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Two recipes have the same loss and gradient on a batch."""
    (loss, got), (other, wanted) = gradients(a, ready(a, batch)), gradients(b, ready(b, batch))
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got["logp"], wanted["logp"], rtol=1e-12, atol=1e-14)


def without_tree(batch: Batch) -> Batch:
    return batch.replace(node=None, node_end=None, node_value=None)


# Trees as they are drawn ---------------------------------------------------------------------------------------------


def assert_tree(responses: Sequence[Response]) -> None:
    """Rows have a token of the same node in common exactly where all of their text up to it is the same text."""
    batch = batch_of(responses)
    nodes = batch.node.gather(1, edge_of(batch))
    for i, a in enumerate(responses):
        assert a.ends == sorted(a.ends) and a.ends[-1] == len(a.tokens) == len(a.logp) == len(a.entropy)
        assert len(set(a.nodes)) == len(a.nodes) == len(a.ends)
        for j, b in enumerate(responses[:i]):
            together = [d for d, (m, n) in enumerate(zip(a.nodes, b.nodes, strict=False)) if m == n]
            assert together == list(range(len(together))), "what two rows share is a beginning"
            end = a.ends[len(together) - 1] if together else 0
            assert a.tokens[:end] == b.tokens[:end] and a.logp[:end] == b.logp[:end]
            assert a.ends[: len(together)] == b.ends[: len(together)]
            assert (nodes[i, :end] == nodes[j, :end]).all()
            assert set(a.nodes[len(together) :]).isdisjoint(b.nodes[len(together) :])


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


def test_segments_fork_at_their_ends_and_restart_from_older_ones(sampler: LocalSampler, endless: LocalSampler) -> None:
    [responses] = draw(Tree(size=16, branching=Segments(depth=6)), endless)
    assert {end % 4 for r in responses for end in r.ends} == {0}
    assert 2 <= len({r.nodes[0] for r in responses}) <= 8
    [short] = draw(Tree(size=16, branching=Segments(depth=2, first_low=2, first_high=2)), sampler, prompt(budget=12))
    assert len(short) == 16, "two paths that end soon are cut until there are as many leaves as were asked for"
    assert repeats([1, 2] * 5, 4, 3) and not repeats([1, 2] * 3, 4, 3) and not repeats([], 4, 2)
    with pytest.raises(ValueError, match="first_low is 9"):
        Segments(first_low=9)


@pytest.mark.parametrize("restart", ["random", "least-likely", "block"])
def test_paths_that_have_ended_are_cut_where_it_was_said(restart: Any, sampler: LocalSampler) -> None:
    rule = Segments(depth=2, segment=6, first_low=1, first_high=1, restart=restart, block=None if restart == "random" else 2)  # fmt: skip
    tree = Growth(12, 1.0, "seed")
    tree.rows = [Response(list(range(8)), [-1.0, -9.0, -0.1, -0.1, -1.0, -2.0, -3.0, -4.0], [0.0] * 8, "eos")]
    tree.cuts, tree.rounds = {(0, 6)}, 1
    kept = [fork.kept for _ in range(300) for fork in rule(tree, 2)]
    share = {k: round(kept.count(k) / len(kept), 1) for k in sorted(set(kept))}
    # blocks of two tokens have mean log-probabilities -5, -0.1, -1.5 and -3.5
    expected = {"random": {0: 0.5, 6: 0.5}, "least-likely": {1: 1.0}, "block": {0: 0.0, 2: 0.8, 4: 0.2, 6: 0.0}}[
        restart
    ]
    assert {k: x for k, x in share.items() if x} == {k: x for k, x in expected.items() if x}
    [again] = draw(Tree(size=16, branching=rule), sampler, prompt(budget=12))
    assert len(again) == 16


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


def test_chains_are_cut_at_uncertain_tokens_and_valued_by_fresh_continuations(endless: LocalSampler) -> None:
    assert cutpoints([-0.9, -0.01, -0.5, -2.0, -0.2], 0.9, 2) == [0, 3]
    assert cutpoints([-0.01] * 4, 0.9, 1) == []
    rollout = Chain(size=2, interval=4, samples=3, threshold=0.5)
    [rows] = draw(rollout, endless, prompt(budget=12))
    for r in rows:
        assert r.ends == [*cutpoints(r.logp, 0.5, 4), 12] and len(r.values) == len(r.nodes) == len(r.ends)
        assert r.values[:-1] == [0.0] * (len(r.ends) - 1), "what does not end is worth nothing"
        assert math.isnan(r.values[-1])
    assert_tree(rows)


def test_chain_values_are_means_of_verdicts(sampler: LocalSampler) -> None:
    asked: list[Response] = []

    async def noting(responses: Sequence[Response]) -> list[Verdict]:
        asked.extend(responses)
        return await judge(responses)

    [rows] = draw(Chain(size=1, interval=2, samples=4), sampler, prompt(by=noting))
    cuts, at = rows[0].ends[:-1], 0
    assert cuts
    for cut, value in zip(cuts, rows[0].values, strict=False):
        mine, at = asked[at : at + 4], at + 4
        assert all(r.tokens[:cut] == rows[0].tokens[:cut] for r in mine)
        assert value == sum(r.finished and sum(r.tokens) % 2 for r in mine) / 4
    assert at == len(asked)


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
    same(tempo(td_coef=0.0), grpo(), batch)
    same(xrpo(cap=0.0), grpo(), batch)
    same(xrpo(novelty=0.0), grpo(), batch)
    flat = Normalise(centre="group", scale="none", whiten="token")
    torch.testing.assert_close(SubtreeAdvantage()(batch), flat(batch), rtol=1e-6, atol=1e-8)
    one = EdgeAdvantage(values="children")(batch)
    torch.testing.assert_close(one, Normalise(centre="group", scale="none")(batch), rtol=1e-12, atol=1e-14)


def test_prefix_values_of_tempo() -> None:
    batch = random_batch(groups=(6, 4), lengths=(6, 5, 4, 3, 6, 2, 6, 6, 1, 4))
    value, mask = prefix_values(batch), batch.mask.bool()
    for i in range(10):
        for k in range(int(mask[i].sum()) + 1):
            begins = [
                j for j in range(10)
                if batch.group[j] == batch.group[i] and mask[j].sum() >= k
                and batch.tokens[j, :k].tolist() == batch.tokens[i, :k].tolist()
            ]  # fmt: skip
            assert float(value[i, k]) == pytest.approx(float(batch.reward[begins].mean()), abs=1e-12)
    unique = batch.replace(tokens=torch.arange(60).reshape(10, 6))
    td = tempo().advantage.difference(unique)  # type: ignore[attr-defined]
    gain = Normalise(scale="none")(unique)
    torch.testing.assert_close(td[:, 0], gain[:, 0])
    assert not td[:, 1:].any(), "responses that differ at once are GRPO's from the second token on"
    alike = batch.replace(tokens=batch.tokens * 0, mask=torch.ones_like(batch.mask))
    assert not tempo().advantage.difference(alike).any()  # type: ignore[attr-defined]
    branching = tempo(widths=(2, 3), segment=5).source
    assert branching == Tree(size=6, branching=Levels(widths=(2, 3), segment=5))


def test_subtrees_of_treepo() -> None:
    batch = random_batch(groups=(8, 5))
    gain, weight = SubtreeAdvantage().terms(batch)
    torch.testing.assert_close(gain[:8, 0].sum(), torch.zeros(()).double())
    for node in (1, 2):
        inside = (batch.node[:8, 0] == node).nonzero()[:, 0]
        torch.testing.assert_close(gain[inside, 1].sum(), torch.zeros(()).double())
    assert weight[-1].tolist() == [1, 0, 0], "a leaf alone below the root keeps the term of the whole prompt"
    for form in ("average", "size"):
        advantage = SubtreeAdvantage(weight=form)(batch)  # type: ignore[arg-type]
        torch.testing.assert_close(advantage.sum(), torch.zeros(()).double(), rtol=0, atol=1e-10)
        assert float((advantage**2).sum() / (batch.mask.sum() - 1)) == pytest.approx(1.0)
    equal = batch.replace(reward=torch.cat([torch.tensor([1.0, 0.0] * 4), torch.rand(5)]).double())
    kept = SubtreeAdvantage(drop_flat=True).terms(equal)[1]
    assert kept[:8].tolist() == [[1, 0, 0]] * 8, "below the root all leaves of a tree have the same reward"
    assert SubtreeAdvantage().terms(equal)[1][:8].tolist() == [[1, 1, 1]] * 8


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


def test_length_calibration_of_rose() -> None:
    batch = random_batch()
    plain, lowered = EdgeAdvantage()(batch), ShorterAdvantage(alpha=2.0)(batch)
    torch.testing.assert_close(ShorterAdvantage(alpha=0.0)(batch), plain)
    assert (lowered <= plain + 1e-12).all() and (lowered < plain - 1e-6).any()
    right, length = batch.reward > 0.5, batch.length()
    shortest = [min(length[right & (batch.group == g)].tolist(), default=0) for g in batch.group]
    still = ~right | (length == torch.tensor(shortest))
    torch.testing.assert_close(lowered[still], plain[still])


# SPO's loss ----------------------------------------------------------------------------------------------------------


def test_sure_tokens_have_no_gradient_and_are_not_counted() -> None:
    recipe = spo_segment(prob_threshold=0.5, kl_coef=0.0)
    batch = ready(recipe, random_batch())
    unsure = (batch.old_logp.exp() < 0.5) & batch.mask.bool()
    loss, got = gradients(recipe, batch)
    assert (~unsure & batch.mask.bool()).any(), "the batch has sure tokens"
    assert not got["logp"][~unsure].any()
    ratio = (batch.logp - batch.old_logp).exp()
    each = torch.maximum(-ratio * batch.advantage, -ratio.clamp(0.8, 1.2) * batch.advantage)
    torch.testing.assert_close(loss, each[unsure].mean())


def test_edges_of_a_tree_count_once() -> None:
    recipe = spo_segment("tree", prob_threshold=2.0, widths=(2, 2), kl_coef=0.0)
    node, end = torch.tensor([[1, 2], [1, 3], [4, 5], [4, 6]]), torch.tensor([[3, 6]] * 4)
    batch = random_batch(groups=(4,), lengths=(6,) * 4).replace(node=node, node_end=end)
    old = batch.old_logp.clone()
    old[1, :3], old[3, :3] = old[0, :3], old[2, :3]
    batch = batch.replace(
        old_logp=old, logp=old, reward=torch.tensor([1.0, 0.0, 0.0, 0.0]).double(), truncated=old[:, 0] * 0
    )
    loss, got = gradients(recipe, ready(recipe, batch))
    # six edges of three tokens, of which the two below the second node add nothing: twelve tokens count
    assert float(loss) == pytest.approx(-(0.25 - 0.25 + 0.5 - 0.5) / 4)
    assert float(got["logp"][0, 4]) == pytest.approx(-0.5 / 12)
    assert float(got["logp"][1, 5]) == pytest.approx(0.5 / 12)
    assert float(got["logp"][:2, 1].sum()) == pytest.approx(-0.25 / 12), "two rows share what one edge weighs"
    assert not got["logp"][2:, 3:].any()


def test_whitened_edges_and_bad_fields() -> None:
    batch = random_batch()
    part = EdgeAdvantage(only=Unlikely(threshold=0.8), whiten=True)
    found = part(batch)
    kept = Unlikely(threshold=0.8)(batch)
    assert float(found[kept].mean()) == pytest.approx(0, abs=1e-12)
    assert float(found[kept].var(correction=0)) == pytest.approx(1, abs=1e-6)
    assert not found[~kept].any()
    none = MeanOver(tokens=Unlikely(threshold=1e-9))(batch.mask, batch)
    assert not none.any(), "a batch without such a token has no loss, and no division by 0"
    with pytest.raises(ValidationError):
        Unlikely(threshold=0.0)
    with pytest.raises(ValidationError):
        Chain(interval=0)


@pytest.mark.parametrize("recipe", [tempo(widths=(2, 2)), treepo(), rose(), arpo_agentic("hard"), spo_segment("tree"),
                                    spo_segment(), xrpo()], ids=lambda r: r.name)  # fmt: skip
def test_a_recipe_is_read_back(recipe: Recipe) -> None:
    assert recipe_from_dict(recipe.to_dict()) == recipe


# XRPO ----------------------------------------------------------------------------------------------------------------


def test_novelty_raises_unlikely_right_answers_alone() -> None:
    batch = random_batch()
    batch = batch.replace(reward=batch.correct)
    plain, raised = Normalise()(batch), NoveltyAdvantage()(batch)
    rise = (raised - plain)[batch.mask.bool()]
    assert (rise >= -1e-15).all() and (rise > 1e-3).any()
    assert (raised <= torch.where(plain > 0, 1.5 * plain, plain) + 1e-12).all()
    likely = NoveltyAdvantage().eta(batch) >= 1
    still = likely | (batch.correct == 0)
    torch.testing.assert_close(raised[still], plain[still])
    torch.testing.assert_close(NoveltyAdvantage()(batch.replace(old_logp=batch.old_logp - 3)), raised)


def test_the_budget_of_a_batch_goes_where_the_priority_is(sampler: LocalSampler) -> None:
    rule = Allocated(bonus=0.0)
    assert rule.priority(4, 0.0, 99) == 0.0, "equal rewards leave nothing to find out"
    assert rule.share([[1, 0, 1, 0], [1, 1, 1, 1]], 4) == [4, 0]
    assert Allocated(bonus=5.0).share([[1, 1, 1, 1], [0, 0]], 2) == [0, 2], "few responses, larger bonus"
    rollout = Allocated(size=6, base=3, phases=3)
    prompts = [prompt(i, 12, (*PROMPT, 40 + i)) for i in range(3)]
    drawn = draw(rollout, sampler, *prompts)
    assert sum(map(len, drawn)) == 18 and min(map(len, drawn)) >= 3
    assert [[r.tokens for r in rows] for rows in draw(rollout, sampler, *prompts)] == [
        [r.tokens for r in rows] for rows in drawn
    ]
    assert len(draw(Allocated(size=4, base=4, phases=1), sampler)[0]) == 4
    with pytest.raises(ValueError, match="base is 4, more than the 2"):
        Allocated(size=2)


def test_a_prompt_without_success_is_shown_solved_ones(sampler: LocalSampler) -> None:
    async def right(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(1.0, True, True, "") for _ in responses]

    async def wrong(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(0.0, False, True, "") for _ in responses]

    near, far, hard = (50, 51, 52, 53), (70, 71, 72, 73), (50, 51, 52, 54)
    prompts = [prompt(i, 6, tokens, by) for i, (tokens, by) in enumerate([(near, right), (far, right), (hard, wrong)])]
    solved, _, failed = draw(Allocated(size=6, base=2, phases=2, examples=1, bonus=9.0), sampler, *prompts)
    seeded = [r for r in failed if r.context]
    assert seeded and all(r.origin == 1 for r in seeded) and not any(r.context for r in solved)
    assert seeded[0].context == (*near, *solved[0].tokens, *hard), "the most similar problem, with its verified answer"
    batch = to_batch([hard] * len(failed), failed, [Verdict(0.0, False, True, "")] * len(failed), [0] * len(failed), 6)
    row = next(i for i, r in enumerate(failed) if r.context)
    asked = batch.prompt[row, : int(batch.prompt_mask[row].sum())].tolist()
    assert tuple(asked) == seeded[0].context
    said = sampler.run([sampler.logprobs(seeded[0].context, tuple(seeded[0].tokens), temperature=1.0)])[0]
    assert said.logp == pytest.approx(seeded[0].logp, abs=1e-6)
    plain = draw(Allocated(size=6, base=2, phases=2, examples=0), sampler, *prompts)[2]
    assert not any(r.context for r in plain)


def test_the_corpus_of_solved_problems_grows(sampler: LocalSampler) -> None:
    async def judge(score: float, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(score, score > 0, True, "") for _ in responses]

    notes: dict[str, Any] = {}
    rollout = Allocated(size=4, base=2, phases=2, examples=2, bonus=9.0, corpus=3)

    def step(number: int, *asked: tuple[tuple[int, ...], float], room: int = 999) -> list[list[Response]]:
        prompts = [
            ask(sampler, tokens, 6, (0, number, i), functools.partial(judge, score), notes=notes, room=room)
            for i, (tokens, score) in enumerate(asked)
        ]
        return draw(rollout, sampler, *prompts)

    first, second, hard = (50, 51, 52, 53), (50, 51, 70, 71), (50, 51, 52, 54)
    [[solved, *_]] = step(0, (first, 1.0))
    [[other, *_]] = step(1, (second, 1.0))
    assert notes == json.loads(json.dumps(notes)) == {"solved": [[[*first], solved.tokens], [[*second], other.tokens]]}
    [rows] = step(2, (hard, 0.0))
    shown = (*second, *other.tokens, *first, *solved.tokens, *hard)
    assert {r.context for r in rows if r.origin} == {shown}, "solved at earlier steps, the nearest last"
    assert len(notes["solved"]) == 2
    [rows] = step(3, (first, 0.0))
    assert {r.context for r in rows if r.origin} == {(*second, *other.tokens, *first)}, "never its own answer"
    [rows] = step(4, (hard, 0.0), room=len(first) + len(solved.tokens) + len(hard))
    assert {r.context for r in rows if r.origin} == {(*first, *solved.tokens, *hard)}, "as many as there is room for"
    [[again, *_], _] = step(5, (first, 1.0), (hard, 1.0))
    step(6, ((60, 61), 1.0))
    assert [problem for problem, _ in notes["solved"]] == [[*first], [*hard], [60, 61]], "the latest"
    assert notes["solved"][0][1] == again.tokens
    Allocated(corpus=0).remember(notes, {})
    assert notes["solved"] == []


def test_programs_that_fail_do_not_leave_others_waiting(sampler: LocalSampler) -> None:
    async def broken(responses: Sequence[Response]) -> list[Verdict]:
        raise UserError("the judge is out")

    shared = Round()
    prompts = [
        (question, dataclasses.replace(context, sampler=sampler, round=shared))
        for question, context in (prompt(0, 6), prompt(1, 6, by=broken))
    ]

    async def together() -> None:
        await asyncio.wait_for(asyncio.gather(*(xrpo().source.draw(*p) for p in prompts)), 60)

    with pytest.raises(UserError, match="the judge is out"):
        asyncio.run(together())


# SPO's replay --------------------------------------------------------------------------------------------------------


def test_edges_have_their_turn_once() -> None:
    recipe = spo_segment("tree", prob_threshold=2.0, widths=(2, 2), edges=2, kl_coef=0.0)
    assert recipe.update.replay == 7
    node, end = torch.tensor([[1, 2], [1, 3], [4, 5], [4, 6]] * 2), torch.tensor([[3, 6]] * 8)
    batch = random_batch(groups=(4, 4), lengths=(6,) * 8)
    batch = batch.replace(node=node, node_end=end, reward=torch.tensor([1.0, 0, 0, 0, 1, 0.5, 0, 1]).double(), age=None)
    whole = credit(recipe.set("advantage.per_prompt", None), batch).advantage
    seen, order = torch.zeros_like(whole), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for age in range(4):
        turned = batch.replace(age=torch.full((8,), age))
        found = credit(recipe, turned).advantage
        torch.testing.assert_close(credit(recipe, turned[order]).advantage, found[order], rtol=0, atol=0)
        torch.testing.assert_close(credit(recipe, turned[batch.group == 1]).advantage, found[batch.group == 1])
        live = [{(int(node[i, t // 3]), t // 3) for i in rows for t in range(6) if found[i, t]} for rows in (range(4), range(4, 8))]  # fmt: skip
        assert [len(edges) for edges in live] == ([2, 2] if age < 2 else [0, 2] if age == 2 else [0, 0])
        assert not (seen * found).any(), "none has two turns"
        seen = seen + found
    torch.testing.assert_close(seen, whole)
    first = batch.replace(age=torch.zeros(8, dtype=torch.long))
    torch.testing.assert_close(credit(recipe, first).advantage, credit(recipe, batch).advantage)
    other = credit(recipe, batch.replace(noise=batch.noise.flip(0))).advantage
    assert not torch.equal(other, credit(recipe, batch).advantage), "which are first is random"
    chosen = selected(recipe, credit(recipe, batch))
    assert torch.equal(chosen, (credit(recipe, batch).advantage != 0).any(1))


def test_batches_that_are_trained_on_again_know_their_age() -> None:
    new, old, older = (random_batch(seed).replace(age=None) for seed in range(3))
    found = with_replay(new, [None, old, older])
    assert found.age.tolist() == [0] * 9 + [2] * 9 + [3] * 9
    assert len(set(found.group.tolist())) == 9
    assert with_replay(new, []) is new


def test_replayed_edges_train(tmp_path: Path, tiny_model: Path) -> None:
    recipe = spo_segment("tree", widths=(2, 2), segment=3, edges=1, replay=2)
    task = write_task(tmp_path / "task")
    config = tiny_run(tmp_path / "run", tiny_model, task, recipe, steps=4, checkpoints=Checkpoints(every=1, keep=9))
    training_run(config, quiet=True)
    rows = [row for row in lines(tmp_path / "run" / "metrics.jsonl") if row["step"]]
    assert all(row["update/count"] == 1 and row["grad_norm"] > 0 for row in rows)
    [last] = tmp_path.glob("run/model/model.safetensors")
    weights = last.read_bytes()
    for step in (3, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:06d}")
    training_run(config, resume=tmp_path / "run", quiet=True)
    assert last.read_bytes() == weights, "a resumed run replays the same edges"
