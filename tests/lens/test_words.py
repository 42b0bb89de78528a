"""What the words of some cases mean, where the cases of the checkout do not tell it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from policyopt.lens.case_files import read_cases
from policyopt.lens.verify import verify_file

CASES = Path(__file__).parents[1] / "cases"


def case(method: str, number: int = 0) -> dict[str, Any]:
    """A case of the checkout."""
    found: dict[str, Any] = json.loads((CASES / f"{method}.json").read_text())[number]
    return found


def passes(raw: dict[str, Any], folder: Path) -> None:
    """Hold the library against a case, every key of it."""
    file = folder / f"{raw['id']}.json"
    file.write_text(json.dumps([raw]))
    assert len(read_cases(file)) == 1
    [outcome] = verify_file(file)
    assert outcome.status == "pass", str(outcome)
    assert [d.key for d in outcome.details] == list(raw["expect"])


def test_a_token_of_a_tool_inside_a_response_cuts_nothing_off(tmp_path: Path) -> None:
    raw = case("arpo-agentic", 1)
    raw["given"]["mask"][2] = [1, 1, 0, 1, 1]
    raw["expect"]["advantage"][2][2] = 0.0
    passes(raw, tmp_path)


def test_a_rescued_row_is_counted_over_the_whole_case(tmp_path: Path) -> None:
    raw = case("scaf-grpo")
    given, expect = raw["given"], raw["expect"]
    given["group"] = [{0: 1, 1: 0}.get(g, g) for g in given["group"][2:4] + given["group"][:2] + given["group"][4:]]
    given["hint_group"] = [1 - g for g in given["hint_group"]]
    expect["chosen_level"], expect["replaced_row"] = [None, 3, None], [None, 2, None]
    for name in ("reward", "advantage"):
        x = expect[name]
        expect[name] = x[2:4] + x[:2] + x[4:]
    passes(raw, tmp_path)


def test_progress_is_known_beside_an_advantage_and_for_several_thoughts(tmp_path: Path) -> None:
    one = case("mrt")
    thought, gained = one["given"]["success_prob"], one["expect"]["progress"]
    several = case("mrt")
    several["given"] |= {"success_prob": [thought, [0.5, 0.25]], "outcome": [1.0, 0.0]}
    several["expect"] = {"progress": [gained, [-0.25]], "reward": [1.375, -0.125], "telescoped": [0.75, -0.25]}
    passes(several, tmp_path)
    beside = case("mrt", 1)
    beside["given"] |= {
        "group": [0, 0], "reward": [1.0, 0.0], "success_prob": [thought, [0.5, 0.25]], "params": {"alpha": 0.5},
    }  # fmt: skip
    beside["expect"] = {"progress": [gained, [-0.25]], "advantage": [1.125, -0.375]}
    passes(beside, tmp_path)


def test_the_base_of_xrpo_is_the_advantage_before_it_is_raised(tmp_path: Path) -> None:
    raw = case("xrpo", 1)
    raw["given"]["params"] |= {"base": 4, "group_size": 4}
    raw["expect"]["base"] = raw["expect"]["base_advantage"]
    passes(raw, tmp_path)
