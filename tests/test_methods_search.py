"""Methods with a critic that guides a search: OREO's losses, ReST-RL's groups, beams and trees."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.critic.oreo import Beam, SoftBellman, SoftBellmanValue, action_starts, oreo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.tree.rest_rl import rest_rl
from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest
from policyopt.methods.tree.rest_rl.search import Node, Search
from policyopt.methods.tree.rest_rl.value import NodeValueLoss
from policyopt.parts import ClippedValueLoss, SeqMeanTokenMean
from policyopt.recipe import recipe_from_dict
from policyopt.rows import Batch, join, make_batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Response
from policyopt.training.config import Checkpoints, Evaluation, Optim, TrainConfig
from policyopt.training.run import run
from tests.asking import Asked, ask
from tests.batches import gradients, random_batch, ready
from tests.commands import lines, write_rows
from tests.tiny import load_tiny, token_batch

# The soft Bellman equation -------------------------------------------------------------------------------------------

BETA = 0.4
REWARD = {(0, 0): 1.0, (0, 1): 0.0, (1, 0): 0.3, (1, 1): 0.7}


def solved_tree() -> Batch:
    """All responses of a tree of two binary tokens, under the optimal policy, with the optimal values."""
    ref = {(): 0.3, (0,): 0.6, (1,): 0.2}  # probability of token 0

    def p(at: tuple[int, ...], token: int) -> float:
        return ref[at] if token == 0 else 1 - ref[at]

    def v(at: tuple[int, ...]) -> float:
        if len(at) == 2:
            return REWARD[at]
        return BETA * math.log(sum(p(at, a) * math.exp(v((*at, a)) / BETA) for a in (0, 1)))

    rows = sorted(REWARD)
    ref_logp = [[math.log(p(y[:t], y[t])) for t in (0, 1)] for y in rows]
    gain = [[(v(y[: t + 1]) - v(y[:t])) / BETA for t in (0, 1)] for y in rows]
    value = torch.tensor([[v(y[:t]) for t in (0, 1)] for y in rows], dtype=torch.float64)
    ref_column = torch.tensor(ref_logp, dtype=torch.float64)
    logp = ref_column + torch.tensor(gain, dtype=torch.float64)
    torch.testing.assert_close(logp.sum(-1).exp().sum(), torch.ones((), dtype=torch.float64))
    return make_batch(
        mask=torch.ones(4, 2, dtype=torch.float64),
        group=torch.zeros(4),
        reward=torch.tensor([REWARD[y] for y in rows], dtype=torch.float64),
        ref_logp=ref_column, logp=logp, old_logp=logp, value=value, old_value=value,
        step_end=torch.tensor([[0, 1]] * 4),
    )  # fmt: skip


@pytest.mark.parametrize("action", ["token", "step", "response"])
def test_the_optimal_policy_and_its_values_solve_the_equation(action: Any) -> None:
    recipe = oreo(beta=BETA, alpha=0.0, action=action)
    loss, gradient = gradients(recipe, ready(recipe, solved_tree()))
    assert float(loss) < 1e-24 and all(x.abs().max() < 1e-12 for x in gradient.values())
    other = solved_tree()
    moved = ready(recipe, other.replace(value=other.value + 0.1))
    assert float(gradients(recipe, moved)[0]) == pytest.approx(2 * 0.01)


@pytest.mark.parametrize("action", ["token", "step", "response"])
def test_both_losses_are_the_same_number_and_move_different_models(action: Any) -> None:
    batch = ready(oreo(), random_batch(gaps=True))
    policy, critic = SoftBellman(beta=0.5, action=action), SoftBellmanValue(beta=0.5, action=action)
    share = SeqMeanTokenMean()(batch)

    def loss(part: Any, logp: Tensor, value: Tensor) -> Tensor:
        there = batch.replace(logp=logp, value=value)
        return (share * (part(logp, there) if part is policy else part(there))).sum()

    leaves = [batch.logp.clone().requires_grad_(), batch.value.clone().requires_grad_()]
    one, two = loss(policy, *leaves), loss(critic, *leaves)
    torch.testing.assert_close(one, two)
    of_policy = torch.autograd.grad(one, leaves, allow_unused=True)
    of_critic = torch.autograd.grad(two, leaves, allow_unused=True)
    assert of_policy[1] is None and of_critic[0] is None
    assert of_policy[0] is not None and of_policy[0].abs().max() > 1e-3
    residual = policy.residual(batch)
    states = action_starts(batch, action)
    count = states.sum(-1, keepdim=True).clamp(min=1)
    assert of_critic[1] is not None
    torch.testing.assert_close(of_critic[1], 2 * residual / count / len(count))
    if action == "token":  # the gradient of a token comes from its own residual
        torch.testing.assert_close(of_policy[0], 0.5 * of_critic[1])


def test_a_step_passes_the_gradient_of_its_residual_to_all_of_its_tokens() -> None:
    batch = ready(oreo(), random_batch(lengths=(6,) * 9)).replace(step_end=torch.tensor([[1, 3, 5, -1]] * 9))
    torch.testing.assert_close(action_starts(batch, "step"), torch.tensor([[1.0, 0, 1, 0, 1, 0]] * 9).double())
    recipe = oreo(beta=0.5, alpha=0.0, action="step")
    part = SoftBellman(beta=0.5, action="step")
    residual = part.residual(batch)
    expected = (2 * 0.5 * residual / 3 / 9)[:, [0, 0, 2, 2, 4, 4]]
    torch.testing.assert_close(gradients(recipe, batch)[1]["logp"], expected)
    # With one step it is the response level, with one for each token the token level.
    for ends, other in (([[5]] * 9, "response"), ([[*range(6)]] * 9, "token")):
        same = SoftBellman(beta=0.5, action=other)  # type: ignore[arg-type]
        torch.testing.assert_close(part.residual(batch.replace(step_end=torch.tensor(ends))), same.residual(batch))


def test_text_of_others_begins_no_action() -> None:
    batch = random_batch(lengths=(6,) * 9).replace(step_end=torch.tensor([[1, 3, 5]] * 9))
    gap = batch.replace(mask=torch.tensor([[0.0, 1, 0, 0, 1, 1]] * 9).double())
    torch.testing.assert_close(action_starts(gap, "step"), torch.tensor([[0.0, 1, 0, 0, 1, 0]] * 9).double())
    torch.testing.assert_close(action_starts(gap, "response"), torch.tensor([[0.0, 1, 0, 0, 0, 0]] * 9).double())


def test_on_the_reference_the_critic_regresses_on_the_reward() -> None:
    batch = random_batch()
    batch = ready(oreo(), batch.replace(logp=batch.ref_logp, old_logp=batch.ref_logp))
    plain = ClippedValueLoss(coef=2.0, clip=None, lam=1.0)
    expected = plain(batch.replace(returns=plain.target(batch)))
    for part in (SoftBellmanValue(), NodeValueLoss()):
        flat = batch.replace(node=None, node_end=None, node_value=None)
        torch.testing.assert_close(part(flat) * batch.mask, expected * batch.mask)
        torch.testing.assert_close(part.target(flat), batch.reward[:, None] * batch.mask)


def test_too_high_a_value_lowers_the_taken_token() -> None:
    recipe, batch = oreo(alpha=0.0), random_batch()
    for shift in (100.0, -100.0):
        found = ready(recipe, batch.replace(value=batch.value + shift))
        weight = -gradients(recipe, found)[1]["logp"]
        assert ((weight * shift <= 0) | (batch.mask == 0)).all() and weight.abs().max() > 0


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


# Programs on a script ------------------------------------------------------------------------------------------------

BREAK, END = 1, 2
LETTERS = (5, 6, 7)


class Grammar:
    """A sampler over a small language: ``depth`` lines of a letter and a line break, then an end token; which letter
    follows from the key. Remembers what it was asked."""

    def __init__(self, depth: int = 2) -> None:
        self.depth, self.asked = depth, []  # type: ignore[var-annotated]

    async def generate(self, tokens: Sequence[int], *, n: int = 1, max_tokens: int, key: tuple[int, ...], stop: Any = (), **_: Any) -> list[Response]:  # fmt: skip
        self.asked.append((tuple(tokens), n, max_tokens, key))
        out = []
        for i in range(n):
            written = [t for t in tokens if t in LETTERS]
            new: list[int] = []
            while len(written) < self.depth:
                written.append(LETTERS[(sum(key) + i // 3 ** (len(new) // 2)) % 3])
                new += [written[-1], BREAK]
                if stop:
                    break
            else:
                new.append(END)
            new = new[:max_tokens]
            logp = [-1.0] * len(new)
            out.append(Response(new, logp, logp[:], "eos" if new[-1] == END else "length", versions=[0] * len(new)))
        return out


def worth(tokens: Sequence[int]) -> float:
    """The reward of a response: 7 6 is the best of nine."""
    found = [t for t in tokens if t in LETTERS]
    known: dict[tuple[int, ...], float] = {(7, 6): 1.0, (7, 5): 0.1, (5, 5): 0.5, (5, 6): 0.6}
    return known.get(tuple(found), 0.2)


def best_below(tokens: Sequence[int]) -> float:
    """The perfect value for whoever maximises: the largest reward that begins so."""
    found = [t for t in tokens if t in LETTERS]
    rest = [(a, b) for a in LETTERS for b in LETTERS if [a, b][: len(found)] == found]
    return max(worth(y) for y in rest)


def prompt(value: Callable[[Sequence[int]], float] | None = None, budget: int = 20, key: int = 0) -> Asked:
    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(worth(r.tokens), worth(r.tokens) == 1.0, True, "") for r in responses]

    async def critic(responses: Sequence[Response]) -> list[float]:
        return [value(r.tokens) for r in responses] if value else []

    return ask(
        Grammar(),
        (9, 9),
        budget,
        (0, 0, key),
        judge,
        critic=critic if value else None,
        breaks=lambda: frozenset({BREAK}),
    )


def draw(rollout: Any, asked: Asked, sampler: Any = None) -> list[Response]:
    question, context = asked
    context = dataclasses.replace(context, program=rollout, sampler=sampler or context.sampler)
    return asyncio.run(rollout.draw(question, context))


def test_lines_end_behind_their_breaks_and_with_the_text() -> None:
    _, asked = prompt()
    assert asked.lines([5, BREAK, 6, BREAK, END]) == [2, 4, 5]
    assert asked.lines([5, BREAK, 6, BREAK]) == [2, 4]
    assert asked.lines([5]) == [1] and asked.lines([]) == []


def test_a_beam_follows_the_values_line_by_line() -> None:
    sampler = Grammar()
    [best] = draw(Beam(width=1, samples=3), prompt(best_below), sampler)
    assert best.tokens == [7, BREAK, 6, BREAK, END] and best.finished
    assert best.logp == [-1.0] * 5 and len(best.versions) == len(best.entropy) == 5
    assert [tokens for tokens, *_ in sampler.asked] == [(9, 9), (9, 9, 7, BREAK), (9, 9, 7, BREAK, 6, BREAK)]
    assert len({key for *_, key in sampler.asked}) == 3, "every request has random numbers of its own"
    several = draw(Beam(size=4, width=2, samples=3), prompt(best_below))
    assert [best_below(r.tokens) for r in several] == sorted((best_below(r.tokens) for r in several), reverse=True)
    with pytest.raises(UserError, match=r"no critic: set recipe\.critic"):
        draw(Beam(), prompt())


def test_a_beam_that_the_budget_cuts_comes_after_those_that_have_ended() -> None:
    cut = draw(Beam(size=9, width=2, samples=3), prompt(best_below, budget=4))
    assert cut and all(len(r.tokens) == 4 and not r.finished for r in cut)
    stopped = draw(Beam(width=1, samples=3, steps=1), prompt(best_below))
    assert [r.tokens for r in stopped] == [[7, BREAK]]


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


# In the engine -------------------------------------------------------------------------------------------------------


def test_the_engine_values_states_as_the_critic_does_in_training(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    engine = LocalEngine(policy, ppo())
    assert engine.critic is not None
    torch.nn.init.normal_(engine.critic.head.weight, generator=torch.Generator().manual_seed(0))
    batch = token_batch()
    values, states, expected = engine.critic(batch).detach(), [], []
    for i in range(len(batch.mask)):
        asked = batch.prompt[i, : int(batch.prompt_mask[i].sum())].tolist()
        for t in range(int(batch.mask[i].sum())):
            states.append([*asked, *batch.tokens[i, :t].tolist()])
            expected.append(float(values[i, t]))
    assert engine.values(states) == pytest.approx(expected, abs=1e-12)
    engine.micro_batch = 2
    assert engine.values(states) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match=r"set recipe\.critic"):
        LocalEngine(policy, grpo()).values(states)


def test_more_rows_than_places_do_not_disturb_each_other(tiny_model: Path) -> None:
    """Programs that come back while others wait: what was read for some must not be overwritten by the next."""
    sampler = LocalSampler.of(load_tiny(tiny_model))
    sampler.max_rows, sampler.eos = 5, frozenset()

    async def program(i: int) -> tuple[tuple[int, ...], Response]:
        tokens: tuple[int, ...] = tuple(range(10 + i, 16 + 2 * i))
        for step in range(3):
            found = await sampler.generate(tokens, n=3, max_tokens=2 + (i + step) % 4, key=(i, step), keep=True)
            asked, tokens = tokens, (*tokens, *found[-1].tokens)
        return asked, found[-1]

    for asked, r in sampler.run([program(i) for i in range(7)]):
        [said] = sampler.run([sampler.logprobs(asked, tuple(r.tokens), temperature=1.0)])
        assert said.logp == pytest.approx(r.logp, abs=1e-6)


def test_values_cannot_be_asked_for_without_a_critic() -> None:
    for program in (Beam(), Search()):
        with pytest.raises(ValueError, match="needs 'value', which nothing provides: set critic"):
            grpo().replace(decode=program)
    assert oreo(beam=0).decode is None and grpo().replace(decode=Group(size=1)).decode == Group(size=1)
    assert recipe_from_dict(rest_rl(stage="value").to_dict()) == rest_rl(stage="value")


def test_steps_of_unlike_number_stay_steps_when_batches_are_joined() -> None:
    one, two = (random_batch().replace(step_end=torch.full((9, k), 1)) for k in (1, 3))
    joined = join([one, two.replace(group=two.group + 3)])
    assert joined.step_end[:9].tolist() == [[1, -1, -1]] * 9


JUDGE = '''
def judge(prompt, response, answer):
    """Half of what an untrained model writes is right."""
    return {"score": float(sum(map(ord, response)) % 2), "correct": sum(map(ord, response)) % 2 == 0}
'''


@pytest.mark.parametrize(
    "recipe",
    [
        oreo(action="step", group_size=2),
        rest_rl(stage="value", iterations=2, samples=3),
        oreo().replace(source=Beam(size=2)),
    ],
    ids=["steps", "value", "beam"],
)
def test_further_stages_train_what_they_say(recipe: Any, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    data = write_rows(tmp_path / "data.jsonl", ({"prompt": f"{i}?", "answer": "?"} for i in range(24)))
    config = TrainConfig(
        recipe=recipe, model=str(tiny_model), task=str(data), judge=f"{tmp_path / 'judge.py'}:judge", steps=2,
        batch=2 * recipe.source.size, max_tokens=10, device="cpu", out=tmp_path / "run", optim=Optim(lr=1e-3),
        eval=Evaluation(prompts=3, samples=0), checkpoints=Checkpoints(keep=1),
    )  # fmt: skip
    result = run(config, quiet=True)
    assert 0 <= result.summary["before"]["accuracy/decode"] <= 1 and "accuracy/decode" in result.summary["after"]
    rows = lines(result.out / "metrics.jsonl")
    assert all(row["update/skipped"] == 0 for row in rows[1:])
    assert (rows[-1]["grad_norm"] == 0) == (recipe.source != Beam(size=2) and "Search" in repr(recipe.source))
