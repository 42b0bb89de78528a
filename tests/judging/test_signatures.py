"""How functions are called as judges: by the names of their parameters, as TRL and verl call them, awaited."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyopt.data import JudgePool, JudgeSpec, load_task
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, user
from policyopt.judging.calls import judge_from
from policyopt.judging.judges import check_judge, make_judge, row_error
from policyopt.judging.results import BadResult, read_verl
from tests.commands import write_rows

ROW = Example("d.jsonl:3", user("What?"), "42", "6*7=42", {"difficulty": 3, "source": "book"})
CHAT = Example("d.jsonl:4", user("What?"), "42", chat=True)


def function(tmp_path: Path, source: str) -> JudgeSpec:
    name = source.removeprefix("async ").removeprefix("def ").partition("(")[0]
    (tmp_path / f"{name}.py").write_text(source)
    return JudgeSpec(f"{tmp_path / name}.py:{name}")


def seen(signature: str) -> Any:
    """What a function with this signature is called with, by parameter."""
    space: dict[str, Any] = {}
    exec(f"def f({signature}):\n    seen.append(locals())\n    return 1", {"seen": (got := [])}, space)
    assert judge_from(space["f"], {})(ROW, "resp").score == 1
    return got[0]


@pytest.mark.parametrize(
    ("signature", "wanted"),
    [
        ("prompt, response, answer", {"prompt": "What?", "response": "resp", "answer": "42"}),
        ("answer, response", {"answer": "42", "response": "resp"}),
        ("response, difficulty", {"response": "resp", "difficulty": 3}),
        ("*, response, source='x', other=7", {"response": "resp", "source": "book", "other": 7}),
        ("response, /, answer", {"response": "resp", "answer": "42"}),
        ("question, response, ground_truth", {"question": "What?", "response": "resp", "ground_truth": "42"}),
        ("completion, solution", {"completion": "resp", "solution": "6*7=42"}),
        ("response, target=5", {"response": "resp", "target": 5}),
        ("p, r, a", {"p": "What?", "r": "resp", "a": "42"}),
        ("prompt, *rest", {"prompt": "What?", "rest": ("resp", "42")}),
        (
            "response, **rest",
            {"response": "resp", "rest": {"prompt": "What?", "answer": "42", "solution": "6*7=42", "difficulty": 3, "source": "book"}},
        ),
        (
            "data_source, solution_str, ground_truth, extra_info=None",
            {"data_source": "d.jsonl", "solution_str": "resp", "ground_truth": "42", "extra_info": dict(ROW.meta)},
        ),
        ("solution_str, ground_truth, method='strict'", {"solution_str": "resp", "ground_truth": "42", "method": "strict"}),
    ],
)  # fmt: skip
def test_parameters_get_what_they_are_named_after(signature: str, wanted: dict[str, Any]) -> None:
    assert seen(signature) == wanted


def test_a_column_of_the_row_goes_before_another_name_of_the_answer() -> None:
    row = Example("e", user("?"), "42", meta={"target": "row"})
    assert judge_from(lambda response, target: float(target == "row"), {})(row, "").correct


def test_lists_as_trl_gives_them() -> None:
    got: list[Any] = []

    def reward(completions: Any, prompts: Any, answer: Any, difficulty: Any, **kwargs: Any) -> list[float | None]:
        got.append((completions, prompts, answer, difficulty, kwargs["source"]))
        return [None if c == "no" else len(c) for c in completions]

    judge: Any = judge_from(reward, {})
    other = Example("d.jsonl:4", user("Why?"), "7", meta={"difficulty": 1})
    verdicts = list(judge.many([(ROW, "abc"), (other, "no")], 1.0))
    assert got == [(["abc", "no"], ["What?", "Why?"], ["42", "7"], [3, 1], ["book", None])]
    assert verdicts[0].score == 3 and not verdicts[1].applies and math.isnan(verdicts[1].score)
    assert judge(ROW, "abcd").score == 4 and got[-1][0] == ["abcd"]


def test_completions_are_messages_where_prompts_are() -> None:
    def reward(completions: Any, prompts: Any) -> list[float]:
        assert prompts == [[{"role": "user", "content": "What?"}]]
        return [float(c[0]["content"] == "abc" and c[0]["role"] == "assistant") for c in completions]

    assert judge_from(reward, {})(CHAT, "abc").correct


def test_a_list_that_fails_is_tried_one_by_one() -> None:
    def reward(completions: list[str]) -> list[float]:
        return [float(c) for c in completions]

    judge: Any = judge_from(reward, {})
    found = list(judge.many([(ROW, r) for r in ("1", "bad", "0.5")], 1.0))
    assert [found[0].score, found[2].score] == [1, 0.5] and isinstance(found[1], ValueError)


@pytest.mark.parametrize("result", [[1.0], 1.0, [1.0] * 3])
def test_a_list_has_one_entry_for_each(result: Any) -> None:
    judge: Any = judge_from(lambda completions: result, {})
    [first, second] = judge.many([(ROW, "a"), (ROW, "b")], 1.0)
    if result == [1.0]:
        assert first.score == second.score == 1, "alone each is right"
    else:
        assert isinstance(first, BadResult) and isinstance(second, BadResult)


def test_what_verl_returns() -> None:
    found = read_verl({"score": 0.5, "acc": True, "pred": "x", "length": 7})
    assert (found.score, found.correct, found.parts) == (0.5, True, {"acc": 1.0, "length": 7.0})
    assert read_verl(1.0).correct and not read_verl(None).applies
    with pytest.raises(BadResult):
        read_verl({"acc": True})


# Before anything runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["", "a", "prompt, answer", "a, b, c, d", "a, b, c, *, strict"])
def test_what_is_no_judge_is_refused_with_its_line(tmp_path: Path, signature: str) -> None:
    with pytest.raises(UserError) as error:
        check_judge(function(tmp_path, f"def f({signature}): return 1"))
    assert f"f.py, line 1: f({signature}) cannot be called as f(prompt, response, answer); a judge takes" in str(
        error.value
    )


@pytest.mark.parametrize(
    "source",
    [
        "async def f(response, hardness): ...",
        "def f(completions, hardness, **kwargs): ...",
        "def f(data_source, solution_str, ground_truth, hardness): ...",
    ],
)
def test_a_column_that_rows_do_not_have_is_named_with_the_row(tmp_path: Path, source: str) -> None:
    spec = function(tmp_path, source)
    assert "asks for the column 'hardness'; beside prompt and answer the row has 'difficulty', 'source'" in str(
        row_error(spec, ROW)
    )
    write_rows(tmp_path / "d.jsonl", ({"prompt": str(i), "answer": "1", "difficulty": 2} for i in range(8)))
    with pytest.raises(UserError, match=r"d.jsonl, line 1: judge .* asks for the column 'hardness'"):
        load_task(str(tmp_path / "d.jsonl"), judge=spec.name)
    assert row_error(JudgeSpec(spec.name, {"hardness": 1}), ROW) is None


# In the worker -------------------------------------------------------------------------------------------------------

LATER = """
import asyncio, time

