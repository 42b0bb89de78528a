"""What is seen in the log of a run: every symptom in a log that has it, none in one that is well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import policyopt as po
from policyopt.cli import main
from policyopt.cli.train import parse_config
from policyopt.comparing.advise import diagnosis, show
from policyopt.comparing.advise.condition import COURSE, Condition, best, course, end, start
from policyopt.comparing.advise.symptoms import SYMPTOMS, symptom
from policyopt.comparing.replications import Finding, Replication, to_json
from policyopt.comparing.results import Interval
from policyopt.comparing.runner import CELLS
from policyopt.errors import UserError
from policyopt.notebook import html_of
from policyopt.registry import entries, get_method
from policyopt.training.logging import read_run
from policyopt.training.run import run
from tests.commands import Said, write_sums
from tests.runs import tiny_run
from tests.test_docs import described

STEPS = 40
WELL: dict[str, Any] = {
    "accuracy": (0.4, 0.7), "reward/mean": (0.4, 0.7), "reward/std": (0.49, 0.46), "format": (0.9, 1.0), "entropy": (0.6, 0.4),
    "length/mean": (100.0, 125.0), "length/truncated": (0.05, 0.02), "signal/groups": (0.9, 0.7), "filtered": (0.0, 0.1),
    "kl/ref": (0.0, 0.03), "grad_norm": (0.4, 0.2), "mismatch/mean": (1e-6, 1e-6), "clip_fraction/low": (0.05, 0.1),
    "clip_fraction/high": (0.05, 0.1), "update/skipped": (0, 0), "judge/failed": (0, 0), "responses": (128, 128),
    "staleness/mean": (1.0, 1.0), "eval/accuracy": (0.42, 0.75), "eval/pass@4": (0.7, 0.85),
}  # fmt: skip
"""A run that learns: each metric from its first to its last step, on a line."""


def write(folder: Path, steps: int = STEPS, config: Any = None, **changes: Any) -> Path:
    """The folder of a run whose metrics go as in a sound one, but for some: from a to b, or each step's own."""
    rows: list[dict[str, Any]] = [{"step": i} for i in range(1, steps + 1)]
    for name, values in (WELL | changes).items():
        if values is None:
            continue
        line = values if isinstance(values, list) else [float(x) for x in np.linspace(*values, steps)]
        for i, value in enumerate(line):
            if not name.startswith("eval/") or i % 10 == 0:
                rows[i][name] = value
    ends = {n.removeprefix("eval/"): r[1] for n, r in (WELL | changes).items() if n.startswith("eval/") and r}
    folder.mkdir(parents=True)
    config = {"recipe": {"name": "grpo"}, "task": "chain_sum"} if config is None else config
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"steps": steps, "after": ends}))
    return folder


def seen(folder: Path, **changes: Any) -> list[str]:
    """The symptoms of such a run."""
    return [s.symptom.name for s in diagnosis.diagnose(read_run(write(folder, **changes))).seen]


def spike(at: int, high: float, low: float = 0.3) -> list[float]:
    return [high if i == at else low for i in range(STEPS)]


FLAT = {"accuracy": (0.5, 0.51), "reward/mean": (0.5, 0.51)}
"""A run that does not learn, whose policy moves all the same."""

SICK: list[tuple[str, dict[str, Any], set[str]]] = [
    ("not-finite", {"update/skipped": [0.0] * 20 + [1.0] + [0.0] * 19}, set()),
    ("judge-fails", {"judge/failed": (2, 2)}, set()),
    ("mismatch", {"mismatch/mean": (0.001, 0.03)}, set()),
    ("nothing-right", {"accuracy": (0.0, 0.0), "reward/mean": (0.0, 0.0), "signal/groups": (0.0, 0.0)}, set()),
    ("rare-success", {"accuracy": (0.02, 0.08), "reward/mean": (0.02, 0.08), "signal/groups": (0.1, 0.25)}, set()),
    ("groups-alike", {"signal/groups": (0.9, 0.1)}, set()),
    ("thrown-away", {"filtered": (0.3, 0.8)}, set()),
    ("bad-format", {"format": (0.5, 0.4)}, set()),
    ("truncated", {"length/truncated": (0.02, 0.3)}, set()),
    ("too-long", FLAT | {"length/mean": (100.0, 200.0)}, set()),
    ("too-short", {"accuracy": (0.5, 0.4), "reward/mean": (0.5, 0.4), "length/mean": (100.0, 40.0)}, set()),
    ("entropy-falls", {"entropy": (0.6, 0.05)}, set()),
    ("entropy-rises", FLAT | {"entropy": (0.6, 2.0)}, set()),
    ("one-answer", {"eval/pass@4": (0.85, 0.75)}, set()),
    ("clipped", {"clip_fraction/low": (0.1, 0.25), "clip_fraction/high": (0.1, 0.25)}, set()),
    ("stale", FLAT | {"staleness/mean": (1.0, 6.0)}, set()),
    ("collapse", {"eval/accuracy": (0.8, 0.6)}, {"by-heart"}),
    ("jumps", {"grad_norm": spike(20, 9.0)}, set()),
    ("far-away", {"kl/ref": (0.0, 0.4)}, set()),
    ("fooled", FLAT | {"reward/mean": (0.5, 1.5)}, set()),
    ("by-heart", {"eval/accuracy": (0.5, 0.5)}, set()),
    ("stands-still", FLAT | {"entropy": (0.6, 0.61)}, set()),
]  # fmt: skip
"""Changes to the sound run, by the symptom that they make; what else they make."""

