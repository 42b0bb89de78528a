"""Several judges as one: how they are written, what they say together, and what a run makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import policyopt as po
from policyopt.data import JudgePool, load_task
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, user
from policyopt.judging.calls import in_flight, of_lists
from policyopt.judging.judges import judge_spec, typed
from policyopt.judging.names import read, written
from policyopt.judging.results import BadResult, read_result
from policyopt.judging.several import weighted_judge
from tests.commands import QUICK, caller, lines, write_rows

MINE = '''
def brevity(response, difficulty=1):
    """Short is good."""
    return difficulty / (1 + len(response))

def even(response, answer):
    """Says nothing of rows with an odd answer."""
    return None if int(answer) % 2 else len(response) % 2
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(MINE)
    write_rows(tmp_path / "data.jsonl", ({"prompt": f"{i}?", "answer": str(i), "difficulty": i} for i in range(16)))
    return tmp_path


def example(answer: str = "42") -> Example:
    return Example("d.jsonl:1", user("?"), answer)


# How they are written ------------------------------------------------------------------------------------------------


def test_one_judge_stays_one(place: Path) -> None:
    assert written("number") == written(["number"]) == "number"
    assert written("my.py:even") == f"{place / 'my.py'}:even", "wherever the run goes on"
    assert written(None) is None and written([]) is None
    assert judge_spec("number", {"tolerance": "0.5"}).options == {"tolerance": 0.5}


def test_several_have_names_and_weights(place: Path) -> None:
    path = place / "my.py"
    wanted = ("correct=number:1.0", f"brief={path}:brevity:0.2", f"even={path}:even:1.0")
    assert written(["correct=number", "brief=my.py:brevity:.2", "my.py:even"]) == wanted
    assert written({"correct": "number:1", "brief": ("my.py:brevity", 0.2), "even": "my.py:even"}) == wanted
    assert written(wanted) == wanted
    assert [tuple(e) for e in read(wanted)][1] == ("brief", f"{path}:brevity", 0.2)
    assert [e.weight for e in read(("a=number:-1e-1", "b=my.py:f:2."))] == [-0.1, 2.0]
    assert written("number:2") == ("number=number:2.0",)


@pytest.mark.parametrize(
    ("judge", "options", "said"),
    [
        (["number", "number"], {}, "two judges are called 'number'"),
        (["a=number", "b=exakt"], {}, "no judge is called 'exakt'; nearest: exact"),
        ({"a b": "number"}, {}, "expected names of letters"),
        ({"a": ("number", "much")}, {}, "a pair of a judge and its weight"),
        (3, {}, "expected a judge by name"),
        (None, {"tolerance": 1}, "no judge: choose one"),
        (["a=number", "b=exact"], {"tolerance": 1}, "say which one is meant, as in a.tolerance=..."),
        (["a=number", "b=exact"], {"c.tolerance": 1}, "there are several judges (a, b)"),
        (["a=number", "b=exact"], {"b.tolerance": 1}, "judge 'exact' has no option 'tolerance'"),
        ("number", {"tolerance": "much"}, "option tolerance is 'much', expected a number"),
        ("my.py:even", {"bonus": 1}, "cannot be called as even(prompt, response, answer, bonus=...)"),
    ],
)
def test_what_cannot_be_is_refused(judge: Any, options: dict[str, Any], said: str, place: Path) -> None:
    with pytest.raises(UserError) as error:
        judge_spec(judge, options)
    assert said in str(error.value)


def test_options_are_read_by_their_types(place: Path) -> None:
    assert typed("number", {"tolerance": "1e-2"}) == {"tolerance": 0.01}
    assert typed("exact", {"ignore_case": "true"}) == {"ignore_case": True}
    assert typed("regex", {"pattern": "12"}) == {"pattern": "12"}
    assert typed("my.py:f", {"a": "3", "b": "0.5", "c": "False", "d": "none", "e": "[1]", "f": "x"}) == {
        "a": 3, "b": 0.5, "c": False, "d": None, "e": "[1]", "f": "x",
    }  # fmt: skip


# What they say together ----------------------------------------------------------------------------------------------


def together(**judges: Any) -> Any:
    """The judges, each given as a function that returns a result and a weight."""
    made = {name: (lambda e, r, f=f: read_result(f(r))) for name, (f, _) in judges.items()}
    specs = {name: {"judge": name, "weight": weight} for name, (_, weight) in judges.items()}
    return weighted_judge(specs, lambda name, options: made[name])


def test_scores_are_summed_by_weight_and_each_is_a_part() -> None:
    judge = together(good=(lambda r: {"score": 0.5, "formatted": True, "reason": "so"}, 2.0), long=(len, -0.1))
    found = judge(example(), "abc")
    assert found.score == pytest.approx(2 * 0.5 - 0.3)
    assert found.parts == {"good": 0.5, "long": 3.0}
    assert (found.correct, found.formatted) == (False, True), "as the first one says"
    assert found.reason == "good: so; long: score 3"
    assert judge.columns == ("component[good]", "component[long]")


def test_the_one_called_correct_says_what_is_correct() -> None:
    assert together(brief=(lambda r: 0, 1.0), correct=(lambda r: 1, 1.0))(example(), "").correct
    assert not together(brief=(lambda r: 0, 1.0), right=(lambda r: 1, 1.0))(example(), "").correct


def test_one_that_does_not_apply_does_not_count() -> None:
    found = together(a=(lambda r: None, 5.0), b=(lambda r: 0.5, 2.0))(example(), "")
    assert found.score == 1.0 and found.applies and found.rewarded
    assert math.isnan(found.parts["a"]) and found.parts["b"] == 0.5
    nothing = together(a=(lambda r: None, 5.0), b=(lambda r: {"score": None}, 2.0))(example(), "")
    assert math.isnan(nothing.score) and not nothing.applies and not nothing.rewarded and not nothing.failed


def test_one_that_fails_fails_the_whole_and_is_named() -> None:
    with pytest.raises(BadResult, match=r"^b returned 'x', expected a number"):
        together(a=(lambda r: 1, 1.0), b=(lambda r: "x", 1.0))(example(), "")
    with pytest.raises(BadResult, match="gave a part 'b', which is the name of one of several judges"):
        together(a=(lambda r: {"score": 1, "parts": {"b": 1}}, 1.0), b=(lambda r: 1, 1.0))(example(), "")


def test_async_ones_lists_and_plain_ones_in_one_pass() -> None:
    calls = []

    async def later(e: Example, r: str) -> Verdict:
        return read_result(len(r))

    def plain(e: Example, r: str) -> Verdict:
        calls.append(r)
        return read_result({"score": 1} if r != "bad" else "x")

    def lists(items: Any) -> list[float]:
        calls.append(len(items))
        return [0.5] * len(items)

    made = {"a": in_flight(later), "b": plain, "c": of_lists(lists, read_result)}
    judge = weighted_judge({name: {"judge": name, "weight": 1.0} for name in made}, lambda name, options: made[name])
    found = list(judge.many([(example(), r) for r in ("xy", "bad", "")], 5.0))
    assert [found[0].score, found[2].score] == [3.5, 1.5] and isinstance(found[1], BadResult)
    assert calls == [3, "xy", "bad", ""], "lists come once, and before the clock of another one runs"
    assert judge.together


def test_in_a_worker_with_the_columns_of_the_row(place: Path) -> None:
    task = load_task("data.jsonl", judge=["correct=number", "brief=my.py:brevity:0.5", "my.py:even"])
    assert task.judge is not None
    rows = {e.answer: e for e in [*task.train, *task.heldout]}
    assert rows["6"].meta == {"difficulty": 6}
    with JudgePool(task.judge) as pool:
        two = pool([(rows["6"], "6"), (rows["7"], "8!")])
        assert pool.provides >= {"component[correct]", "component[brief]", "component[even]"}
    assert two[0].score == 1 + 0.5 * 6 / 2 + 1 and two[0].correct
    assert two[1].score == pytest.approx(0.5 * 7 / 3) and math.isnan(two[1].parts["even"])


def test_a_row_that_one_of_them_cannot_judge_is_named(place: Path) -> None:
    write_rows(place / "words.jsonl", ({"prompt": f"{i}?", "answer": "two"} for i in range(8)))
    with pytest.raises(UserError, match=r"words.jsonl, line 1: correct: judge 'number' needs a number"):
        load_task("words.jsonl", judge=["correct=number", "brief=my.py:brevity"])


# In a run ------------------------------------------------------------------------------------------------------------


def test_from_the_line_to_the_log_and_back(tiny_model: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = caller(capsys)
    judges = ("--judge", "correct=number:1.0", "--judge", "brief=my.py:brevity:0.2", "--judge", "my.py:even")
    options = ("--judge-options", "correct.tolerance=0.5", "brief.difficulty=3")
    line = (
        "train",
        "dr-grpo",
        "--model",
        tiny_model,
        "--task",
        "data.jsonl",
        *judges,
        *options,
        *QUICK,
        "--out",
        "run",
    )
    assert call(*line, "--recipe.advantage", "Decoupled", "--steps", 2).code == 0
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["judge"] == [
        "correct=number:1.0",
        f"brief={place / 'my.py'}:brevity:0.2",
        f"even={place / 'my.py'}:even:1.0",
    ]
    assert config["judge_options"] == {"correct.tolerance": "0.5", "brief.difficulty": "3"}
    assert config["recipe"]["advantage"]["part"] == "Decoupled" and config["recipe"]["advantage"]["weights"] == []
    assert config["recipe"]["advantage"]["inner"]["scale"] == "none", "what stood there is taken in"
    for row in lines(Path("run/metrics.jsonl")):
        if row["step"]:
            assert {"component/correct", "component/brief"} <= row.keys()
    assert call("train", "dr-grpo", "--resume", "run", "--recipe.advantage", "Decoupled", "--steps", 3).code == 0
    other = call("train", "--resume", "run", "--judge", "number")
    assert other.code == 2 and "--resume run: that run has judge" in other.words
    said = call(
        "eval",
        "--model",
        tiny_model,
        "--task",
        "data.jsonl",
        *judges,
        "--prompts",
        2,
        "--samples",
        0,
        "--max-tokens",
        4,
    )
    assert said.code == 0
    said = call("sample", "--model", tiny_model, "--task", "data.jsonl", *judges, "--questions", 1, "--max-tokens", 4)
    assert said.code == 0 and "brief: score" in said.out


def test_weights_of_the_line_replace_those_of_a_file(
    tiny_model: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from policyopt.cli.train import parse_config

    Path("c.yaml").write_text(
        "judge:\n  correct: number:1.0\n  brief: my.py:brevity:0.2\njudge_options: {correct.tolerance: 1}\n"
    )
    method = po.get_method("grpo")
    config, _ = parse_config(method, ["--config", "c.yaml"])
    assert config.judge == ("correct=number:1.0", f"brief={place / 'my.py'}:brevity:0.2")
    config, _ = parse_config(method, ["--config", "c.yaml", "--judge", "a=exact", "--judge", "b=number:3"])
    assert config.judge == ("a=exact:1.0", "b=number:3.0")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--recipe.advantage", "Decupled"), "nearest: Decoupled"),
        (("--recipe.advantage", "TokenMean"), "--recipe.advantage TokenMean"),
        (("--recipe.advantage",), "--recipe.advantage needs a part"),
        (("--judge", "a=number", "--judge", "a=exact"), "two judges are called 'a'"),
        (("--judge", "number", "--judge-options", "tolerance"), "expected NAME=VALUE"),
    ],
)
def test_lines_that_cannot_be(
    line: tuple[str, ...], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = caller(capsys)("train", "grpo", "--task", "data.jsonl", *line)
    assert found.code == 2 and said in found.words


def test_a_reward_that_is_shaped_must_be_weighed(
    tiny_model: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "train",
        "dapo",
        "--model",
        tiny_model,
        "--task",
        "data.jsonl",
        "--judge",
        "a=number",
        "--judge",
        "my.py:even",
        *QUICK,
    )
    said = caller(capsys)(*line, "--recipe.advantage", "Decoupled", "--steps", 1)
    assert said.code == 2 and "would not see what Correctness, LengthReward in shape makes of it" in said.words
    assert "now a 1 even 1" in said.words
