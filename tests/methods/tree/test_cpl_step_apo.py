"""The page of cpl-step-apo."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from policyopt.items import Verdict
from policyopt.methods.preference.dpo import dpo
from policyopt.methods.tree.cpl_step_apo import Plan, PlanSearch, Siblings, contrasted, cpl_step_apo, rows
from policyopt.objective import credit, objective, token_gradients
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Response
from tests.methods.shared_search import BREAK, END, Grammar, best_below, draw, prompt, worth

LOG2 = math.log(2)


def steps(q: list[float], gap: float = 0.0, truncated: float = 1.0, **columns: Any) -> Batch:
    """Steps after one prompt, whose log-ratios to the reference are ``gap`` for those worth more than 0 and 0 for the others."""
    n = len(q)
    value = torch.tensor(q).double()
    logp = (gap * (value > 0))[:, None] * torch.tensor([1.0, 0.0]).double()
    return make_batch(
        mask=torch.ones(n, 2).double(), logp=logp, old_logp=logp, ref_logp=torch.zeros(n, 2).double(), reward=value,
        group=torch.zeros(n, dtype=torch.long), truncated=torch.full((n,), truncated).double(), **columns,
    )  # fmt: skip


def loss_of(recipe: Any, batch: Batch) -> tuple[float, torch.Tensor]:
    loss, found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp})
    return float(loss), found["logp"]


def apo(**how: Any) -> Any:
    return cpl_step_apo(by="reward", **how)


def test_a_wide_gap_costs_more_at_the_reference_and_pulls_harder() -> None:
    losses, pulls = [], []
    for q in (0.1, 0.5, 1.0):
        loss, gradient = loss_of(apo(), steps([q, -q]))
        losses.append(loss)
        pulls.append(float(-gradient[0, 0]))
        assert loss == pytest.approx(math.log1p(math.exp(2 * q)))
    assert LOG2 < losses[0] < losses[1] < losses[2] and 0.15 < pulls[0] < pulls[1] < pulls[2] < 0.3


def test_the_gap_has_to_be_as_wide_as_the_values_differ() -> None:
    # beta (rho_w - rho_l) = 0.3 * 4 = 1.2 = alpha (Q_w - Q_l): the logit is 0.
    assert loss_of(apo(), steps([0.7, -0.5], gap=4.0))[0] == pytest.approx(LOG2)
    assert loss_of(apo(), steps([0.7, -0.4], gap=4.0))[0] < LOG2 < loss_of(apo(), steps([0.7, -0.6], gap=4.0))[0]


def test_without_alpha_it_is_dpo_of_steps() -> None:
    batch = steps([0.9, -0.8], gap=1.5)
    torch.testing.assert_close(loss_of(apo(alpha=0.0), batch), loss_of(dpo(0.3), batch))


def test_values_of_steps_that_end_a_response_count_less() -> None:
    inner, final = (loss_of(apo(), steps([1.0, -1.0], truncated=t))[0] for t in (1.0, 0.0))
    assert final == pytest.approx(math.log1p(math.exp(0.6))) and inner == pytest.approx(math.log1p(math.exp(2.0)))


def test_pairs_are_siblings_of_either_sign() -> None:
    q = [0.5, -0.5, 0.2, -0.1, -0.3]
    assert torch.stack(Siblings()(steps(q)), 1).tolist() == [[0, 1], [0, 3], [0, 4], [2, 1], [2, 3], [2, 4]]
    node = torch.tensor([[1, 2, 0], [1, 3, 0], [1, 2, 4], [1, 2, 5], [1, 3, 6]])
    end = torch.tensor([[0, 1, 0], [0, 1, 0], [0, 1, 2], [0, 1, 2], [0, 1, 2]])
    tree = steps(q, node=node, node_end=end)
    assert torch.stack(Siblings()(tree), 1).tolist() == [[0, 1], [2, 3]], "not across parents, not across levels"
    assert torch.stack(Siblings()(steps([0.5, 0.1])), 1).tolist() == []
    assert float(objective(apo(), credit(apo(), steps([0.5, 0.1])))) == 0


# The search ----------------------------------------------------------------------------------------------------------


def search(by: Any, **how: Any) -> list[Response]:
    program = PlanSearch(by=by, **({"iterations": 12, "width": 3, "first_width": 3} | how))
    question, context = prompt(best_below)

    async def judge(responses: Any) -> list[Verdict]:
        return [Verdict(worth(r.tokens), worth(r.tokens) >= 0.5, True, "") for r in responses]

    return draw(program, (question, dataclasses.replace(context, verdicts=judge)))


@pytest.mark.parametrize("by", ["value", "reward"])
def test_rows_are_steps_behind_the_beginning_that_they_follow(by: Any) -> None:
    found = search(by)
    assert found
    for row in found:
        start = row.own.index(True)
        text, step = row.tokens[:start], row.tokens[start:]
        assert not any(row.own[:start]) and all(row.own[start:])
        assert text in ([], [7, BREAK], [6, BREAK], [5, BREAK]) or text[1::2] == [BREAK, BREAK]
        assert step == [END] or step[1:] == [BREAK]
        assert row.nodes[0] == 1 and row.ends[0] == 0 and row.ends[-1] == len(row.tokens) and row.ends[-2] == start
        assert row.verdict is not None and -1 <= row.verdict.score <= 1 and row.verdict.score != 0
    for row in found:
        signs = {r.verdict.score > 0 for r in found if r.verdict and r.nodes[:-1] == row.nodes[:-1]}
        assert signs == {True, False}, "each has a sibling of the other sign"


def test_a_search_is_the_same_every_time_and_ends_when_nothing_is_open() -> None:
    assert [r.tokens for r in search("reward")] == [r.tokens for r in search("reward")]
    sampler, program = Grammar(), PlanSearch(by="reward", iterations=500, width=3, first_width=3)
    draw(program, prompt(), sampler)
    assert len(sampler.asked) < 100, "the whole language has thirteen beginnings"


def test_paths_that_are_too_long_are_worth_minus_one() -> None:
    found = search("reward", depth=1)
    assert not found, "all are too long: no sibling of the other sign"


def family(*values: tuple[float, int, bool]) -> list[Plan]:
    root = Plan(Response([], [], []))
    return [
        Plan(Response([i], [0.0], [0.0], "eos" if whole else "length"), root, value=q, visits=n)
        for i, (q, n, whole) in enumerate(values)
    ]


def test_of_whole_responses_the_best_and_the_worst_are_kept() -> None:
    children = family((1.0, 1, True), (0.5, 1, True), (-1.0, 1, True), (-0.5, 1, True))
    assert contrasted(children) == [children[0], children[2]]
    open_ = family((0.4, 3, False), (0.2, 1, False), (-0.1, 2, False), (0.0, 0, False))
    assert contrasted(open_) == open_[:3], "one that was never visited has no value"
    assert contrasted(open_[:2]) == []


def test_unvisited_steps_are_tried_by_how_likely_they_are_and_ends_are_passed_over() -> None:
    program, root = PlanSearch(c=1.5), Plan(Response([], [], []), visits=4)
    likely, rare = (Plan(Response([i], [0.0], [0.0]), root, prior=p) for i, p in enumerate((0.6, 0.2)))
    done = Plan(Response([9], [0.0], [0.0], "eos"), root, value=1.0, visits=1, prior=1.0, terminal=True)
    root.children = [rare, likely, done]
    assert program.select(root) is likely and program.puct(likely, 4) == pytest.approx(1.5 * 0.6 * 2)
    likely.visits, likely.value = 5, -0.5
    assert program.select(root) is rare
    root.children = [done]
    assert program.select(root) is None and rows(root) == []