NEARLY: list[tuple[str, dict[str, Any]]] = [
    ("judge-fails", {"judge/failed": (1, 1)}),
    ("nothing-right", {"accuracy": (0.0, 0.0), "reward/mean": (0.0, 0.4)}),
    ("rare-success", {"accuracy": (0.02, 0.08), "reward/mean": (0.02, 0.08), "signal/groups": (0.4, 0.5)}),
    ("rare-success", {"signal/groups": (0.9, 0.1)}),
    ("groups-alike", {"accuracy": (0.02, 0.08), "signal/groups": (0.1, 0.1)}),
    ("too-long", {"length/mean": (100.0, 200.0)}),
    ("too-short", {"length/mean": (100.0, 40.0)}),
    ("entropy-falls", {"entropy": (0.6, 0.05), "eval/accuracy": (0.5, 1.0)}),
    ("entropy-falls", {"entropy": (0.6, 0.05), "eval/accuracy": None, "eval/pass@4": None, "accuracy": (0.5, 1.0)}),
    ("entropy-rises", {"entropy": (0.6, 2.0)}),
    ("one-answer", {"eval/pass@4": (0.85, 0.75), "eval/accuracy": (0.75, 0.7)}),
    ("clipped", {"clip_fraction/low": (0.1, 0.25), "clip_fraction/high": (0.0, 0.0)}),
    ("stale", {"staleness/mean": (1.0, 6.0)}),
    ("collapse", {"eval/accuracy": (0.6, 0.8)}),
    ("fooled", {"reward/mean": (0.5, 1.5)}),
    ("fooled", FLAT | {"reward/mean": (0.5, 0.6)}),
    ("by-heart", {"accuracy": (0.5, 0.52), "eval/accuracy": (0.5, 0.5)}),
    ("stands-still", FLAT),
    ("stands-still", FLAT | {"entropy": (0.6, 0.61), "signal/groups": (0.2, 0.1)}),
    ("stands-still", {"accuracy": (0.6, 0.4), "entropy": (0.6, 0.61)}),
    ("stands-still", {"accuracy": (0.95, 0.96), "entropy": (0.6, 0.61)}),
]
"""Changes that leave one condition of a symptom unmet."""


def test_nothing_stands_out_in_a_sound_run(tmp_path: Path) -> None:
    assert seen(tmp_path / "run") == []


@pytest.mark.parametrize(("name", "changes", "others"), SICK, ids=[name for name, *_ in SICK])
def test_a_symptom_is_seen_where_it_is(name: str, changes: dict[str, Any], others: set[str], tmp_path: Path) -> None:
    assert set(seen(tmp_path / "run", **changes)) == {name, *others}


