"""Judges that compare: who is asked what, what comes of it, and what becomes of responses that cannot be compared."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Verdict, preferred, user
from policyopt.judging.calls import judge_from
from policyopt.judging.comparing import compared, questions, scored
from policyopt.judging.judges import check_judge, make_judge, row_error
from policyopt.judging.pool import JudgePool
from policyopt.judging.results import BadResult, read_preference, read_preferences
from policyopt.judging.signatures import style_of

EXAMPLE = Example("e", user("q"), "a", meta={"hardness": 3})


def said(score: float = 0.5, **more: Any) -> Verdict:
    return Verdict(score, more.pop("correct", False), False, "", **more)


def by(prefers: Callable[[str, str], float], texts: Sequence[str]) -> Any:
    """The comparison that a function of two texts makes."""
    return compared("pair", texts, [said(prefers(a, b)) for a, b in questions("pair", texts)])


def rows(comparison: Any) -> list[list[float]]:
    return [list(v.parts["beats"]) for v in comparison.verdicts]


def gone(comparison: Any) -> list[int]:
    return [i for i, v in enumerate(comparison.verdicts) if not v.rewarded]


# Both orders ---------------------------------------------------------------------------------------------------------


def test_a_judge_that_likes_what_comes_first_says_nothing() -> None:
    found = by(lambda a, b: 1.0, ["x", "y", "z"])
    assert [v.score for v in found.verdicts] == [0.5] * 3
    assert preferred(found.verdicts) == [[0.5] * 3] * 3
    assert (found.asked, found.ties, found.gap) == (3, 3, 3.0), "and the log says how much the order counted"


def test_both_orders_are_averaged_and_add_up_to_one_to_the_bit() -> None:
    p = {("x", "y"): 0.9, ("y", "x"): 0.3, ("x", "z"): 0.7, ("z", "x"): 0.1, ("y", "z"): 0.45, ("z", "y"): 0.61}
    found = by(lambda a, b: p[a, b], ["x", "y", "z"])
    table = preferred(found.verdicts)
    assert table[0][1] == pytest.approx((0.9 + 1 - 0.3) / 2)
    assert all(table[i][j] + table[j][i] == 1 for i, j in itertools.combinations(range(3), 2))
    assert [v.parts["wins"] for v in found.verdicts] == pytest.approx([0.8, (0.2 + 0.42) / 2, (0.2 + 0.58) / 2])
    assert sum(v.score for v in found.verdicts) == pytest.approx(1.5)
    assert found.gap == pytest.approx(0.2 + 0.2 + 0.06)
    assert [[math.isnan(x) for x in row] for row in rows(found)] == [[i == j for j in range(3)] for i in range(3)]


def test_equal_texts_tie_and_are_not_asked_about() -> None:
    assert questions("pair", ["x", "y", "x"]) == [("x", "y"), ("y", "x")]
    assert questions("group", ["x", "y", "x"]) == [("x", "y")]
    found = by(lambda a, b: float(a == "x"), ["x", "y", "x"])
    assert [v.score for v in found.verdicts] == [0.75, 0.0, 0.75]
    alone = by(lambda a, b: pytest.fail("asked"), ["x", "x"])
    assert [v.score for v in alone.verdicts] == [0.5, 0.5]
    assert [v.score for v in by(lambda a, b: 1.0, ["x"]).verdicts] == [0.5], "alone, it ties with nobody"
    assert compared("pair", [], []).verdicts == []


def test_scores_make_a_comparison_in_which_the_higher_one_wins() -> None:
    found = scored([said(0.2), said(0.9), Verdict.failure("no"), said(0.2, parts={"brief": 1.0})])
    assert [v.score for v in found.verdicts if v.rewarded] == [0.25, 1.0, 0.25]
    assert found.verdicts[3].parts["brief"] == 1.0
    assert (found.asked, found.ties) == (3, 1)
    table = preferred([said(0.2), said(0.9), Verdict.failure("no")])
    assert table[0][:2] == [0.5, 0.0] and math.isnan(table[0][2]) and math.isnan(table[2][2])


def test_a_table_says_it_of_all_at_once_with_what_is_right_and_what_it_is_worth() -> None:
    table = [[0.0, 0.9], [0.3, 0.0]]
    verdict = read_preferences({"score": table, "correct": [1, 0], "reward": [7, -1]}, 2)
    found = compared("group", ["x", "y", "x"], [verdict])
    assert [v.parts["wins"] for v in found.verdicts] == pytest.approx([0.65, 0.2, 0.65])
    assert [(v.score, v.correct) for v in found.verdicts] == [(7, True), (-1, False), (7, True)]


# What cannot be compared ---------------------------------------------------------------------------------------------


def test_a_response_that_no_pair_can_be_judged_with_leaves_alone() -> None:
    texts = ["w", "x", "y", "z"]
    pairs = questions("pair", texts)
    verdicts = [Verdict.failure("it hangs") if "y" in pair else said(float(pair[0] < pair[1])) for pair in pairs]
    found = compared("pair", texts, verdicts)
    assert gone(found) == [2]
    assert found.verdicts[2] == Verdict.failure("it hangs")
    assert [v.score for i, v in enumerate(found.verdicts) if i != 2] == [1.0, 0.5, 0.0], "as if it had not been there"
    assert all(len(v.parts["beats"]) == 3 for i, v in enumerate(found.verdicts) if i != 2)
    table = preferred(found.verdicts)
    assert math.isnan(table[2][0]) and math.isnan(table[0][2]) and table[0][3] == 1.0


def test_as_few_as_need_leave_where_single_pairs_are_missing() -> None:
    def found(*missing: tuple[str, str], texts: Sequence[str] = "vwxyz") -> list[int]:
        pairs = questions("pair", texts)
        return gone(compared("pair", texts, [Verdict.absent() if p in missing else said() for p in pairs]))

    assert found(("w", "y")) == [3], "of two that lack as much, the last"
    assert found(("w", "y"), ("z", "w")) == [1], "the one that lacks most"
    assert found(("w", "x"), ("y", "z")) == [2, 4]
    assert found(("v", "w"), texts="vw") == [0, 1], "neither was compared with anything"


def test_nobody_is_to_blame_for_what_does_not_apply() -> None:
    verdicts = compared("pair", ["x", "y"], [Verdict.absent("no taste"), said(1.0)]).verdicts
    assert verdicts == [Verdict.absent("no taste")] * 2
    verdicts = compared("pair", ["x", "y"], [Verdict.absent("no taste"), Verdict.failure("broken")]).verdicts
    assert verdicts == [Verdict.failure("broken")] * 2
    assert compared("group", ["x"], [Verdict.failure("broken")]).verdicts == [Verdict.failure("broken")]


def test_what_a_comparison_costs_is_counted_once() -> None:
    verdicts = [said(costs={"requests": 1.0, "tokens_in": 5.0})] * 6
    found = compared("pair", ["x", "y", "z"], verdicts)
    assert found.verdicts[0].costs == {"requests": 6.0, "tokens_in": 30.0}
    assert not any(v.costs for v in found.verdicts[1:])


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (1.5, "returned 1.5, expected the probability, from 0 to 1, that the response shown first is better"),
        (-0.1, "returned -0.1, expected the probability"),
        (math.nan, "returned the score nan, expected a finite number"),
        ("a", "returned 'a', expected a number"),
        ({"score": 0.5, "parts": {"x": 1}}, r"returned parts \['x'\], which are of no use"),
    ],
)
def test_what_is_no_probability_is_refused(result: Any, reason: str) -> None:
    with pytest.raises(BadResult, match=reason):
        read_preference(result)


def test_a_probability_may_say_what_is_right() -> None:
    assert read_preference(True).score == 1 and not read_preference(True).correct, "to win is not to be right"
    assert read_preference({"score": 0, "correct": True, "reason": "short"}) == Verdict(0.0, True, False, "short")
    assert not read_preference(None).applies


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ([[0.5, 1.0]], "expected a table of 2 rows, for the 2 responses that it compares"),
        ([[0.5, 1.0], [0.5]], "expected 2 probabilities in each row"),
        ([[0.5, 1.2], [0.5, 0.5]], "returned 1.2, expected the probability"),
        (0.5, "expected a table of 2 rows"),
        ({"score": [[0, 1], [0, 1]], "correct": [True]}, "expected correct as a list of 2"),
        ({"wins": []}, r"returned a dict with keys \['wins'\], expected score"),
    ],
)
def test_what_is_no_table_is_refused(result: Any, reason: str) -> None:
    with pytest.raises(BadResult, match=reason):
        read_preferences(result, 2)


def test_a_table_may_leave_out_pairs_and_be_an_array() -> None:
    import numpy as np

    assert read_preferences(np.array([[0.0, 1.0], [0.25, 0.0]]), 2).parts["score"] == [0.5, 1.0, 0.25, 0.5]
    entries = read_preferences([[None, None], [0.25, None]], 2).parts["score"]
    assert math.isnan(entries[1]) and entries[2:] == [0.25, 0.5]
    assert not read_preferences(None, 2).applies


# Functions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "style"),
    [
        (lambda prompt, a, b: 0, "pair"),
        (lambda a, b: 0, "pair"),
        (lambda a, b, answer: 0, "pair"),
        (lambda prompt, a, b, hardness, **rest: 0, "pair"),
        (lambda prompt, responses: 0, "group"),
        (lambda responses, answer: 0, "group"),
        (lambda a, b, c: 0, "three"),
        (lambda response, a, b: 0, "named"),
        (lambda completions, responses=None: 0, "lists"),
    ],
)
def test_names_say_whether_a_function_compares(function: Callable[..., Any], style: str) -> None:
    assert style_of(inspect.signature(function), {}) == style


def test_it_gets_columns_and_options_by_name() -> None:
    judge = judge_from(
        lambda prompt, a, b, answer, hardness, weight=1: (a == answer) * hardness / 6 * weight, {"weight": 2}
    )
    assert judge(EXAMPLE, ("a", "b")).score == 1.0
    assert judge.compares == "pair" and set(judge.columns) == {"wins", "beats"}
    with pytest.raises(BadResult, match="asks for the column 'ease', which e does not have"):
        judge_from(lambda a, b, ease: 1, {})(EXAMPLE, ("a", "b"))


def test_a_missing_column_and_a_judge_that_cannot_be_asked_are_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text("def prefers(prompt, a, b, ease): return 1\n")
    assert "asks for the column 'ease'" in (row_error(JudgeSpec(f"{file}:prefers"), EXAMPLE) or "")
    tagged = JudgeSpec("tagged", {"judge": f"{file}:prefers"})
    with pytest.raises(UserError, match="compares responses: one that scores each by itself is wanted"):
        check_judge(tagged)
    with pytest.raises(UserError, match="compares responses: one that scores each by itself is wanted"):
        make_judge(tagged)


MINE = """
import asyncio, time

