"""The page of rest-rl."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.group.grpo import grpo
from policyopt.methods.tree.rest_rl import rest_rl
from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest
from policyopt.methods.tree.rest_rl.search import Search
from policyopt.parts import SeqMeanTokenMean
from policyopt.parts.critic.nodes import NodeValueLoss
from policyopt.sources.draw.search import Node
from policyopt.sources.program import Response
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_search import BREAK, END, Grammar, best_below, draw, prompt, worth


def test_the_critic_learns_nodes_where_they_end_and_the_reward_at_the_end() -> None:
    batch = random_batch(groups=(2,), lengths=(4, 3), width=4).replace(
        node=torch.tensor([[1, 2, 3], [1, 4, 0]]), node_end=torch.tensor([[0, 2, 4], [0, 3, 0]]),
        node_value=torch.tensor([[0.5, 0.2, math.nan], [0.5, math.nan, 0]]).double(), reward=torch.tensor([1.0, 0]).double(),
    )  # fmt: skip
    part = NodeValueLoss()
    target = part.target(batch)
    torch.testing.assert_close(target, torch.tensor([[0.5, 0, 0.2, 1], [0.5, 0, 0, 0]]).double())
    loss = (SeqMeanTokenMean()(batch) * part(batch)).sum()
    error = (batch.value - target) ** 2
    expected = (error[0, [0, 2, 3]].mean() + error[1, [0, 2]].mean()) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("by", ["reward", "value"])
def test_a_search_with_enough_iterations_finds_the_best_response(by: Any) -> None:
    found = draw(Search(by=by, iterations=30, samples=3, c=0.5), prompt(best_below))
    assert found[0].tokens == [7, BREAK, 6, BREAK, END]


def test_uct_and_back_propagation_have_the_numbers_of_the_paper() -> None:
    search = Search(c=0.2, eps=0.1)
    assert search.uct(0.5, 3, 11) == pytest.approx(0.5 + 0.2 * math.sqrt((1 + math.log(11)) / 3.1))
    text = Response([], [], [])
    root = Node(text, total=1.0, visits=2)
    child = Node(text, root)
    child.note(1.5, 3)
    assert (root.visits, root.value, child.visits, child.value) == (5, 0.5, 3, 0.5)
    hidden, low, fresh = Node(text, value=9.0, visits=1, visible=False), Node(text, value=0.9, visits=4), Node(text)
    root.children = [hidden, low, fresh]
    assert search.select(root) is low and Search(c=2.0, eps=0.1).select(root) is fresh


def test_the_worth_of_a_node_is_the_mean_of_all_that_was_scored_below_it() -> None:
    search = Search(size=99, by="reward", iterations=8, samples=3, width=2, c=0.2)
    rows = draw(search, prompt())
    assert {r.nodes[0] for r in rows} == {1} and all(r.ends[0] == 0 for r in rows), "the root comes first"
    expanded = {n: (e, v) for r in rows for n, e, v in zip(r.nodes, r.ends, r.values, strict=True) if v == v}
    assert len(expanded) > 2
    for node, (end, value) in expanded.items():
        below = {tuple(r.tokens): worth(r.tokens) for r in rows if node in r.nodes}
        assert len({y[:end] for y in below}) == 1, "who shares a node shares its text"
        assert min(below.values()) - 1e-12 <= value <= max(below.values()) + 1e-12
    once = draw(Search(size=99, by="reward", iterations=1, samples=5), prompt())
    assert once[0].values[0] == pytest.approx(sum(worth(r.tokens) for r in once) / 5)
    assert [r.ends[-1] for r in once] == [5] * 5 and all(math.isnan(r.values[-1]) for r in once)


def test_a_search_goes_on_from_a_few_lines_only_and_never_from_an_end() -> None:
    sampler = Grammar()
    draw(Search(by="value", iterations=40, samples=3, width=1), prompt(best_below), sampler)
    assert {tokens[2:] for tokens, *_ in sampler.asked} <= {(), (7, BREAK), (7, BREAK, 6, BREAK)}
    assert len(sampler.asked) < 40, "the end of a response, met again, costs nothing"


def test_a_search_inside_a_short_budget_ends() -> None:
    for by in ("reward", "value"):
        for budget in (1, 2, 3):
            rows = draw(Search(size=9, by=by, iterations=9, samples=2), prompt(best_below, budget=budget))
            assert rows and all(0 < len(r.tokens) <= budget for r in rows)


# Groups from the middle of good responses ----------------------------------------------------------------------------


def test_prefixes_have_geometric_weights_and_come_from_good_responses() -> None:
    rule = ResumedFromBest(alpha=0.8, ratio=0.4)
    weights = rule.weights(6)
    assert sum(weights) == pytest.approx(1) and all(b / a == pytest.approx(0.8) for a, b in itertools.pairwise(weights))
    assert [rule.count(n) for n in (0, 1, 5, 6)] == [0, 1, 2, 3] and rule.weights(0) == []
    assert not rule.keeps([0.5, 0.52, 0.48]) and rule.keeps([0.4, 0.6]) and not rule.keeps([1.0])
    assert not rule.resumes([0.2, 0.7]) and rule.resumes([0.0, 0.9]) and not rule.resumes([0.95, 0.96])
    with pytest.raises(ValidationError):
        ResumedFromBest(alpha=1.1)


def test_groups_that_go_on_are_groups_of_their_own() -> None:
    rule = ResumedFromBest(size=9, reward_min=0.9, ratio=1.0)
    rows = draw(rule, prompt())
    main = [r for r in rows if r.origin == 0]
    assert len(main) == 9 and all(not r.own for r in main)
    assert [sum(r.origin == s for r in rows) for s in (1, 2)] == [9, 9], "two lines, so two beginnings"
    for r in rows[9:]:
        given = r.own.index(True)
        assert r.tokens[:given] in ([7, BREAK], [7, BREAK, 6, BREAK]) and r.tokens[-1] == END
    few = draw(rule, prompt(), Grammar(depth=0))  # all alike: nothing to learn
    assert {r.use for r in few} == {"pool"}
    assert len(draw(ResumedFromBest(size=9, reward_min=1.1), prompt())) == 9


def test_without_its_own_rules_rest_rl_is_grpo() -> None:
    mine, plain = rest_rl(stop_reward=0.0), grpo()
    for seed in range(3):
        batch = random_batch(seed)
        torch.testing.assert_close(
            gradients(mine, ready(mine, batch)), gradients(plain, ready(plain, batch)), rtol=0, atol=0
        )
    # What is the same for all of a group does not count, so "finished earns more" and "cut earns less" are one.
    less, batch = rest_rl(stop_reward=0.25), random_batch()
    more = batch.replace(reward=batch.reward + 0.25 * (batch.truncated < 0.5))
    torch.testing.assert_close(gradients(less, ready(less, batch)), gradients(plain, ready(plain, more)))
