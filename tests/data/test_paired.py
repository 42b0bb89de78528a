"""Tasks that bring texts to learn preferences from: what the texts are, and that noise falls on training alone."""

from __future__ import annotations

from functools import cache

import pytest

from policyopt.data import builtin_tasks, load_task
from policyopt.data.paired import BULK, IDLE, LINES, WHOLE
from policyopt.errors import UserError
from policyopt.items import BROUGHT, Example, Task
from policyopt.judging.answers import find_answer
from policyopt.judging.judges import make_judge

NAMES = [f"{family}:{task}" for family in ("pairs", "pairs-length") for task in WHOLE]


@cache
def taken(name: str, n: int = 300) -> tuple[Task, list[Example]]:
    task = load_task(name, heldout=32)
    return task, [task.train[i] for i in range(n)]


def asked(example: Example) -> str:
    return example.prompt[-1]["content"]


def off(example: Example, text: str) -> int:
    """How far the answer of a text is from the right one."""
    return int(find_answer(text) or 99) - int(example.answer)


@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_there_and_follows_from_the_question_alone(name: str) -> None:
    task, examples = taken(name)
    assert task.texts == set(BROUGHT) and task.name == name and name in builtin_tasks()
    assert task.judge is not None
    judge, found = make_judge(task.judge), {asked(e): e for e in (*examples, *task.heldout)}
    other = load_task(name, seed=5, heldout=32)
    assert list(other.heldout) == list(task.heldout)
    for e in (other.train[i] for i in range(500)):
        if asked(e) in found:
            assert (e.chosen, e.responses, e.label) == (
                found[asked(e)].chosen,
                found[asked(e)].responses,
                found[asked(e)].label,
            )
    for e in found.values():
        assert e.chosen != e.rejected and e.labelled in (e.chosen, e.rejected)
        assert e.label == (e.labelled == e.chosen) and e.completion == e.chosen
        assert len(e.responses) == len(e.scores) == 4 and all(0 <= x <= 1 for x in e.scores)
        assert max(map(len, (*e.responses, e.solution or ""))) < task.max_tokens
        assert judge(e, e.solution or "").correct and judge(e, e.chosen or "").correct
        assert {off(e, text) for text in e.responses} <= {-1, 0, 1}
    assert 0.4 < sum(bool(e.label) for e in examples) / len(examples) < 0.6


def test_the_chosen_text_is_worked_out_and_the_rejected_one_is_wrong_with_or_without_its_working() -> None:
    _, examples = taken("pairs:chain_sum")
    for e in examples:
        assert e.chosen == e.solution and abs(off(e, e.rejected or "")) == 1
        assert [off(e, text) == 0 for text in e.responses] == [x > 0.5 for x in e.scores]
    worked = [e for e in examples if "\n" in (e.rejected or "")]
    assert 0.4 < len(worked) / len(examples) < 0.6
    for e in worked:
        *steps, said = (e.rejected or "").splitlines()
        assert steps[:-1] == (e.chosen or "").splitlines()[:-2] and steps[-1].endswith(f"={said.split()[-1]}")


def test_mostly_the_text_with_a_line_less_is_preferred_and_else_one_with_many_more() -> None:
    _, examples = taken("pairs-length:chain_sum", 1000)
    more = []
    for e in examples:
        better, worse = ((e.chosen or "").splitlines(), (e.rejected or "").splitlines())
        assert {*better} - {IDLE} == {*worse} - {IDLE}, "they say the same"
        more.append(better.count(IDLE) - worse.count(IDLE))
        ranked = sorted(zip(e.scores, e.responses, strict=True), reverse=True)
        assert [text for _, text in ranked[:2]] == [e.chosen, e.rejected]
        assert [off(e, text) == 0 for _, text in ranked] == [True, True, True, False]
    assert {*more} == {-1, LINES, LINES - 2}
    assert more.count(-1) / len(more) == pytest.approx(1 - BULK, abs=0.04)
    assert sum(more) > 0, "there are more such lines in what is preferred, though mostly fewer are"


def test_noise_turns_its_share_of_the_training_questions_around_and_no_held_out_one() -> None:
    plain, clean = taken("pairs:chain_sum", 1000)
    noisy, turned = taken("pairs:chain_sum:flip=0.3", 1000)
    assert noisy.name == plain.name and list(noisy.heldout) == list(plain.heldout), (
        "the same model starts, the same is measured"
    )
    flips = [e for e in turned if e.meta["flipped"]]
    assert len(flips) / len(turned) == pytest.approx(0.3, abs=0.05)
    for one, other in zip(clean, turned, strict=True):
        assert (other.solution, other.completion, other.labelled) == (one.solution, one.completion, one.labelled)
        if other.meta["flipped"]:
            assert (other.chosen, other.rejected, other.label) == (one.rejected, one.chosen, not one.label)
            assert other.scores == tuple(1 - x for x in one.scores)
            assert (other.numbers["chosen_score"], other.numbers["rejected_score"]) == (
                1 - one.numbers["rejected_score"],
                0.0,
            )
        else:
            assert (other.chosen, other.label, other.scores) == (one.chosen, one.label, one.scores)
    more = {e.id for e in taken("pairs:chain_sum:flip=0.5", 1000)[1] if e.meta["flipped"]}
    assert {e.id for e in flips} < more, "more noise, and the same questions among it"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pairs:countdown", "task pairs:countdown: expected chain_sum or simple_equations after the colon"),
        ("pairs", "task pairs:: expected chain_sum"),
        ("pairs:chain_sum:flip=2", "task pairs:chain_sum:flip=2: expected a share from 0 to 1 at the end"),
        ("pairs:chain_sum:noise=0.1", "expected a share from 0 to 1 at the end, for example :flip=0.3"),
    ],
)
def test_what_is_no_such_task_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        load_task(name)
    assert words in str(error.value)
