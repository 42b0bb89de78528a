"""A response without a reward leaves its group, and the update, before anything is computed over the group."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from policyopt.engine import make_engine
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, user
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.baseline.remax import remax
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import Policy
from policyopt.objective import credit
from policyopt.parts import RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import Method, methods
from policyopt.sources.draw import Group
from policyopt.sources.program import Answered, Context, Question, Response
from policyopt.training.collect import Collector, Drawn
from policyopt.training.judged import Opinions, costly
from policyopt.training.prompts import PromptStream
from tests.batches import few, random_batch
from tests.commands import QUICK, Said, lines, write_sums
from tests.tiny import load_tiny

Judge = Callable[[Sequence[tuple[Example, str]]], list[Verdict]]
BUDGET = 8
INDEPENDENT = {
    name: method for name, method in methods().items()
    if type(method().source).draw is Group.draw and not any(isinstance(f, RowSelector) for f in method().filter)
}  # fmt: skip
"""The methods that draw independent responses, look at no verdict meanwhile, and keep or drop whole groups."""


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_tiny(tiny_model)


def gone(text: str) -> bool:
    return sum(map(ord, text)) % 4 == 0


def sound(items: Sequence[tuple[Example, str]]) -> list[Verdict]:
    """Scores below 0, so that 0 would be the best."""
    return [Verdict(-1 - len(set(text)) / 20, sum(map(ord, text)) % 3 == 0, True, "") for _, text in items]


def moody(items: Sequence[tuple[Example, str]]) -> list[Verdict]:
    """The same, but it fails on some and has nothing to say of others."""
    lost = (Verdict.failure("broken"), Verdict.absent())
    found = zip(sound(items), items, strict=True)
    return [lost[len(text) % 2] if gone(text) else verdict for verdict, (_, text) in found]


def collector(policy: Policy, recipe: Recipe, judge: Judge, most: float = 1.0) -> Collector:
    others = {role: copy.deepcopy(policy) for role in recipe.roles - {"reference", "previous"}}
    engine = make_engine(policy, recipe, others)
    examples = [Example(str(i), user(f"{i}?"), "7", "3+4=7\n#### 7") for i in range(64)]
    stream = PromptStream(examples, policy.text, seed=0, longest=policy.context - BUDGET, skip=False)
    return Collector(engine, stream, judge, BUDGET, seed=0, max_failed=most)  # type: ignore[arg-type]


def drawn(policy: Policy, recipe: Recipe, judge: Judge, prompts: int = 4) -> Drawn:
    """What a step draws, with the credit of each row."""
    found = collector(policy, recipe, judge)
    result = found.draw(recipe, 0, prompts)
    if result.batch is not None:
        result.batch = credit(recipe, found.engine.prepare(result.batch, recipe))
    return result


@few(INDEPENDENT, 3, among=INDEPENDENT)
def test_a_step_is_as_if_the_response_had_never_been_drawn(method: Method, policy: Policy) -> None:
    recipe = method()
    original = Group.draw

    async def without(self: Group, question: Question, context: Context) -> list[Response]:
        return [r for r in await original(self, question, context) if not gone(context.decode(r.tokens))]

    prompts = max(4, 16 // recipe.source.size)
    mine = drawn(policy, recipe, moody, prompts)
    with mock.patch.object(Group, "draw", without):
        theirs = drawn(policy, recipe, sound, prompts)
    assert mine.stats["judge/failed"] + mine.stats["judge/absent"] > 0
    assert mine.batch is not None
    assert theirs.batch is not None
    a, b = mine.batch.columns(), theirs.batch.columns()
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name].nan_to_num(7.0), b[name].nan_to_num(7.0))] == []
    assert mine.batch.records == theirs.batch.records
    assert not mine.batch.reward.isnan().any()


def test_what_has_left_is_counted_and_kept_to_be_read(policy: Policy) -> None:
    found = drawn(policy, grpo(), moody)
    assert found.batch is not None
    lost = int(found.stats["judge/failed"] + found.stats["judge/absent"])
    assert len(found.batch) + lost == found.stats["responses"] == 32
    assert len(found.lost) == lost
    assert all((row["score"], row["reward"], row["correct"]) == (None, None, False) for row in found.lost)
    assert all(len(row["pieces"]) == row["length"] and set(row["weights"]) <= {0.0} for row in found.lost)
    assert {row["reason"] for row in found.lost} == {"broken", "the judge does not apply to this row"}
    assert "the judge failed on" in found.remark
    assert "first: broken" in found.remark


def test_groups_of_nobody_and_of_one(policy: Policy) -> None:
    def only(*kept: int) -> Judge:
        """Rewards the first so many responses to each prompt."""

        def judge(items: Sequence[tuple[Example, str]]) -> list[Verdict]:
            found = sound(items)
            return [v if i % 8 < kept[i // 8] else Verdict.absent() for i, v in enumerate(found)]

        return judge

    found = drawn(policy, grpo(), only(0, 1, 8, 0))
    assert found.batch is not None
    assert found.batch.group.tolist() == [1] + [2] * 8
    assert (found.stats["prompts/unrewarded"], found.stats["filtered"]) == (2, 0)
    assert found.batch.advantage[0].abs().max() == 0, "one alone is compared with nobody"
    nothing = drawn(policy, grpo(), only(0, 0, 0, 0))
    assert nothing.batch is None
    assert nothing.stats["prompts/unrewarded"] == 4


def test_a_prompt_whose_baseline_has_no_reward_has_nothing_to_be_compared_with(policy: Policy) -> None:
    recipe = remax()
    size = recipe.source.size + 1

    def judge(items: Sequence[tuple[Example, str]]) -> list[Verdict]:
        return [Verdict.failure("x") if i == 2 * size - 1 else v for i, v in enumerate(sound(items))]

    found = drawn(policy, recipe, judge)
    assert found.batch is not None
    assert sorted(set(found.batch.group.tolist())) == [0, 2, 3]
    whole = drawn(policy, recipe, sound).batch
    assert whole is not None
    assert torch.equal(found.batch.baseline_reward, whole[whole.group != 1].baseline_reward)


def test_who_leaves_a_group_and_who_stays(policy: Policy) -> None:
    def row(score: float = 1.0, **how: Any) -> Response:
        verdict = Verdict.failure("x") if math.isnan(score) else Verdict(score, True, True, "")
        return Response([7], [0.0], [0.0], verdict=verdict, **how)

    x, opinions = math.nan, Opinions(None, policy.text)

    def settled(*rows: Response) -> list[int]:
        example = Example("1", user("1?"), "7")
        [group] = opinions.settle([Answered(example, Question((1,), 4, (0, 0, 0)), list(rows))])
        return [i for i, row in enumerate(rows) if any(row is other for other in group.responses)]

    assert settled(row(), row(x), row(use="pool"), row(x, use="pool")) == [0, 2]
    assert settled(row(x), row(origin=1)) == [1], "a target stays without the group"
    assert settled(row(x), row(use="wait"), row(x, use="wait")) == [1, 2], "who waits is not judged yet"
    assert settled(row(), row(x, use="baseline"), row(0.0, use="baseline")) == [0, 2]
    assert settled(row(), row(), row(x, use="baseline")) == []
    assert (opinions.unrewarded, len(opinions.lost)) == (2, 6)


def test_judging_that_costs_more_than_drawing_is_spoken_of() -> None:
    assert "judging took 3.0 s, drawing 2.0 s" in costly({"time/judge": 3.0, "time/rollout": 2.0})
    assert "--judging.workers" in costly({"time/judge": 3.0, "time/rollout": 2.0})
    assert costly({"time/judge": 2.0, "time/rollout": 3.0}) == costly({"time/judge": 0.9, "time/rollout": 0.1}) == ""


def test_the_limit_counts_what_programs_ask_between_draws(policy: Policy) -> None:
    recipe = methods()["reinforce-ada"]()
    found = collector(policy, recipe, moody, most=0.1)
    with pytest.raises(
        UserError, match=r"the judge failed on \d+ of \d+ responses \(the limit is 10%, --judging.max-failed"
    ):
        found.draw(recipe, 0, 4)


PROGRAMS = [
    "arpo-agentic", "brpo-anytime", "clpo", "critique-grpo", "dars", "expo", "ghpo", "guide", "mrt", "reinforce-ada", "rest-rl",
    "s-grpo", "scaf-grpo", "spo-segment", "t-ppo", "tempo", "treepo", "urpo", "xrpo",
]  # fmt: skip
"""Methods whose rows depend on each other, or whose programs look at verdicts."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_go_on_where_the_judge_fails(name: str, policy: Policy) -> None:
    recipe = methods()[name]()
    found = drawn(policy, recipe, moody)
    assert found.stats["judge/failed"] + found.stats["judge/absent"] > 0
    assert found.batch is not None
    for column in ("reward", "advantage", "pass_rate"):
        assert getattr(found.batch, column).isfinite().all(), column
    assert all(record["score"] is not None for record in found.batch.records or ())


