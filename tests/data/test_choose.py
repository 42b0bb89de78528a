"""The judge that is chosen where none is given, and answers that are worked solutions."""

from __future__ import annotations

import json

import pytest

from policyopt.data import load_task
from policyopt.errors import UserError
from policyopt.items import JudgeSpec, Task
from policyopt.judging.judges import make_judge
from tests.commands import write_rows

OPTIONS = "\nA) one\nB) two\nC) three\nD) four\nE) five"


def load(tmp_path, answers, prompt="question {}", **more) -> Task:
    rows = [{"prompt": prompt.format(i), "answer": answer} for i, answer in enumerate(answers)]
    return load_task(str(write_rows(tmp_path / "d.jsonl", rows)), heldout=2, **more)


@pytest.mark.parametrize(
    ("answers", "prompt", "judge", "reason"),
    [
        (["A", "B", "C", "E"], "question {}" + OPTIONS, "choice", "all 4 answers are letters of options in their prompts"),
        (["(a)", "B.", "C", "E"], "question {}" + OPTIONS, "choice", "all 4 answers are letters"),
        (["A", "B", "C", "E"], "question {}", "exact", "letters, but d.jsonl, line 1 lists no options"),
        (["A", "B", "C", "E"], "question {} A) one B) two", "exact", "d.jsonl, line 3 lists no options"),
        (["1", "-2.5", "1,000", "3/4"], "{}", "number", "all 4 answers are numbers"),
        (["$1$", r"\frac12", "50%", r"\$3"], "{}", "number", "all 4 answers are numbers"),
        (["1", "$x$", "3", "4"], "{}", "math", "the 4 answers are formulas and numbers"),
        (["x^2", "$x$", r"\sqrt{x}", r"\emptyset"], "{}", "math", "the 4 answers are formulas"),
        (["0, 1", "1, 2", "(2, 3)", "3, 4"], "{}", "exact", "all 4 answers are lists of numbers"),
        (["2024-01-01", "2024-01-02", "3/4/2024", "2024-1-5"], "{}", "exact", "the 4 answers are text"),
        (["007", "012", "013", "014"], "{}", "exact", "the 4 answers are text"),
        (["12:30", "1:4", "3-5", "2 to 3"], "{}", "exact", "the 4 answers are text"),
        (["1 Main Street", "2 Main Street", "3 Hill Road", "4 Lane"], "{}", "exact", "the 4 answers are text"),
        (["Paris", "Rome", "Oslo", "A"], "{}", "exact", "the 4 answers are text"),
    ],
)  # fmt: skip
def test_all_answers_decide(tmp_path, answers, prompt, judge, reason) -> None:
    task = load(tmp_path, answers, prompt)
    assert task.judge == JudgeSpec(judge)
    assert reason in task.judge_reason


@pytest.mark.parametrize(
    ("answers", "one", "other"),
    [
        (["1", "2", "3", "four"], "line 1 has a number ('1')", "line 4 has text ('four')"),
        (["1", "2", "3", "2, 3"], "line 1 has a number ('1')", "line 4 has a list of numbers ('2, 3')"),
        (["1", "012", "3", "4"], "line 1 has a number ('1')", "line 2 has text ('012')"),
        (["Paris", "2", "Rome", "Oslo"], "line 1 has text ('Paris')", "line 2 has a number ('2')"),
    ],
)
def test_several_kinds_are_refused_with_what_to_type(tmp_path, answers, one, other) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, answers)
    assert one in str(error.value)
    assert other in str(error.value)
    assert "--judge exact" in str(error.value)
    given = load(tmp_path, answers, judge="exact")
    assert (given.judge, given.judge_reason) == (JudgeSpec("exact"), "given by --judge")


def test_heldout_rows_have_a_say(tmp_path) -> None:
    train = write_rows(tmp_path / "a.jsonl", ({"prompt": f"p{i}", "answer": i} for i in range(8)))
    held = write_rows(tmp_path / "b.jsonl", [{"prompt": "x", "answer": "ten"}])
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 has a number \('0'\), b\.jsonl, line 1 has text \('ten'\)"):
        load_task(f"{train},{held}")


def test_a_worked_solution_is_read_by_its_answer_line(tmp_path) -> None:
    answers = [f"add: {i}+{i}={2 * i}\n#### {2 * i}" for i in range(12)]
    task = load(tmp_path, answers)
    assert (task.judge, task.judge_reason) == (JudgeSpec("number"), "all 12 answers are numbers")
    for example in (*task.train, *task.heldout):
        number = int(example.id.rpartition(":")[2]) - 1
        assert (example.answer, example.solution) == (str(2 * number), answers[number])
        assert make_judge(task.judge)(example, f"so\n#### {2 * number}").correct
    boxed = load(tmp_path, [rf"We get $\boxed{{{i}}}$." for i in range(8)], judge="math")
    assert {e.answer for e in (*boxed.train, *boxed.heldout)} == {str(i) for i in range(8)}
    bare = load(tmp_path, [f"#### {i}" for i in range(8)])
    assert all(e.solution is None for e in bare.train)


def test_a_solution_of_its_own_is_kept(tmp_path) -> None:
    rows = [{"prompt": f"p{i}", "answer": f"so\n#### {i}", "solution": "mine"} for i in range(8)]
    task = load_task(str(write_rows(tmp_path / "d.jsonl", rows)))
    assert {e.solution for e in task.train} == {"mine"}


def test_answers_with_and_without_an_answer_line_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match=r"d\.jsonl, line 3: answer is 'no line', without an answer line"):
        load(tmp_path, ["so\n#### 1", "so\n#### 2", "no line", "so\n#### 4"])


def test_a_function_gets_the_answers_as_they_stand(tmp_path) -> None:
    (tmp_path / "f.py").write_text("def f(prompt, response, answer): return answer.endswith('#### 1')\n")
    task = load(tmp_path, ["so\n#### 1"] * 8, judge=f"{tmp_path}/f.py:f")
    assert (task.train[0].answer, task.train[0].solution) == ("so\n#### 1", "so\n#### 1")


def test_tasks_that_bring_their_judge_say_no_reason() -> None:
    assert load_task("json", heldout=2).judge_reason == ""
    assert json.dumps(load_task("json", heldout=2).judge.options)
