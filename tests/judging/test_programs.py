"""The judge of programs: what a program is, which tests there are, and what passes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyopt.data import JudgeSpec, load_task
from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.judging.edits import LONGEST, edit_similarity
from policyopt.judging.fences import last_fenced, program_of
from policyopt.judging.judges import answer_error, check_judge, deterministic, make_judge
from policyopt.judging.program_tests import read_tests, same_output, same_value
from policyopt.sandbox import Call
from tests.sandbox.test_sandbox import sandboxed

TESTS = [
    {"input": "3 4\n", "expected": "7\n"},
    {"call": "add(3, b=4)", "expected": 7},
    {"call": ["Sum.of", [1, 2, 3]], "expected": [6]},
    "assert add('a', 'b') == 'ab'",
]
PROGRAM = """\
def add(a, b): return a + b
class Sum:
    def of(self, xs): return (sum(xs),)
if __name__ == "__main__":
    print(add(*map(int, input().split())))
    exit()
"""


def judged(program: str, tests: object, **options: object):
    example = Example("p:1", user("?"), json.dumps(tests))
    return make_judge(JudgeSpec("code", options))(example, program)


@sandboxed
def test_all_kinds_of_tests_are_run() -> None:
    found = judged(f"So:\n```python\n{PROGRAM}```\nThat is it.", TESTS)
    assert found.correct and found.score == 1 and found.formatted and found.parts == {"tests": 1.0, "valid": 1.0}
    bare = judged(PROGRAM, TESTS)
    assert bare.correct and not bare.formatted
    wrong = PROGRAM.replace("a + b", "a - b")
    part, none = judged(wrong, TESTS, partial=True), judged(wrong, TESTS)
    assert (part.score, none.score) == (0.25, 0.0) and part.parts["tests"] == none.parts["tests"] == 0.25
    assert not part.correct and none.reason == "1 of 4 tests passed; printed '-1\\n'" and none.parts["valid"] == 0


@sandboxed
def test_time_and_words_are_parts_where_they_are_asked_for() -> None:
    program = "import time\nprint('loaded')\ntime.sleep(0.3)\nprint('trained')\nraise SystemExit(1)"
    found = judged(program, [{"input": "", "expected": "x"}], timed=True, prints="loaded,trained,graded")
    assert found.parts["prints"] == 2 and found.parts["valid"] == 0 and found.parts["seconds"] > 0.3
    assert set(judged("print(1)", [{"input": "", "expected": "1"}]).parts) == {"tests", "valid"}


@sandboxed
def test_all_tests_of_a_response_share_their_time() -> None:
    found = judged("import time; time.sleep(100)", [{"input": "", "expected": ""}] * 50, seconds=0.25, total=1.0)
    assert found.score == 0 and "took too long" in found.reason


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```\nor rather\n```python\nb\nc\n```", "b\nc\n"),
        ("```\na\n```\n```\nb", None),
        ("```python\na", None),
        ("no fence", None),
        ("<think>```\na\n```</think>\n```\nb\n```", "b\n"),
        ("  ```py\n  a\n  ```", "  a\n"),
        ("", None),
    ],
)
def test_the_last_closed_block_is_the_program(response: str, program: str | None) -> None:
    assert last_fenced(response) == program


def test_what_is_no_program() -> None:
    assert program_of("print(1)") == ("print(1)", False)
    assert program_of("```\nprint(1)") == (None, True)
    assert program_of("") == (None, False)
    assert program_of("x" * 200_000) == (None, False)
    assert program_of("<think>print(1)") == (None, False)
    assert program_of("assign y = a;", has=("module",)) == (None, False)


def test_tests_are_read_as_they_are_written() -> None:
    found = read_tests(json.dumps(TESTS))
    assert found[0].input == "3 4\n" and found[0].call is None
    assert found[1].call == Call("add", [3], {"b": 4})
    assert found[2].call == Call("Sum.of", [[1, 2, 3]])
    assert (found[3].call, found[3].expected) == (Call("add", ["a", "b"], {}), "ab")
    [methods] = read_tests('[{"call": "Solution().f(-1, (2, 3))", "expected": null}]')
    assert methods.call == Call("Solution.f", [-1, [2, 3]], {})


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("no", "no JSON"),
        ("[" * 100000, "no JSON"),
        ("[]", "1 to 1000"),
        ("{}", "1 to 1000"),
        ('[{"input": "3"}]', "test 1 is .* expected an object"),
        ('[{"input": "3", "call": "f()", "expected": ""}]', "either input or call"),
        ('[{"input": 3, "expected": "3"}]', "input and expected are texts"),
        ('[{"call": "f(x)", "expected": 1}]', "malformed|literal"),
        ('[{"call": "f(", "expected": 1}]', "cannot be read"),
        ('[{"call": "1 + 1", "expected": 1}]', "expected the call of a function"),
        ('[{"call": "f(*a)", "expected": 1}]', "malformed|literal"),
        ('[{"call": 7, "expected": 1}]', "expected a text as"),
        ('["assert f(1)"]', "test 1 is .* assert f"),
        ('["assert f(1) == g(2)"]', "of literals alone"),
        ('["import os"]', "of literals alone"),
    ],
)
def test_tests_that_cannot_be_read_are_named(tests: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tests(tests)
    assert "judge 'code' needs the tests" in (answer_error(JudgeSpec("code"), tests) or "")


@pytest.mark.parametrize(
    ("given", "expected", "tolerance", "same"),
    [
        (7, 7.0, 0, True),
        (True, 1, 0, False),
        (1, True, 0, False),
        (True, True, 0, True),
        ("7", 7, 0, False),
        (None, None, 0, True),
        (None, 0, 0, False),
        ([1, [2]], [1, [2]], 0, True),
        ([1, 2], [2, 1], 0, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0, True),
        ({"a": 1}, {"a": 1, "b": 2}, 0, False),
        (0.30000000000000004, 0.3, 0, False),
        ([0.30000000000000004], [0.3], 1e-9, True),
        (float("nan"), float("nan"), 1, False),
        (10**400, 1.0, 1e-9, False),
        (10**400, 10**400, 0, True),
    ],
)
def test_values_are_the_same(given: object, expected: object, tolerance: float, same: bool) -> None:
    assert same_value(given, expected, tolerance) is same


@pytest.mark.parametrize(
    ("given", "expected", "tolerance", "same"),
    [
        ("7", "7\n", 0, True),
        ("7  \n\n\n", "7", 0, True),
        ("1\n2", "1 2", 0, False),
        (" 7", "7", 0, False),
        ("0.3000001", "0.3", 0, False),
        ("x 0.3000001", "x  0.3", 1e-3, True),
        ("y 0.3", "x 0.3", 1e-3, False),
        ("", "7", 1e9, False),
    ],
)
def test_outputs_are_the_same(given: str, expected: str, tolerance: float, same: bool) -> None:
    assert same_output(given, expected, tolerance) is same


@sandboxed
def test_a_file_with_tests_chooses_the_judge(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "tests": [TESTS[1], {"call": "f()", "expected": n}]} for n in range(8)]
    file = tmp_path / "programs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    task = load_task(str(file), heldout=2)
    assert task.judge == JudgeSpec("code") and "tests of programs" in task.judge_reason
    assert read_tests(task.train[0].answer)[0].expected == 7
    file.write_text("\n".join(json.dumps(row | {"tests": [{"call": "f(", "expected": 1}]}) for row in rows))
    with pytest.raises(UserError, match=r"programs\.jsonl, line 1.*cannot be read"):
        load_task(str(file), heldout=2)


@sandboxed
def test_options_are_checked() -> None:
    for options, message in (
        ({"seconds": 0}, "seconds is 0"),
        ({"partial": 1}, "true or false"),
        ({"memory": 5}, "no option 'memory'"),
        ({"prints": 7}, "words with commas"),
    ):
        with pytest.raises(UserError, match=message):
            check_judge(JudgeSpec("code", options))
    check_judge(JudgeSpec("edits", {"lines": None}))
    assert deterministic(JudgeSpec("code")) and deterministic(JudgeSpec("edits"))


# Completions ---------------------------------------------------------------------------------------------------------


def test_edit_similarity_is_one_for_equal_texts_alone() -> None:
    assert edit_similarity("assign y = a;", "  assign y = a;\n") == 1
    assert edit_similarity("abcd", "bcde") == 0.75
    assert edit_similarity("", "a") == 0 and edit_similarity("", " ") == 1
    for a, b in (("abcabba", "cbabac"), ("qabxcd", "abycdf"), ("tide", "diet")):
        assert edit_similarity(a, b) == edit_similarity(b, a) < 1
    assert edit_similarity("a" * LONGEST + "b", "a" * LONGEST + "c") == 0


def test_a_completion_is_judged_by_its_lines() -> None:
    example = Example("c:1", user("assign x = b;"), "assign y = a;")
    one, whole = (make_judge(JudgeSpec("edits", {"lines": lines})) for lines in (1, None))
    found = one(example, "\n  assign y = a;\nassign z = c;")
    assert found.correct and found.score == 1 and not found.formatted
    assert 0.5 < whole(example, "assign y = a;\nassign z = c;").score < 1
    assert one(example, "Well:\n```verilog\nassign y = a;\n```").correct
    assert one(example, "").score == 0