def test_the_console_says_why_and_no_signal_is_called_so(
    command: Callable[..., Said], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "j.py").write_text(
        "def some(prompt, response, answer):\n    if len(response) % 2: raise TimeoutError('service')\n    return -1\n"
        "def none(prompt, response, answer): return None\n"
    )
    data = write_sums(tmp_path / "sums.jsonl")
    line = ("train", "grpo", "--model", tiny_model, "--task", data, "--steps", 1, *QUICK, "--judging.max-failed", 1)
    said = command(*line, "--judge", "j.py:some", "--log-samples", 8, "--out", "some")
    assert said.code == 0, said.err
    rows = [row for row in lines(Path("some/samples.jsonl")) if row["phase"] == "train"]
    odd = [row for row in rows if len(row["response"]) % 2]
    assert 0 < len(odd) < len(rows) == 8
    assert {row["score"] for row in odd} == {row["reward"] for row in odd} == {None}
    [step] = [line for line in said.out.splitlines() if line.startswith("step 1/1")]
    assert f"judge/failed {len(odd)}" in step
    assert (
        f"the judge failed on {len(odd)} of 8 responses, first: j.py, line 2, in some: TimeoutError: service (row"
        in said.out
    )
    assert "held-out: the judge failed on" in said.out

    said = command(*line, "--judge", "j.py:none", "--out", "none")
    assert said.code == 0, said.err
    assert "step 1: no signal, no response has a reward; no update" in said.out
    assert "8 of 8 responses have no reward: the judge does not apply to this row" in said.out
    [_, metrics] = lines(Path("none/metrics.jsonl"))
    assert (metrics["judge/absent"], metrics["judge/failed"]) == (8, 0)