@pytest.mark.parametrize(("name", "changes"), NEARLY, ids=[f"{name}-{i}" for i, (name, _) in enumerate(NEARLY)])
def test_every_condition_of_a_symptom_counts(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    assert name not in seen(tmp_path / "run", **changes)


def test_every_symptom_that_a_log_shows_has_such_a_log() -> None:
    assert {name for name, *_ in SICK} == {s.name for s in SYMPTOMS if s.when}
    assert {name for name, _ in NEARLY} >= {s.name for s in SYMPTOMS if len(s.when) > 1}


def test_what_is_read_off_a_course() -> None:
    values = [1.0, 3.0, 5.0, 9.0, 2.0, 4.0, 6.0, 8.0]
    assert (start(values), end(values), best(values)) == (1.0, 7.0, 7.0)
    assert start([float(i) for i in range(20)]) == 0.5, "the first tenth"
    assert end([4.0]) == start([4.0]) == best([4.0]) == 4.0
    with pytest.raises(ValueError, match="one of level"):
        Condition("entropy", "slope", above=1)
    with pytest.raises(ValueError, match="above or below"):
        Condition("entropy", "level")


def test_metrics_are_read_with_the_last_evaluation_and_added_up_step_by_step(tmp_path: Path) -> None:
    low = [0.25] * STEPS
    run = read_run(write(tmp_path / "run", **{"clip_fraction/low": low, "clip_fraction/high": (0.5, 0.5)}))
    assert course(run, "clip_fraction") == ("clip_fraction", [0.75] * STEPS)
    name, values = course(run, "eval/pass@")
    assert (name, len(values), values[-1]) == ("eval/pass@4", 5, WELL["eval/pass@4"][1])
    assert course(run, "eval/nothing@") == ("eval/nothing@", [])


def test_a_short_run_has_levels_and_no_course(tmp_path: Path) -> None:
    sick = {"entropy": (0.6, 0.01), "length/truncated": (0.5, 0.5)}
    assert seen(tmp_path / "short", steps=COURSE - 1, **sick) == ["truncated"]
    assert seen(tmp_path / "long", steps=COURSE, **sick) == ["truncated", "entropy-falls"]


def test_what_symptoms_name_is_there() -> None:
    methods = {e.name for e in entries("method")}
    assert {m for s in SYMPTOMS for m in s.methods} - methods == set()
    assert len({m for s in SYMPTOMS for m in s.methods}) > 40
    told = described() | {"clip_fraction"}
    read = {m for s in SYMPTOMS for c in s.when for m in (*c.metrics, c.per) if m} | {
        m for s in SYMPTOMS for m in s.shown
    }
    kinds = {"eval/pass@": "eval/pass@k", "component/@": "component/NAME"}
    assert {kinds.get(m, m) for m in read} - told == set()
    assert len({s.name for s in SYMPTOMS}) == len(SYMPTOMS)
    assert CELLS == diagnosis.CELLS


VALUES = {
    "--recipe.source.temperature": "1.1", "--prompting.system": "Think.", "--task": "countdown", "--judge": "number",
    "--teacher": "embedded", "--lora": None,
}  # fmt: skip


@pytest.mark.parametrize("setting", sorted({name for s in SYMPTOMS for name in s.settings}))
def test_settings_that_symptoms_name_are_options(setting: str) -> None:
    value = VALUES.get(setting, "16")
    line = setting.split() if " " in setting else [setting, *([] if value is None else [value])]
    parse_config(get_method("grpo"), line)


# The command ---------------------------------------------------------------------------------------------------------

Command = Callable[..., Said]


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of claims changes as they are put to the test again, and advice with it."""
    for module in (diagnosis, show):
        monkeypatch.setattr(module, "recorded", dict)


def test_a_run_is_told_with_its_numbers_and_what_addresses_it(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "run", **{"entropy": [0.6] * 4 + [0.06] * 36})
    said = command("advise", "run")
    assert said.code == 0
    told = said.out.splitlines()
    assert told[0] == "run: grpo on chain_sum, 40 steps"
    assert " seen       entropy 0.6 -> 0.06: ends below 0.33 times its start" in told
    assert any(line.strip().startswith("clip-cov: ") and "not replicated yet" in line for line in told)
    assert told[-1] == "  policyopt compare grpo clip-cov kl-cov --task chain_sum --seeds 5"
    assert "`" not in said.out


def test_a_sound_run_is_told_with_what_was_looked_at(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "run")
    said = command("advise", "run")
    assert said.code == 0
    assert "Nothing stands out" in said.out
    assert " eval/accuracy     0.42 -> 0.75" in said.out
    assert "policyopt compare" not in said.out


def test_the_method_of_the_run_is_not_advised(tmp_path: Path) -> None:
    config = {"recipe": {"name": "clip-cov"}, "task": "chain_sum"}
    found = diagnosis.diagnose(read_run(write(tmp_path / "run", config=config, entropy=(0.6, 0.05))))
    assert "clip-cov" not in found.seen[0].methods
    assert "kl-cov" in found.seen[0].methods


def test_symptoms_are_listed_and_told_by_name_or_its_beginning(command: Command) -> None:
    said = command("advise")
    assert said.code == 0
    assert all(f" {s.name} " in said.out for s in SYMPTOMS)
    one = command("advise", "--symptom", "truncated").out
    assert "length/truncated ends above 0.1" in one
    assert "--max-tokens: a larger budget" in one
    assert [s.name for s in symptom("Entropy")] == ["entropy-falls", "entropy-rises"]
    both = command("advise", "--symptom", "entropy").out
    assert "entropy-falls: " in both
    assert "entropy-rises: " in both


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--symptom", "entropi"], "nearest: entropy-rises, entropy-falls"),
        (["--symptom", ""], "no symptom is called ''"),
        (["nowhere"], "nowhere: there is no such folder"),
        (["other"], "other: is not the folder of a run"),
        (["begun"], "begun: no step is logged yet"),
        (["grid"], "grid: no run of this comparison has made a step yet"),
        (["run", "--symptom", "stale"], "ask one at a time"),
        (["--symptoms", "stale"], "there is no option --symptoms"),
    ],
)
def test_bad_input_is_told(line: list[str], told: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "begun")
    (tmp_path / "begun" / "metrics.jsonl").write_text('{"step": 0, "eval/accuracy": 0.5}\n')
    (tmp_path / "grid" / CELLS / "grpo-seed0-ab").mkdir(parents=True)
    write(tmp_path / "run")
    said = command("advise", *line)
    assert said.code == 2
    assert told in said.words


def test_a_comparison_is_told_by_contender(command: Command, tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / "c" / CELLS / f"grpo-seed{seed}-0af3", entropy=(0.6, 0.05 if seed else 0.5))
    write(tmp_path / "c" / CELLS / "dr-grpo-seed0-bb1")
    (tmp_path / "c" / CELLS / "gspo-seed0-c").mkdir()
    told = command("advise", "c").out.splitlines()
    assert told[:2] == ["dr-grpo, 1 run", " nothing stands out"]
    assert told[2] == "grpo, 3 runs"
    assert told[3].startswith(" entropy-falls  in 2 of 3, such as: entropy ")
    assert "  policyopt advise --symptom entropy-falls" in told
    assert not any("gspo" in line for line in told)
    assert len(json.loads(command("advise", "c", "--json").out)) == 4


def test_json_has_the_numbers_and_the_advice(command: Command, tmp_path: Path) -> None:
    write(tmp_path / "run", **{"length/truncated": (0.3, 0.3)})
    (found,) = json.loads(command("advise", "run", "--json").out)
    assert (found["run"], found["method"], found["steps"]) == ("run", "grpo", STEPS)
    (sick,) = found["symptoms"]
    assert sick["name"] == "truncated"
    assert sick["seen"][0]["value"] == pytest.approx(0.3)
    assert sick["methods"][0] == {"method": "dapo", "why": sick["methods"][0]["why"], "replication": None}
    assert {a["name"] for a in json.loads(command("advise", "--json").out)} == {s.name for s in SYMPTOMS}


def test_claims_that_were_replicated_are_told_and_come_first(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect = Finding("entropy", "higher", 0.05, "number", 0.3, 0.1, Interval(0.2, 0.1, 0.3), "supported")
    share = Finding("accuracy", "higher", 0.0, "percent", 0.4, 0.5, Interval(-0.1, -0.2, -0.05), "not supported")
    found = [
        Replication("lp-reg", "...", "supported", "chain_sum", "grpo", 5, 1.0, (effect,)),
        Replication("clip-cov", "...", "not supported", "chain_sum", "grpo", 3, 1.0, (share,)),
        Replication("siren", "...", "cannot show here", reason="..."),
    ]
    data = json.loads(to_json(found))
    monkeypatch.setattr(diagnosis, "recorded", lambda: data)
    monkeypatch.setattr(show, "recorded", lambda: data)
    write(tmp_path / "run", entropy=(0.6, 0.05))
    said = command("advise", "run").out
    assert "(its claim: supported: entropy +0.2, +0.1 to +0.3, on chain_sum against grpo, 5 seeds)" in said
    assert (
        "(its claim: not supported: accuracy -10.0 points, -20.0 to -5.0, on chain_sum against grpo, 3 seeds)" in said
    )
    assert "(its claim: cannot show here)" in said
    assert said.index("lp-reg: ") < said.index("kl-cov: ") < said.index("clip-cov: ")
    assert "policyopt compare grpo lp-reg kl-cov " in said


def test_lines_are_wrapped_to_a_terminal_below_their_own_beginning(tmp_path: Path) -> None:
    found = diagnosis.diagnose(read_run(write(tmp_path / "run", entropy=(0.6, 0.05))))
    text = re.sub(r"<[^>]+>", "", html_of(lambda out: show.show([found], out), width=60))
    body = [line for line in text.splitlines() if line.startswith(" ") and "policyopt compare" not in line]
    assert max(map(len, body)) <= 60
    assert all(line[12] != " " for line in body)


def test_the_page_is_that_of_the_symptoms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--markdown"]) == 0
    page = Path(po.__file__).parents[1] / "docs" / "choose.md"
    assert page.read_text() == capsys.readouterr().out, "policyopt advise --markdown > docs/choose.md"


def test_a_run_of_the_trainer_is_read_from_python(tmp_path: Path, tiny_model: Path) -> None:
    task = {"task": str(write_sums(tmp_path / "sums.jsonl", 24)), "judge": "number"}
    result = run(tiny_run(tmp_path / "run", tiny_model, task, steps=3), quiet=True)
    found = po.advise(result, str(tmp_path / "run"))
    (a, b) = found.found
    assert a == b
    assert (a.method, a.steps) == ("grpo", 3)
    assert "nothing-right" in {s.symptom.name for s in a.seen}, "an untrained model"
    assert "So few steps" in str(found)
    with pytest.raises(UserError, match="no such folder"):
        po.advise(tmp_path / "nowhere")