now = most = 0

async def later(response, answer):
    global now, most
    now += 1
    most = max(most, now)
    if response == "hang": await asyncio.sleep(60)
    if response == "raise": raise KeyError("mine")
    if response == "exit": exit(3)
    if response == "block": time.sleep(60)
    await asyncio.sleep(0.1)
    now -= 1
    return {"score": float(response == answer), "reason": str(most)}
"""


@pytest.fixture
def later(tmp_path: Path) -> JudgeSpec:
    (tmp_path / "later.py").write_text(LATER)
    return JudgeSpec(f"{tmp_path / 'later.py'}:later")


def test_async_calls_wait_together_and_within_bounds(later: JudgeSpec) -> None:
    with JudgePool(later, timeout=10) as pool:
        found = pool([(ROW, "42" if i % 2 else "41") for i in range(64)])
    assert [v.correct for v in found] == [bool(i % 2) for i in range(64)]
    assert max(int(v.reason) for v in found) == 32


def test_an_async_call_that_hangs_or_raises_costs_itself_alone(later: JudgeSpec) -> None:
    with JudgePool(later, timeout=0.5) as pool:
        pool.ready()
        worker = pool._workers[0].process.pid
        found = pool([(ROW, r) for r in ("42", "hang", "raise", "exit", "42")])
        assert pool._workers[0].process.pid == worker, "the worker lives"
        assert [v.failed for v in found] == [False, True, True, True, False]
        assert (
            found[1].reason.startswith("judge took longer than 0.5 s (row ") and "KeyError: 'mine'" in found[2].reason
        )
        blocked = pool([(ROW, r) for r in ("block", "42")])
        assert blocked[0].failed and blocked[1].correct, "what holds the whole loop is killed"


def test_lists_have_the_time_of_all_and_are_lost_together(tmp_path: Path) -> None:
    spec = function(
        tmp_path,
        "def f(completions):\n import time\n time.sleep(0.2 if completions[0] == 'x' else 60)\n return [1] * len(completions)",
    )
    with JudgePool(spec, timeout=0.1) as pool:
        assert all(v.correct for v in pool([(ROW, "x")] * 8))
        start = time.monotonic()
        lost = pool([(ROW, "y")] * 4)
        assert {v.reason.partition(" (row")[0] for v in lost} == {
            "judge took longer than 0.4 s for 4 responses"
        } and time.monotonic() - start < 30


def test_an_async_list(tmp_path: Path) -> None:
    judge = make_judge(function(tmp_path, "async def f(completions, **kw): return [len(c) for c in completions]"))
    assert judge(ROW, "abc").score == 3


def test_a_callable_object() -> None:
    class Counts:
        async def __call__(self, response: str, answer: str) -> float:
            await asyncio.sleep(0)
            return float(len(response))

    call: Callable[..., Any] = Counts()
    found: Verdict = judge_from(call, {})(ROW, "ab")
    assert found.score == 2