def test_eval_and_sample_say_that_the_judge_failed(
    command: Callable[..., Said], tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "j.py").write_text("def bad(prompt, response, answer): raise KeyError('x')\n")
    task = (
        "--model",
        tiny_model,
        "--task",
        write_sums(tmp_path / "sums.jsonl"),
        "--judge",
        "j.py:bad",
        "--max-tokens",
        4,
    )
    said = command("eval", *task, "--samples", 0)
    assert said.code == 2
    assert "the judge failed on" in said.words
    assert "(the limit is 20%, --max-failed); first: j.py, line 1, in bad: KeyError: 'x' (row sums.jsonl:" in said.words
    said = command("eval", *task, "--samples", 0, "--max-failed", 1)
    assert said.code == 0, said.err
    assert "the judge failed on" in said.out
    said = command("sample", *task, "--questions", 1)
    assert "no reward: j.py, line 1, in bad: KeyError: 'x'" in " ".join(said.out.split())


# Programs that read verdicts while they draw: what has no reward is neither good nor bad ------------------------------


def test_verdicts_have_no_number_where_there_is_no_reward() -> None:
    for verdict in (Verdict(0.0, False, False, "", failed=True), Verdict(3.0, True, True, "", applies=False)):
        assert not verdict.rewarded
        assert math.isnan(verdict.score)
    assert Verdict(0.0, False, False, "").rewarded
    assert Verdict.failure("x") == Verdict.failure("x")


