"""Claims put to the test: what decides, what is run once for several, what is recorded."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from policyopt.claims import Claim, Effect, recorded
from policyopt.cli.replicate import page, trial
from policyopt.comparing import runner
from policyopt.comparing.grid import Contender
from policyopt.comparing.replicate import Trial, all_of, outcome, replication, run_trials, verdict
from policyopt.comparing.replications import Finding, Replication, markdown, read_replications, record
from policyopt.comparing.results import Interval
from policyopt.comparing.runner import CELLS
from policyopt.comparing.testbeds import need_testbed
from policyopt.data import Task, load_task
from policyopt.errors import UserError
from policyopt.judging.judges import make_judge
from policyopt.methods import dr_grpo, grpo
from policyopt.registry import methods
from policyopt.training.logging import RunRecord
from policyopt.training.rows import check_filled
from policyopt.training.run import check_source
from tests.commands import Said
from tests.comparing.grids import made_run, small
from tests.tiny import write_task


@pytest.mark.parametrize(
    ("direction", "least", "low", "high", "said"),
    [
        ("higher", 0.02, 0.02, 0.1, "supported"),
        ("higher", 0.02, 0.01, 0.1, "undecided"),
        ("higher", 0.02, -0.1, 0.01, "not supported"),
        ("lower", 0.02, -0.1, -0.03, "supported"),
        ("lower", 0.02, -0.1, 0.0, "undecided"),
        ("lower", 0.02, -0.01, 0.3, "not supported"),
        ("higher", -0.03, -0.02, 0.0, "supported"),
        ("higher", -0.03, -0.2, -0.04, "not supported"),
        ("higher", 0.0, float("nan"), float("nan"), "undecided"),
    ],
)
def test_an_effect_is_where_its_whole_interval_is(
    direction: str, least: float, low: float, high: float, said: str
) -> None:
    effect = Effect("accuracy", direction, least)  # type: ignore[arg-type]
    assert verdict(effect, Interval((low + high) / 2, low, high)) == said


def test_a_claim_needs_all_of_its_effects() -> None:
    assert all_of(["supported", "supported"]) == "supported"
    assert all_of(["supported", "undecided"]) == "undecided"
    assert all_of(["undecided", "not supported"]) == "not supported"
    assert outcome([], [], 0) == "not run yet"
    finding = Finding("x", "higher", 0.0, "number", 1.0, 0.0, Interval(1, 1, 1), "supported")
    assert outcome([finding], ["the other was not measured"], 3) == "undecided"


def made(model: Path, claim: Claim, name: str = "dr-grpo", **changes: Any) -> Trial:
    ours = Contender(name, small(model, recipe=dr_grpo(group_size=4), **changes))
    return Trial(name, claim, ours, Contender("grpo", small(model, recipe=grpo(group_size=4), **changes)))


CLAIM = Claim("It does better.", "chain_sum", (Effect("accuracy", "higher", 0.1), Effect("length", "lower", 1.0)))


def test_a_claim_is_decided_by_its_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = made(tmp_path, CLAIM)
    right: Mapping[str, list[bool]] = {"grpo": [True] * 10 + [False] * 30, "dr-grpo": [True] * 36 + [False] * 4}
    runs: dict[str, RunRecord] = {}
    for cell in found.grid((0, 1, 2)).opening():
        lengths = [5.0 + (cell.contender == "grpo") * 3 + cell.seed % 2 for _ in range(40)]
        runs[cell.folder] = made_run([0.2, 0.5], correct=right[cell.contender], lengths=lengths)
    monkeypatch.setattr(runner, "read_summary", lambda path: runs[path.parent.name].summary)
    monkeypatch.setattr(runner, "read_run", lambda folder: runs[folder.name])
    got = replication(found, (0, 1, 2), tmp_path)
    assert (got.verdict, got.seeds, got.against) == ("supported", 3, "grpo")
    accuracy, length = got.effects
    assert accuracy.difference.mean == pytest.approx(0.65) and (accuracy.ours, accuracy.theirs) == (0.9, 0.25)
    assert length.difference.mean == pytest.approx(-3) and length.verdict == "supported"
    assert got.minutes == pytest.approx(6 * 5 / 60)


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    got = replication(made(tmp_path, CLAIM), (0, 1), tmp_path)
    assert (got.verdict, got.reason) == ("not run yet", "no seed of both is finished; no seed of both is finished")
    beyond = Trial("x", Claim("It needs more.", beyond="a large model"))
    assert replication(beyond, (0, 1), tmp_path) == Replication(
        "x", "It needs more.", "cannot show here", reason="a large model"
    )


@pytest.mark.usefixtures("warm")
def test_runs_that_claims_share_are_carried_out_once(tiny_model: Path, tmp_path: Path) -> None:
    claim = Claim("It does better.", "chain_sum", (Effect("entropy", "higher", 0.0),))
    task = write_task(tmp_path / "task")
    trials = [made(tiny_model, claim, **task), made(tiny_model, claim, "other", **task)]
    told: list[int] = []
    failed = run_trials(
        trials, {"dr-grpo": (0, 1), "other": (0, 1)}, tmp_path, jobs=2, tell=lambda p: told.append(p.total)
    )
    assert failed == {} and told[0] == 6 and len(list((tmp_path / CELLS).iterdir())) == 6
    got = replication(trials[0], (0, 1), tmp_path)
    assert got.seeds == 2 and got.effects[0].metric == "entropy"


def test_a_record_keeps_what_was_seen_of_more_seeds(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    effect = Finding("accuracy", "higher", 0.01, "percent", 0.5, 0.4, Interval(0.1, 0.05, 0.15), "supported")
    five = Replication("a", "A | b.", "supported", "chain_sum", "grpo", 5, 1.5, (effect,))
    record([five, Replication("b", "B.", "not run yet")], path)
    assert list(recorded(path)) == ["a"]
    record([Replication("a", "A.", "undecided", "chain_sum", "grpo", 2)], path)
    assert read_replications(recorded(path)) == [five]
    record([Replication("a", "New.", "undecided", "chain_sum", "grpo", 5)], path)
    assert read_replications(recorded(path))[0].says == "New."
    text = markdown([five], "# About")
    assert "1 supported." in text
    assert (
        "| `a` | A \\| b. | chain_sum, grpo | accuracy 40.0 % → 50.0 %: +10.0 points (+5.0 to +15.0; at least +1.0) | 5, 1.5 |"
        in text
    )


def test_a_record_that_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"a": NaN}')
    with pytest.raises(UserError, match=r"record\.json"):
        record([Replication("b", "B.", "undecided", "chain_sum", "grpo", 5)], path)
    assert path.read_text() == '{"a": NaN}'


def test_the_page_of_claims_is_that_of_the_record() -> None:
    assert (Path(__file__).parents[2] / "docs/replication.md").read_text() == page()


def test_the_record_is_of_the_claims_as_they_stand() -> None:
    for name, row in recorded().items():
        claim = methods()[name].claim
        assert claim is not None and row["says"] == claim.says, f"{name}: replicate it again"
        assert [(e["metric"], e["direction"], e["least"]) for e in row["effects"]] == [
            (e.metric, e.direction, e.least) for e in claim.effects
        ] or row["reason"], f"{name}: replicate it again"


def test_a_trial_has_the_settings_of_its_claim() -> None:
    found = trial("dr-grpo")
    assert found.ours is not None and found.theirs is not None
    assert found.ours.config.steps == found.theirs.config.steps
    assert found.ours.config.task == found.theirs.config.task == "biased-length"


def test_a_trial_evaluates_what_its_claim_speaks_of() -> None:
    shapes = {
        name: (found.config.eval.samples, found.config.eval.every)
        for name in ("pass-at-k", "gspo", "dr-grpo") if (found := trial(name).ours) is not None
    }  # fmt: skip
    assert shapes == {"pass-at-k": (4, 0), "gspo": (0, 8), "dr-grpo": (0, 0)}


def test_every_claim_can_be_put_to_the_test() -> None:
    """The method finds what it reads in the texts, the environment and the judge of the testbed."""
    refused = []
    for name, method in methods().items():
        claim = method.claim
        if claim is None or claim.beyond:
            continue
        options = {k.replace("-", "_"): v for k, v in {**claim.both, **claim.ours}.items()}
        recipe = method(**{k: v for k, v in options.items() if k in method.hyperparameters})
        task = _loaded(need_testbed(claim.testbed).task)
        try:
            check_source(recipe, task)
            if task.judge is not None and task.environment is None:
                columns = getattr(make_judge(task.judge), "columns", ())
                check_filled(recipe, task.judge.name, frozenset({"correct", "formatted", *columns}))
        except UserError as error:
            refused.append(f"{name}: {error}")
    assert not refused


@functools.cache
def _loaded(name: str) -> Task:
    return load_task(name, heldout=2)


def test_bad_lines_are_refused(command: Callable[..., Said]) -> None:
    one = command("replicate", "dr-grpo", "--seeds", "1")
    assert one.code == 2 and "one seed says nothing" in one.err
    unknown = command("replicate", "dr-grpoo")
    assert unknown.code == 2 and "dr-grpo" in unknown.err


def test_without_a_method_the_record_is_shown(command: Callable[..., Said]) -> None:
    said = command("replicate")
    assert said.code == 0 and ("supported" in said.out or "no claim was put to the test yet" in said.out)
    as_json = command("replicate", "ppe", "--collect", "--json")
    assert json.loads(as_json.out)["ppe"]["verdict"] == "cannot show here"
