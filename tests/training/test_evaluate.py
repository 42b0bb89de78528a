"""Held-out evaluation: pass@k against its definition, and the evaluator against responses that are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyopt.data import JudgePool
from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, user
from policyopt.models.load import Policy, load_policy
from policyopt.sources.program import Response
from policyopt.training.evaluate import Evaluator, pass_at_k, right_answers

# pass@k --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int) -> None:
    for correct in range(n + 1):
        samples = [i < correct for i in range(n)]
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(samples, k))
            share = Fraction(sum(map(any, subsets)), len(subsets))
            assert pass_at_k(n, correct, k) == pytest.approx(float(share), abs=1e-15)


@given(st.integers(1, 2000), st.data())
def test_pass_at_k_at_its_ends_and_in_between(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value = pass_at_k(n, correct, k)
    assert 0 <= value <= 1
    assert pass_at_k(n, correct, 1) == pytest.approx(correct / n)
    assert pass_at_k(n, correct, n) == float(correct > 0)
    assert value >= pass_at_k(n, correct, 1) - 1e-12


@pytest.mark.parametrize("k", [0, 5, -1])
def test_pass_at_k_needs_k_samples(k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} needs at least {k} samples, there are 4"):
        pass_at_k(4, 2, k)


# The evaluator -------------------------------------------------------------------------------------------------------

QUESTIONS = [Example(f"q{i}", user(f"{i}+{i}"), str(2 * i)) for i in range(70)]
"""More than one block of 64."""


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return load_policy(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def judge() -> Iterator[JudgePool]:
    with JudgePool(JudgeSpec("number")) as pool:
        yield pool


class Scripted:
    """Stands for a sampler: what it writes is known."""

    def __init__(self, policy: Policy, greedy: dict[str, str], sampled: dict[str, Sequence[str]]) -> None:
        self.policy, self.greedy, self.sampled = policy, greedy, sampled
        self.keys: list[tuple[int, ...]] = []

    def generate(self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: Any) -> Any:
        question = self.policy.tokenizer.decode(tokens, skip_special_tokens=True).removeprefix("user")
        texts = [self.greedy[question]] * n if temperature == 0 else list(self.sampled[question])
        assert len(texts) == n
        self.keys.append(key)
        out = []
        for text in texts:
            ids = self.policy.tokenizer.encode(text, add_special_tokens=False)
            finished = len(ids) < max_tokens
            ids = [*ids, self.policy.tokenizer.eos_token_id] if finished else ids[:max_tokens]
            out.append(Response(ids, [0.0] * len(ids), [0.0] * len(ids), "eos" if finished else "length"))
        return out

    def run(self, programs: list[list[Response]]) -> list[list[Response]]:
        return programs


def test_accuracy_length_format_and_pass_at_k_are_those_of_the_responses(policy: Policy, judge: JudgePool) -> None:
    examples = QUESTIONS[:4]
    greedy = {"0+0": "#### 0", "1+1": "2", "2+2": "#### 5", "3+3": "6666666666666666666666"}
    sampled = {
        "0+0": ["0", "0", "0"],
        "1+1": ["1", "2", "3"],
        "2+2": ["#### 4", "4", "5"],
        "3+3": ["1", "2", "3"],
    }
    evaluator = Evaluator(policy.text, Scripted(policy, greedy, sampled), judge, examples, 12, 100)
    scores = evaluator(samples=3, k=2)
    lengths = [7, 2, 7, 12]  # the end token counts, and the budget cuts
    assert scores.summary == {
        "accuracy": 2 / 4,
        "format": 2 / 4,
        "length": sum(lengths) / 4,
        "pass@2": pytest.approx((1 + 2 / 3 + 1 + 0) / 4),
        "distinct": 3 / 4,
        "right": [3, 1, 2, 0],
        "answers": [1, 1, 1, 0],
        "n": 4,
        "judged": 4,
        "judge/failed": 0,
        "judge/absent": 0,
        "lengths": lengths,
        "correct": [r["correct"] for r in scores.records],
    }
    assert scores.metrics() == {
        "eval/accuracy": 0.5,
        "eval/format": 0.5,
        "eval/length": 7.0,
        "eval/pass@2": pytest.approx(2 / 3),
        "eval/distinct": 0.75,
    }
    assert [row["correct"] for row in scores.records] == [True, True, False, False]
    assert [row["truncated"] for row in scores.records] == [False, False, False, True]
    assert [(row["id"], row["prompt"], row["answer"]) for row in scores.records] == [
        (e.id, e.prompt[0]["content"], e.answer) for e in examples
    ]
    assert scores.records[2]["response"] == "#### 5"
    assert scores.records[2]["reason"] == "'5' is wrong, '4' is right"


def test_right_answers_are_told_apart_by_what_they_say() -> None:
    texts = ["by 7\n#### 7", "#### 7", "#### 3", "#### 3 ", "#### 5", "try 9", " try 9", "try 11"]
    right = [True, True, True, True, False, True, True, True]
    verdicts = [Verdict(float(x), x, True, "") for x in right]
    assert right_answers(texts, verdicts) == (7, 4), "7, 3, try 9 and try 11; 5 is wrong"
    assert right_answers(texts[4:5], verdicts[4:5]) == (0, 0)


def test_the_same_policy_always_gets_the_same_scores(policy: Policy, judge: JudgePool) -> None:
    evaluator = Evaluator(policy.text, LocalSampler.of(policy), judge, QUESTIONS, 8, 200, seed=3)
    progress: list[tuple[int, int]] = []
    first = evaluator(2, 2, lambda done, total: progress.append((done, total)))
    assert progress == [(64, 70), (70, 70)]
    assert evaluator(2, 2) == first
    assert first.summary["n"] == 70
    alone = Evaluator(policy.text, LocalSampler.of(policy), judge, QUESTIONS, 8, 200, seed=3)(0)
    assert [row["response"] for row in alone.records] == [row["response"] for row in first.records]
    assert not {"pass@2", "distinct", "right", "answers"} & alone.summary.keys()


def test_the_random_numbers_of_an_evaluation_are_not_those_of_training(policy: Policy, judge: JudgePool) -> None:
    answers = {f"{i}+{i}": "1" for i in range(70)}
    sampler = Scripted(policy, answers, {question: ["1"] for question in answers})
    Evaluator(policy.text, sampler, judge, QUESTIONS, 8, 200, seed=3)(1, 1)
    greedy, sampled = sampler.keys[:64] + sampler.keys[128:134], sampler.keys[64:128] + sampler.keys[134:]
    assert greedy == sampled == [(3, -1, i) for i in range(70)], "one for each question, and step -1"


def test_a_question_that_does_not_fit_counts_as_wrong(policy: Policy, judge: JudgePool) -> None:
    long = Example("long", user("1" * 60 + "+0"), "1")
    examples = [long] * 64 + [QUESTIONS[1], long]  # a block of which nothing fits, and one of which something does
    evaluator = Evaluator(policy.text, Scripted(policy, {"1+1": "2"}, {"1+1": ["2", "2"]}), judge, examples, 8, 30)
    evaluator.check()
    scores = evaluator(2, 1)
    assert scores.summary["accuracy"] == scores.summary["pass@1"] == 1 / 66
    assert scores.summary["lengths"] == [0] * 64 + [2, 0]
    assert [row["response"] for row in scores.records[-2:]] == ["2", ""]
    assert scores.records[0]["truncated"]


def test_where_no_question_fits_there_is_nothing_to_measure(policy: Policy, judge: JudgePool) -> None:
    evaluator = Evaluator(policy.text, LocalSampler.of(policy), judge, QUESTIONS[:3], 8, 5)
    with pytest.raises(UserError, match="all held-out prompts are longer than the 5 tokens"):
        evaluator.check()


def _moody(items: list[tuple[Example, str]]) -> list[Verdict]:
    """Fails on "x", has nothing to say of "-", and finds "1" right."""
    said = {"x": Verdict.failure("judge took longer than 1 s"), "-": Verdict.absent("not my row")}
    return [said.get(text, Verdict(float(text == "1"), text == "1", True, "")) for _, text in items]


def test_what_has_no_reward_counts_in_no_share(policy: Policy) -> None:
    greedy = {"0+0": "1", "1+1": "x", "2+2": "-", "3+3": "0"}
    sampled = {"0+0": ["1", "0", "x"], "1+1": ["x", "x", "1"], "2+2": ["1", "0", "0"], "3+3": ["-", "-", "-"]}
    evaluator = Evaluator(policy.text, Scripted(policy, greedy, sampled), _moody, QUESTIONS[:4], 8, 100)  # type: ignore[arg-type]
    scores = evaluator(3, 2)
    found = scores.summary
    assert (found["accuracy"], found["format"], found["n"]) == (1 / 2, 1.0, 4)
    assert found["pass@2"] == pytest.approx((1 + 2 / 3) / 2), "of the questions with two judged samples"
    assert (found["right"], found["answers"], found["distinct"]) == ([None, None, 1, None], [None, None, 1, None], 1.0)
    assert (found["judged"], found["judge/failed"], found["judge/absent"]) == (2, 4, 4)
    assert scores.remark == (
        "the judge failed on 4 of 16 responses, first: judge took longer than 1 s; "
        "4 of 16 responses have no reward: not my row"
    )
    assert [row["score"] for row in scores.records] == [1.0, None, None, 0.0]
    assert [[v.score for v in said] for _, _, said in scores.sampled] == [[1.0, 0.0, 0.0]], "probes see whole groups"


def test_an_evaluation_stops_where_the_judge_fails_too_often(policy: Policy) -> None:
    answers = {f"{i}+{i}": "x" if i < 7 else "1" for i in range(70)}

    def evaluator(most: float) -> Evaluator:
        sampler = Scripted(policy, answers, {})
        return Evaluator(policy.text, sampler, _moody, QUESTIONS, 8, 200, max_failed=most, option="--max-failed")  # type: ignore[arg-type]

    assert evaluator(0.1)(0).summary["accuracy"] == 1.0
    message = r"the judge failed on 7 of 64 responses \(the limit is 9%, --max-failed\); first: judge took longer"
    with pytest.raises(UserError, match=message):
        evaluator(0.09)(0)


def test_where_nothing_has_a_reward_there_is_no_accuracy(policy: Policy) -> None:
    sampler = Scripted(policy, {"0+0": "-", "1+1": "-"}, {})
    found = Evaluator(policy.text, sampler, _moody, QUESTIONS[:2], 8, 100)(0)  # type: ignore[arg-type]
    assert found.summary["accuracy"] is None
    assert found.metrics() == {"eval/length": 2.0}