def test_a_group_of_one_has_no_advantage_where_others_would_be_its_baseline() -> None:
    batch = random_batch(groups=(1, 3))
    for recipe in (grpo(), dr_grpo(), methods()["rloo"]()):
        assert bool(credit(recipe, batch).advantage[0].isfinite().all())


@pytest.fixture
def scripted() -> Any:
    from tests.methods.shared_credit import Script

    class Moody(Script):
        """NaN among the outcomes is a judge that fails."""

        async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
            found = await super().judge(responses)
            return [Verdict.failure("x") if math.isnan(v.score) else v for v in found]

    return Moody


def test_until_mixed_takes_a_failure_for_no_outcome(scripted: Any) -> None:
    from policyopt.methods.sampling.reinforce_ada import UntilMixed

    x = math.nan
    script = scripted(1, 1, x, x, 0, 0, 1, 1)
    found = script.draw(UntilMixed(size=4, round_size=4, max_rounds=2))
    assert script.calls == 2, "two successes and two failures of the judge are not both outcomes"
    assert [(r.tokens[0], r.use) for r in found[:4]] == [(0, "train"), (1, "train"), (4, "train"), (5, "train")]
    assert {r.tokens[0] for r in found if r.use == "pool"} == {2, 3, 6, 7}


def test_resumed_groups_go_on_from_the_best_that_was_judged(scripted: Any) -> None:
    from policyopt.methods.tree.rest_rl.resumed import ResumedFromBest

    x = math.nan
    assert {r.use for r in scripted(x, x, x).draw(ResumedFromBest(size=3, reward_min=2.0))} == {"train"}
    assert {r.use for r in scripted(x, 0, 1).draw(ResumedFromBest(size=3, reward_min=2.0))} == {"train"}
    assert {r.use for r in scripted(x, 1, 1).draw(ResumedFromBest(size=3, reward_min=2.0))} == {"pool"}


def test_dars_draws_for_the_accuracy_of_what_was_judged(scripted: Any) -> None:
    from policyopt.methods.sampling.dars import MoreForHard

    part = MoreForHard(size=4, most=32)
    x = math.nan
    assert len(scripted(x, x, x, x).draw(part)) == 4
    assert len(scripted(1, x, x, 1).draw(part)) == 4
    assert len(scripted(*[0, x, 0, 1, *[0] * 32]).draw(part)) == 4 + part.extra(1 / 3)


def test_xrpo_shares_by_the_spread_of_what_was_judged() -> None:
    from policyopt.methods.sampling.xrpo import Allocated

    part = Allocated(size=8, base=4, phases=2, bonus=0.0)
    x = math.nan
    assert part.share([[0, 1, x, x], [1, 1, x, 1]], 8) == [8, 0]
    assert sum(part.share([[x, x, x, x], [x, x, x, 1]], 8)) == 8


def test_a_search_takes_what_it_does_not_know_for_what_it_expects() -> None:
    from policyopt.sources.draw.search import Node

    root = Node(Response([], [], []))
    assert root.expected([math.nan]) == 0
    root.note(1.2, 2)
    child = Node(Response([], [], []), parent=root)
    assert child.expected([math.nan, math.nan]) == 0.6
    assert child.expected([math.nan, 0.2, 0.4]) == pytest.approx(0.3)