def longer(prompt, a, b):
    if "hang" in (a, b):
        time.sleep(60)
    if "nan" in (a, b):
        return float("nan")
    return 0.5 if len(a) == len(b) else float(len(a) > len(b))

async def later(a, b):
    await asyncio.sleep(0)
    return 0.75

class Table:
    def __call__(self, responses, answer):
        n = len(responses)
        return {"score": [[float(i < j) for j in range(n)] for i in range(n)], "correct": [r == answer for r in responses]}

table = Table()
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "my.py").write_text(MINE)
    return f"{tmp_path / 'my.py'}:"


def test_a_pair_that_hangs_costs_one_response_of_its_group(mine: str) -> None:
    other = Example("f", user("r"), "b")
    with JudgePool(JudgeSpec(f"{mine}longer"), timeout=1.0, workers=1) as pool:
        first, second = pool.compare([(EXAMPLE, ["1", "333", "hang", "22"]), (other, ["1", "22", "nan"])])
        assert pool.compares and pool.provides >= {"wins", "beats"}
    assert [v.score for v in first.verdicts if v.rewarded] == [0.0, 1.0, 0.5]
    assert first.verdicts[2] == Verdict.failure("judge took longer than 1 s (row e)")
    assert [v.score for v in second.verdicts if v.rewarded] == [0.0, 1.0]
    assert second.verdicts[2].reason == "judge returned the score nan, expected a finite number (row f)"


@pytest.mark.parametrize(("name", "scores"), [("later", [0.5, 0.5]), ("table", [1.0, 0.0])])
def test_async_functions_and_objects_compare_too(mine: str, name: str, scores: list[float]) -> None:
    with JudgePool(JudgeSpec(f"{mine}{name}"), workers=1) as pool:
        verdicts = pool([(EXAMPLE, "a"), (EXAMPLE, "b"), (Example("f", user("r"), "c"), "c")])
    assert [v.score for v in verdicts] == [*scores, 0.5], "neighbours of one example are a group"
    assert [v.correct for v in verdicts] == [name == "table", False, name == "table"]


def test_a_judge_that_scores_compares_by_its_scores() -> None:
    with JudgePool(JudgeSpec("number"), workers=1) as pool:
        [found] = pool.compare([(Example("e", user("q"), "4"), ["#### 3", "#### 4", "#### 5"])])
        assert not pool.compares
    assert [v.score for v in found.verdicts] == [0.25, 1.0, 0.25]
    assert [v.correct for v in found.verdicts] == [False, True, False]
