"""The library against numeric cases that were worked out without it, and the runner of such cases."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyopt.cli.verify import run as verify_command
from policyopt.errors import UserError
from policyopt.lens.case_files import case_files, read_cases
from policyopt.lens.verify import Outcome, compare, verify_file
from policyopt.registry import entries

FILES = case_files([Path(__file__).parents[1] / "cases"])
CASES = {f"{raw['id']}: {raw['case']}": (path, raw) for path in FILES for raw in read_cases(path)}
EVERY_CASE = pytest.mark.parametrize("name", CASES)

Case = dict[str, Any]
Verify = Callable[[Any], Outcome]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """Write one case to a file and verify it."""

    def run(case: Any) -> Outcome:
        file = tmp_path / "changed.json"
        file.write_text(json.dumps([case]))
        return verify_file(file)[0]

    return run


def public(name: str) -> Case:
    """A copy of the first case whose name begins so."""
    return copy.deepcopy(next(raw for key, (_, raw) in CASES.items() if key.startswith(name)))


@EVERY_CASE
def test_case_passes(name: str) -> None:
    path, raw = CASES[name]
    outcome = verify_file(path)[raw["number"]]
    assert outcome.status == "pass", str(outcome)
    assert [d.key for d in outcome.details] == list(raw["expect"])


def test_every_file_of_cases_is_of_something_in_the_library() -> None:
    assert {path.stem for path in FILES} <= {e.name for e in entries()}


@EVERY_CASE
def test_numbers_that_are_off_by_1e_5_fail(name: str, verify: Verify) -> None:
    case = copy.deepcopy(CASES[name][1])
    wrong = [key for key, x in case["expect"].items() if any(numbers(x))]
    expected = ""
    for key in wrong:
        holder: Any = case["expect"]
        place: Any = key
        while isinstance(holder[place], list | dict):  # down to the first number that is not 0
            holder = holder[place]
            entries = holder.items() if isinstance(holder, dict) else enumerate(holder)
            place = next(i for i, x in entries if any(numbers(x)))
        holder[place] += 1e-5 * max(abs(holder[place]), 1e-3)  # what the tolerance is relative to
        expected = expected or f"expected {holder[place]}"
    outcome = verify(case)
    assert outcome.status == ("fail" if wrong else "pass")
    assert [d.key for d in outcome.details if not d.ok] == wrong
    assert not wrong or (wrong[0] in outcome.reason and expected in outcome.reason)


def numbers(x: Any) -> list[float]:
    inside = x.values() if isinstance(x, dict) else x
    if isinstance(x, list | dict):
        return [n for y in inside for n in numbers(y)]
    return [] if isinstance(x, str) else [x]


def test_a_result_of_another_shape_fails(verify: Verify) -> None:
    case = public("grpo: outcome")
    case["expect"]["dloss_dlogp"].pop()
    outcome = verify(case)
    assert outcome.status == "fail"
    assert "dloss_dlogp: expected 3 entries, got 4 entries" in outcome.reason


def test_an_advantage_that_differs_in_a_row_is_no_number_per_row(verify: Verify) -> None:
    case = public("remax: released")
    case["expect"] = {"advantage": [row[0] for row in case["expect"]["advantage"]]}
    assert verify(case).status == "fail"


def test_small_numbers_are_held_to_an_absolute_error() -> None:
    assert compare("x", 0.0, 0.9e-9).ok
    assert not compare("x", 0.0, 1.1e-9).ok
    assert not compare("x", [1.0, 2.0], [1.0, math.nan]).ok
    assert compare("x", [1.0, 2.0], [1.0, 2.1]).at == "[1]"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(id="grpoo"), "nothing is called 'grpoo'; nearest: .*grpo"),
        (lambda c: c["given"]["params"].update(sharpness=2), "params sharpness: neither the method nor its parts"),
        (lambda c: c["given"]["params"].update(aggregate="median"), "'median' is none of token-mean"),
        (lambda c: c["given"]["params"].update(ddof=3), "recipe is refused.*ddof"),
        (lambda c: c["given"]["params"].update(clip_low=-0.2), "recipe is refused.*low"),
        (lambda c: c["given"].update(planner=[1, 2, 3, 4]), "given planner: no column of this name"),
        (lambda c: c["given"].pop("logp"), "loss takes a column that the case does not give"),
        (lambda c: c["given"].update(reward=[[1], [2], [3], [4]]), "given reward has 2 dimensions"),
        (lambda c: c["given"].update(mask=[1, 1, 1, 0]), "given mask has 1 dimensions"),
        (lambda c: c["expect"].update(planner_loss=0.5), "expects planner_loss: nothing computes"),
        (lambda c: c["expect"].update(dloss_dvalue=[]), "a gradient with respect to value"),
    ],
)
def test_what_has_no_meaning_here_is_unsupported(change: Callable[[Case], Any], reason: str, verify: Verify) -> None:
    case = public("grpo: outcome")
    change(case)
    outcome = verify(case)
    assert outcome.status == "unsupported"
    assert re.search(reason, outcome.reason, re.DOTALL), outcome.reason


def test_a_wrong_number_beside_an_unknown_key_fails(verify: Verify) -> None:
    case = public("grpo: outcome")
    case["expect"] |= {"loss": 5.0, "planner_loss": 0.5}
    assert verify(case).status == "fail"


def test_a_parameter_of_something_switched_off_is_no_obstacle(verify: Verify) -> None:
    case = public("rloo")
    case["given"]["params"] |= {"kl_coef": 0.0, "kl": "k3", "dual_clip": None, "sft_coef": 0.0}
    case["expect"] = {"shaped_reward": case["given"]["reward"], "kl": case["expect"]["kl"]}
    assert verify(case).status == "pass"


def centred(c: Case) -> list[float]:
    return [r - c["given"]["params"]["constant"] for r in c["given"]["reward"]]


def ratios(c: Case) -> list[list[float]]:
    g = c["given"]
    rows = zip(g["logp"], g["old_logp"], g["mask"], strict=True)
    return [[m * math.exp(new - old) for new, old, m in zip(*row, strict=True)] for row in rows]


@pytest.mark.parametrize(
    ("name", "params", "key", "expected"),
    [
        ("reinforce: batch", {"baseline": "constant", "constant": 0.4}, "advantage", centred),
        ("reinforce: batch", {"baseline": "none"}, "advantage", lambda c: c["given"]["reward"]),
        ("reinforce: moving", {"init": 0.5, "momentum": 1.0}, "baseline_used", lambda c: [0.5, 0.5, 0.5]),
        ("cispo: both", {"clip_low": None, "clip_high": None}, "weight", ratios),
        ("dr-grpo", {"loss_norm": 16}, "loss", lambda c: c["expect"]["loss"] / 2),
        ("dr-grpo", {"loss_norm": None, "max_length": 16}, "loss", lambda c: c["expect"]["loss"] / 2),
        ("luspo: two", {"clip_low": None}, "sequence_ratio", lambda c: c["expect"]["sequence_ratio"]),
        ("ppo: clipped", {"vf_coef": 0.0}, "loss", lambda c: c["expect"]["policy_loss"]),
        ("ppo: token", {"kl_coef": 0.0, "kl": None}, "shaped_reward", lambda c: c["given"]["reward"]),
        ("ppo: token", {"whiten": False}, "advantage", lambda c: c["expect"]["advantage_raw"]),
        ("ppo: adaptive", {"init": 0.0}, "kl_coef", lambda c: [0.0] * 5),
        ("remax: released", {"reward_clip": None, "gamma": 1, "kl_coef": 0}, "advantage",
         lambda c: [[m * gain for m in row] for row, gain in zip(c["given"]["mask"], [7.5, -1.2, -0.5])]),
    ],
)  # fmt: skip
def test_other_values_and_nulls(
    name: str, params: dict[str, Any], key: str, expected: Callable[[Case], Any], verify: Verify
) -> None:
    case = public(name)
    case["given"]["params"] |= params
    case["expect"] = {key: expected(case)}
    outcome = verify(case)
    assert outcome.status == "pass", str(outcome)


def test_where_every_group_is_dropped_nothing_is_left(verify: Verify) -> None:
    case = public("dapo: filter")
    case["given"]["correct"] = [0] * 6
    zeros = [[0.0] * 5] * 6
    case["expect"] = {"keep": [0] * 6, "advantage": [0.0] * 6, "loss": 0.0, "dloss_dlogp": zeros}
    assert verify(case).status == "pass"


def test_groups_may_be_numbered_and_ordered_in_any_way(verify: Verify) -> None:
    case = public("rloo")
    order = [4, 0, 1, 5, 2, 3]
    for columns in (case["given"], case["expect"]):
        for key, x in columns.items():
            if isinstance(x, list):
                columns[key] = [x[i] for i in order]
    case["given"]["group"] = [{0: 17, 1: "a"}[g] for g in case["given"]["group"]]
    assert verify(case).status == "pass"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("expect"), "expect: expected an object, got nothing"),
        (lambda c: c.update(expect={}), "expect: empty"),
        (lambda c: c.update(what="lost"), "what: expected one of .*, got 'lost'"),
        (lambda c: c["given"].update(params=[1]), "given.params: expected an object, got list"),
        (lambda c: c["given"]["reward"].pop(), "given: columns differ in their number of rows: reward 3, mask 4"),
        (lambda c: c["given"].update(group=3), "given.group: expected a list, got int"),
        (lambda c: c["given"].update(mask=3), "given.mask: expected a list with one entry per row, got int"),
        (lambda c: c["given"]["mask"][1].__setitem__(2, 2), "given.mask: expected 0 and 1 only"),
        (lambda c: c["given"]["reward"].__setitem__(2, "high"), r"given.reward\[2\]: expected a number, got 'high'"),
        (lambda c: c["given"]["reward"].__setitem__(2, None), r"given.reward\[2\]: expected a number, got null"),
        (lambda c: c["given"]["logp"][2].__setitem__(1, "x"), r"given.logp\[2\]\[1\]: expected a number, got 'x'"),
        (lambda c: c["given"]["logp"][2].__setitem__(1, None), r"given.logp\[2\]\[1\]: no number, but the mask"),
        (lambda c: c["given"]["logp"].__setitem__(2, 4), r"given.logp\[2\]: expected a list as in row 0"),
        (lambda c: c["given"]["logp"][0].append(1.0), "given.logp: 6 tokens in a row, but the mask has 5"),
        (lambda c: c["given"]["logp"][0].pop(), r"given.logp\[0\]\[4\]: no number"),
        (lambda c: c["given"].update(step_reward=[[1.0]] * 4), "given.step_end: expected one entry for each"),
    ],
)  # fmt: skip
def test_a_malformed_case_is_refused_by_file_case_and_field(
    change: Callable[[Case], Any], message: str, verify: Verify
) -> None:
    case = public("grpo: outcome")
    change(case)
    with pytest.raises(UserError, match=rf"changed.json: case 0 \(outcome supervision\): {message}"):
        verify(case)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "not JSON"),
        ('{"id": 1}', "expected a list of cases, got dict"),
        ("[3]", "case 0: expected an object, got int"),
    ],
)
def test_a_file_that_holds_no_cases_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(UserError, match=f"bad.json.*{message}"):
        verify_file(file)


def test_paths_that_hold_no_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        case_files([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=re.escape("no *.json in this folder")):
        case_files([tmp_path])
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        verify_file(tmp_path / "nowhere")


def test_words_of_a_folder_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = public("grpo: outcome")
    case["given"]["points"] = case["given"].pop("reward")
    file, words = tmp_path / "grpo.json", tmp_path / "mine"
    file.write_text(json.dumps([case]))
    words.mkdir()
    (words / "grpo.py").write_text('COLUMNS = {"points": ("reward", "row")}\n')
    assert verify_command([str(file)]) == 0
    assert "given points: no column of this name" in capsys.readouterr().out
    assert verify_command([str(file), "--words", str(words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "pass"


def test_a_folder_of_words_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--words .*nowhere: no such folder; leave --words out"):
        verify_command([str(FILES[0]), "--words", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="--words: expected a folder, got nothing"):
        verify_command([str(FILES[0]), "--words"])


def test_a_case_told_in_columns_runs_as_a_batch_does(tmp_path: Path) -> None:
    case = public("grpo: outcome")
    case["given"]["points"] = [10 * r for r in case["given"].pop("reward")]
    case["expect"] |= {"points": sum(case["given"]["points"])}
    file, words = tmp_path / "grpo.json", tmp_path / "mine"
    words.mkdir()
    (words / "grpo.py").write_text(
        "def told(given):\n"
        "    rest = {k: v for k, v in given.items() if k != 'points'}\n"
        "    return rest | {'reward': [p / 10 for p in given['points']]}\n"
        "GIVEN = {'loss': told}\n"
        "KEYS = {'points': lambda run: sum(run.asked['points'])}\n"
    )
    file.write_text(json.dumps([case]))
    outcome = verify_file(file, words)[0]
    assert outcome.status == "pass", outcome.reason
    del case["given"]["points"]
    file.write_text(json.dumps([case]))
    assert verify_file(file, words)[0].reason == "the case gives no 'points'"


def test_rows_that_are_not_selected_have_no_part_in_the_loss(verify: Verify) -> None:
    case = public("guide: replace")
    superseded = [i for i, used in enumerate(case["expect"]["used_row"]) if not used]
    assert superseded
    for i in superseded:
        case["given"]["logp"][i] = [x - 1 for x in case["given"]["logp"][i]]
    assert verify(case).status == "pass"


def test_words_that_cannot_read_a_case_leave_it_unsupported(verify: Verify) -> None:
    case = public("xrpo: rollout allocator")
    case["given"]["rewards_so_far"] = "many"
    assert verify(case).status == "unsupported"
