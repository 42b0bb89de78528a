"""Methods with several judges, methods that cut thoughts short, and responses that are written over several steps."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.data import load_task
from policyopt.data.structured import judge_json, parse_json, share_present
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.judging.diversity import diversity, sentences
from policyopt.judging.judges import make_judge
from policyopt.judging.results import BadResult, read_result
from policyopt.methods.judge.cgpo import cgpo
from policyopt.methods.judge.constrained_rlhf import ConstrainedAdvantage, DualDescent, constrained_rlhf
from policyopt.methods.judge.mpo_meta import Refinement
from policyopt.parts import Logistic, Pairs, RowScore
from policyopt.rows import join, make_batch
from policyopt.sources.draw import EarlyExits, Windows
from policyopt.sources.program import Response
from policyopt.training.rows import to_batch
from policyopt.training.services import Held
from tests.methods.shared_judges import Echo, asked, run, same, text_of

# Verdicts with parts -------------------------------------------------------------------------------------------------


def test_parts_of_a_verdict_become_columns_and_survive_all_that_batches_go_through() -> None:
    said = [Verdict(1.0, True, True, "", parts={"kind": 0.25}), Verdict(0.0, False, False, "failed", failed=True)]
    rows = [Response([5, 0], [-1.0, -1.0], [0.0, 0.0], "eos") for _ in said]
    batch = to_batch([(1,), (1,)], rows, said, [0, 0], 4)
    assert batch.component("kind").tolist() == [0.25, 0.0]
    same(batch.component("correct"), batch.correct)
    assert batch[torch.tensor([1, 0])].component("kind").tolist() == [0.0, 0.25]
    plain = to_batch([(1,)], rows[:1], [Verdict(1.0, True, True, "")], [1], 4)
    assert join([batch, plain]).component("kind").tolist() == [0.25, 0.0, 0.0]
    assert join([plain, batch]).component("kind").tolist() == [0.0, 0.25, 0.0]
    with pytest.raises(UserError, match=r"nothing called 'taste'; it has correct, formatted, kind"):
        batch.component("taste")


@pytest.mark.parametrize("parts", [3, {"a": math.nan}, {"a": "1"}, {str(i): 1 for i in range(65)}])
def test_a_judges_parts_are_finite_numbers_by_name(parts: Any) -> None:
    with pytest.raises(BadResult):
        read_result({"score": 1, "parts": parts})
    assert read_result({"score": 1, "parts": {"a": True}}).parts == {"a": 1.0}


def test_dpo_on_mean_rewards_is_dpo_with_beta_over_the_length() -> None:
    g = torch.Generator().manual_seed(0)
    good, bad, ref = torch.randn(3, 4, 5, generator=g, dtype=torch.float64)
    credit = torch.tensor([[1.0]] * 4 + [[-1.0]] * 4, dtype=torch.float64).expand(8, 5)
    batch = make_batch(
        mask=torch.ones_like(credit), logp=torch.cat([good, bad]), ref_logp=torch.cat([ref, ref]), advantage=credit,
        group=torch.arange(4).repeat(2),
    )  # fmt: skip
    mean = Pairs(score=RowScore(against="reference", reduce="mean"), link=Logistic(beta=5.0))
    total = Pairs(score=RowScore(against="reference"), link=Logistic(beta=1.0))
    same(mean.rows(batch), total.rows(batch))
    same(mean.rows(batch)[:4], -torch.nn.functional.logsigmoid((good - bad).sum(-1)))  # half a pair's loss, of two rows


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "1" * 10_000, '{"a": 1} x', '"\x00"', "\ud800"]
)
def test_hostile_text_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)
    verdict = read_result(judge_json("", text, "7"))
    assert verdict.parts["valid"] == verdict.parts["struct"] == verdict.parts["correct"] == 0


def test_a_structured_answer_is_judged_by_its_five_aspects() -> None:
    required = {"work": {}, "answer": {}}
    good = judge_json("", '```json\n{"answer":"7","work":"3+4"}\n```', "7", required)
    assert good["parts"] == dict.fromkeys(("valid", "struct", "format", "correct", "length"), 1.0)
    more = judge_json("", '{"answer":"8","x":1,"y":2}', "7", required)
    assert (more["parts"]["struct"], more["parts"]["format"], more["parts"]["correct"]) == (0.5, 0.0, 0.0)
    assert share_present({"a": {"b": 1}}, {"a": {"b": {}, "c": {}}}) == pytest.approx(2 / 3)
    assert not judge_json("", "[[[]]]", "7", required)["correct"]


def test_the_task_json_is_solved_by_its_own_solutions() -> None:
    task = load_task("json", heldout=20)
    judge = make_judge(task.judge)
    for example in task.heldout[:5]:
        assert example.solution is not None
        assert example.hasty is not None
        assert judge(example, example.solution).score == 1
        assert judge(example, example.hasty).parts["valid"] == 0
    assert not {e.prompt[0]["content"] for e in task.heldout} & {e.prompt[0]["content"] for e in task.train}
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("json", judge="exact")


def test_repeating_a_sentence_makes_a_text_less_varied() -> None:
    once = diversity(*sentences("the cat sat. a dog ran away? yes!"))
    again = diversity(*sentences("the cat sat. the cat sat. a dog ran away? yes!"))
    assert all(again[name] < once[name] for name in ("lex", "bi", "adj", "yule"))
    assert all(0 <= x <= 1 for name, x in once.items() if name != "len")
    assert set(diversity(*sentences("\n\n")).values()) == {0.0}
    judge = make_judge(JudgeSpec("diverse", {"judge": "exact"}))
    verdict = judge(Example("1", user("?"), "yes"), "yes")
    assert verdict.correct
    assert verdict.parts["accuracy"] == 1
    assert 0 < verdict.parts["diversity"] < 1
    assert load_task("diverse:chain_sum", heldout=4).judge.options["judge"] == "reasoning-gym"


# Early exits ---------------------------------------------------------------------------------------------------------


def test_an_answer_forced_from_a_thought_trains_on_what_the_policy_wrote_alone() -> None:
    program = EarlyExits(size=3, exits=2, opener=" so ", answer_tokens=4)
    sampler = Echo("abcdef####", " 7", "x", "y")
    whole, *ends = run(program, asked(), sampler)
    assert text_of(whole.tokens) == "abcdef#### 7"
    assert (whole.origin, whole.cut, whole.finished, all(whole.own)) == (0, -1, True, True)
    for i, (row, end) in enumerate(zip(ends, "xy", strict=True)):
        assert text_of(row.tokens) == "abcdef"[: row.cut] + " so " + end
        assert row.own == [True] * row.cut + [False] * 4 + [True] * 2
        assert len(row.tokens) == len(row.logp) == len(row.entropy) == len(row.versions) == len(row.own)
        assert row.origin == i + 1
    assert ends[0].cut < ends[1].cut, "in the order of their places, each another one"
    assert sampler.asked[1:] == [("q?", 1), *(("q?" + text_of(r.tokens)[:-1], 1) for r in ends)]


def test_thoughts_that_are_over_are_answered_from_their_end_and_trained_once() -> None:
    program = EarlyExits(
        size=5, exits=2, answers=2, fractions=(0.1, 1.0), once=True, opener=" so ", answer_tokens=6
    )  # fmt: skip
    whole, *ends = run(program, asked(budget=40), Echo("abcdef####", " 7", "x", "y", "z", "w"))
    assert [r.cut for r in ends] == [3, 3, 10, 10]
    assert text_of(ends[3].tokens) == "abcdef####w", "it has closed itself: nothing is inserted"
    assert whole.own == [True] * 10 + [False] * 3
    assert ends[0].own == [False] * 7 + [True] * 2
    with pytest.raises(UserError, match="leaves no room"):
        run(program, asked(budget=5), Echo("a"))


@pytest.mark.parametrize(
    "fields", [{"size": 8}, {"size": 9, "fractions": (0.5,)}, {"size": 3, "exits": 2, "fractions": (1.0, 0.5)}]
)
def test_exits_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"multiple|fractions"):
        EarlyExits(**fields)


# Windows -------------------------------------------------------------------------------------------------------------


def test_responses_grow_by_a_window_each_step_and_every_token_is_new_once() -> None:
    program = Windows(size=2, windows=2)
    first = run(program, asked(budget=8), Echo("ab", "cdef"))
    assert [(len(r.tokens), r.later, r.use, r.new_from) for r in first] == [
        (3, False, "train", 0),
        (4, True, "train", 0),
    ]
    second = run(program, asked(budget=8, earlier=tuple(r for r in first if r.later)), Echo("ghijkl"))
    assert [(text_of(r.tokens), r.later, r.new_from) for r in second] == [("cdefghij", False, 4)]


def test_a_whole_group_waits_for_its_longest_response() -> None:
    program = Windows(size=2, windows=2, whole=True)
    first = run(program, asked(budget=8), Echo("ab", "cdefgh"))
    assert [(r.later, r.use) for r in first] == [(True, "wait")] * 2
    second = run(program, asked(budget=8, earlier=tuple(first)), Echo("g"))
    assert [(text_of(r.tokens), r.later, r.use) for r in second] == [("ab", False, "train"), ("cdefg", False, "train")]


def test_what_is_held_comes_back_from_a_checkpoint_as_it_was() -> None:
    response = Response([5, 6], [-1.5, -0.1], [0.2, 0.3], versions=[1, 2], top=[([1], [-0.5])], later=True)
    held = Held(Example("a-1", user("?"), "7", meta={"x": 1}), (1, 2), (0, 3, 4), [response], 3)
    assert Held.from_dict(json.loads(json.dumps(dataclasses.asdict(held)))) == held


# Bad fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConstrainedAdvantage(components=("correct",)),
        lambda: DualDescent(threshold=(1.0,)),
        lambda: constrained_rlhf(components=("correct",)),
        lambda: cgpo(kl_max=0.0),
        lambda: Refinement(interval=0),
    ],
)
def test_bad_fields_are_refused(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()
