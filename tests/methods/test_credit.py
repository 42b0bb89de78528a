"""Methods that change credit, reward or sampling: what each comes to in its limits, and what a wrong one would not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.control import Schedule
from policyopt.data import load_task
from policyopt.data.prior import PRIORS, with_prior
from policyopt.errors import UserError
from policyopt.groups import group_rank
from policyopt.items import Example, JudgeSpec, Task, user
from policyopt.judging.judges import answer_error, check_judge, make_judge
from policyopt.methods.credit.maxrl import maxrl
from policyopt.methods.credit.pass_at_k import pass_at_k
from policyopt.methods.reward.open_rs import open_rs
from policyopt.methods.reward.rmt import rmt
from policyopt.methods.reward.unlikeliness import unlikeliness
from policyopt.methods.sampling.dars import dars
from policyopt.methods.sampling.reinforce_ada import reinforce_ada
from policyopt.parts import LengthReward
from policyopt.recipe import Recipe
from policyopt.training.rows import with_baseline
from tests.methods.shared_credit import lengths, outcomes

# Ranks ---------------------------------------------------------------------------------------------------------------


def test_ranks_run_inside_a_group_and_ties_go_by_order() -> None:
    x, group = torch.tensor([3.0, 1, 1, 5, 5, 2, 1]), torch.tensor([7, 7, 2, 7, 7, 2, 2])
    assert group_rank(x, group).tolist() == [1, 0, 0, 2, 3, 2, 1]


@pytest.mark.parametrize(("past", "wanted"), [("hold", 2.0), ("back", 1.0), ("on", 3.0)])
def test_a_line_beyond_its_end(past: Any, wanted: float) -> None:
    part = LengthReward(past=past, reference=20, right=(0.0, 2.0), wrong=(0.0, 2.0))
    torch.testing.assert_close(part.value(lengths(10, 20, 30)).tolist(), [1.0, 2.0, wanted])
    assert float(part.value(lengths(70))[0]) == {"hold": 2.0, "back": 0.0, "on": 7.0}[past]


TASK = Task("t", (Example("1", user("2+2?"), "4"),) * 3, (Example("2", user("3+3?"), "6"),), JudgeSpec("number"), 8)


@pytest.mark.parametrize("tag", PRIORS)
def test_a_prior_prompt_asks_for_its_own_blocks(tag: str) -> None:
    task = with_prior(TASK, tag)
    content = task.train[0].prompt[0]["content"]
    assert content.endswith("\n\n2+2?")
    assert f"<{tag}>" in content
    assert task.heldout[0].prompt[0]["content"].endswith("3+3?")
    check_judge(task.judge)
    judge = make_judge(task.judge)
    good = f"so <{tag}>2 and 2</{tag}> <answer>4</answer>"
    other = "plan" if tag != "plan" else "code"
    verdict = judge(task.train[0], good)
    assert (verdict.correct, verdict.formatted, verdict.score) == (True, True, 1.0)
    for bad in (
        "<answer>4</answer>", f"<answer>4</answer><{tag}>x</{tag}>", f"<{tag}>x<answer>4</answer></{tag}>",
        f"<{tag}>x</{tag}>" + good, good.replace(tag, other), good.replace("</answer>", ""), good + "<answer>4</answer>",
    ):  # fmt: skip
        assert not judge(task.train[0], bad).formatted, bad
    assert judge(task.train[0], "#### 4").correct, "a right answer out of form is right"


def test_a_prior_prompt_of_ones_own() -> None:
    with_tag = with_prior(TASK, "Write a <draft> before your <answer>.")
    assert with_tag.judge.options["tag"] == "draft"
    assert with_prior(TASK, "Be brief, please.").judge == TASK.judge
    with pytest.raises(UserError, match="no prior prompt is called 'thnk'; nearest: think"):
        with_prior(TASK, "thnk")
    with pytest.raises(UserError, match="empty"):
        with_prior(TASK, " ")


def test_a_task_is_loaded_with_its_prior_prompt() -> None:
    plain, task = (load_task("chain_sum", prior=prior, heldout=2) for prior in (None, "plan"))
    assert len(task.train) == len(plain.train), "questions that are made on demand stay so"
    for a, b in ((plain.train[5], task.train[5]), (plain.heldout[1], task.heldout[1])):
        assert b.prompt[0]["content"] == f"{PRIORS['plan']}\n\n{a.prompt[0]['content']}"
        assert (a.id, a.answer, a.meta) == (b.id, b.answer, b.meta)
    assert [e.id for e in task.train[3:5]] == [e.id for e in plain.train[3:5]]
    judge, example = make_judge(task.judge), task.train[0]
    assert judge(example, f"<plan>add</plan><answer>{example.answer}</answer>") == dataclasses.replace(
        make_judge(plain.judge)(example, f"#### {example.answer}"), formatted=True
    )


def test_a_judge_of_blocks_checks_the_judge_inside() -> None:
    check_judge(JudgeSpec("tagged", {}))
    with pytest.raises(UserError, match="no judge is called 'numbr'"):
        check_judge(JudgeSpec("tagged", {"judge": "numbr"}))
    with pytest.raises(UserError, match="tolerance"):
        check_judge(JudgeSpec("tagged", {"judge": "number", "options": {"tolerance": -1}}))
    with pytest.raises(UserError, match="no option 'tags'"):
        check_judge(JudgeSpec("tagged", {"tags": "think"}))
    assert answer_error(JudgeSpec("tagged", {"judge": "number"}), "many") is not None
    assert answer_error(JudgeSpec("tagged", {"judge": "number"}), "3") is None


def test_only_the_question_of_a_dialogue_gets_the_prior_prompt() -> None:
    dialogue = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "user", "content": "v"})
    task = with_prior(Task("t", (Example("1", dialogue, "4"),), (), JudgeSpec("exact"), 8), "Be brief, please.")
    assert [m["content"] for m in task.train[0].prompt] == ["s", "Be brief, please.\n\nu", "v"]


def test_one_response_that_is_the_baseline_is_no_pool() -> None:
    batch = outcomes([1.0, 0.0, 0.25, 0.5, 0.5, 0.75], [3, 3])
    roles = ["train", "train", "baseline"] * 2
    assert with_baseline(batch, roles).baseline_reward.tolist() == [0.25] * 3 + [0.75] * 3


# Bad fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dars(group_size=8, most=7), "most is 7"),
        (lambda: reinforce_ada(group_size=9, round_size=2), "round_size is 2 and max_rounds 4: 8 responses at most"),
        (lambda: Schedule(field="x", start_value=1, end_value=0, steps=3, shape="exponential"), "above 0"),
        (lambda: unlikeliness(beta_rank=1.5), "coef"),
        (lambda: pass_at_k(k=0), "k"),
        (lambda: pass_at_k(group_size=1), "needs at least 2"),
        (lambda: maxrl(eps=-1.0), "eps"),
        (lambda: open_rs(max_len=0.0), "reference"),
        (lambda: rmt(p1=(0.5, 0.5, -1.0)), "share"),
        (lambda: dars(upper_threshold=2.0), "high"),
    ],
)
def test_fields_that_make_no_sense_are_refused(make: Callable[[], Recipe], message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        make()
