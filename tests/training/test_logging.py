"""The record of a run, and what a person sees of it."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import rich.console
import torch
from rich.text import Text

from policyopt.errors import UserError
from policyopt.training.console import Console, duration, final_table, sparkline
from policyopt.training.logging import RunLog, read_run


def strict(line: str) -> dict:
    """JSON as the standard has it: Python alone reads NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_a_metrics_line_is_standard_json_with_the_step_first(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log:
        values = {"reward/mean": torch.tensor(0.5), "entropy": math.nan, "clip_fraction/low": -math.inf}
        values |= {"accuracy": np.float32(0.25)}
        log.metrics(3, values | {"prompts": np.int64(16), "kl/ref": None})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    row = strict(text)
    assert list(row) == ["step", "accuracy", "clip_fraction/low", "entropy", "kl/ref", "prompts", "reward/mean"]
    assert row == {
        "step": 3, "accuracy": 0.25, "clip_fraction/low": None, "entropy": None, "kl/ref": None, "prompts": 16,
        "reward/mean": 0.5,
    }  # fmt: skip


def test_a_sample_keeps_its_text_and_its_weights(tmp_path: Path) -> None:
    text = "two\nlines\u2028\x85 and \ud800 half a character"
    with RunLog(tmp_path, tensorboard=False) as log:
        log.sample({"step": 0, "response": text, "weights": [0.5, math.nan], "correct": np.bool_(True), "id": "a"})
        log.sample({"step": 1, "response": "second"})
    (tmp_path / "metrics.jsonl").write_text("")
    samples = read_run(tmp_path).samples
    assert [s["step"] for s in samples] == [0, 1]
    assert samples[0]["response"] == text.replace("\ud800", "?")
    assert samples[0]["weights"] == [0.5, None]
    assert samples[0]["correct"] is True
    assert list(samples[0]) == ["step", "response", "weights", "correct", "id"]


def test_what_is_no_json_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log, pytest.raises(TypeError, match="not object"):
        log.sample({"id": object()})
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


def test_each_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = os.write
    with RunLog(tmp_path, tensorboard=False) as log:
        monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or real(fd, data))
        log.metrics(1, {"a": 1.0})
        log.sample({"response": "x" * 100_000})
        # Readable at once, not at the end: the report may be made while the run goes on.
        assert read_run(tmp_path).metrics == [{"step": 1, "a": 1.0}]
        monkeypatch.undo()
    assert [w.count(b"\n") for w in written] == [1, 1]


def steps(log: RunLog, first: int, last: int) -> None:
    for step in range(first, last + 1):
        log.metrics(step, {"loss": step / 3})
        log.sample({"step": step, "response": "é" * step})


def test_a_killed_and_resumed_run_leaves_the_same_files(tmp_path: Path) -> None:
    with RunLog(tmp_path / "whole", tensorboard=False) as log:
        steps(log, 1, 9)
    killed = RunLog(tmp_path / "killed", tensorboard=False)
    steps(killed, 1, 4)
    position = json.loads(json.dumps(killed.position()))
    steps(killed, 5, 6)
    with (tmp_path / "killed" / "metrics.jsonl").open("ab") as f:
        f.write(b'{"step": 7, "lo')
    resumed = RunLog(tmp_path / "killed", tensorboard=False)
    resumed.rewind(position)
    assert resumed.position() == position
    steps(resumed, 5, 9)
    resumed.close()
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_half_a_line_is_cut_when_a_log_is_opened(tmp_path: Path) -> None:
    half = b'{"response": "' + b"x" * 200_000
    (tmp_path / "samples.jsonl").write_bytes(b'{"step": 1}\n' + half)
    (tmp_path / "metrics.jsonl").write_bytes(half)
    with RunLog(tmp_path, tensorboard=False) as log:
        log.sample({"step": 2})
    assert (tmp_path / "samples.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_rewind_to_nothing_empties_the_files(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log:
        steps(log, 1, 3)
        log.rewind({})
        assert log.position() == {"metrics": 0, "samples": 0, "step": 0}


def test_a_file_shorter_than_its_checkpoint_is_refused_untouched(tmp_path: Path) -> None:
    with RunLog(tmp_path, tensorboard=False) as log:
        steps(log, 1, 3)
        before = (tmp_path / "metrics.jsonl").read_bytes()
        with pytest.raises(UserError, match=r"samples\.jsonl: has \d+ bytes, but the checkpoint"):
            log.rewind({"metrics": 0, "samples": 10_000, "step": 9})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path)
    for step in (1, 2):
        log.metrics(step, {"loss": float(step), "empty": math.nan})
    position = log.position()
    for step in (3, 4):
        log.metrics(step, {"loss": -1.0})  # lost with the process
    log.close()
    resumed = RunLog(tmp_path)
    resumed.rewind(position)
    for step in (3, 4, 5):
        resumed.metrics(step, {"loss": float(step)})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(s, float(s)) for s in (1, 2, 3, 4, 5)]
    assert events.Tags()["scalars"] == ["loss"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        RunLog(tmp_path, tensorboard=False) as log,
        pytest.raises(UserError, match=r"metrics\.jsonl: the disk is full.*--resume"),
    ):
        log.metrics(1, {"loss": 1.0})


def test_a_disk_that_fills_up_inside_a_line_keeps_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.write, []

    def short(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return real(fd, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunLog(tmp_path, tensorboard=False) as log:
        log.metrics(1, {"loss": 1.0})
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(UserError, match="disk is full"):
            log.metrics(2, {"loss": 2.0})
        monkeypatch.undo()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'


def test_reading_a_run_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        read_run(tmp_path / "missing")
    with pytest.raises(UserError, match="is not the folder of a run"):
        read_run(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1}\n{"step": 2, \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not JSON"):
        read_run(tmp_path)
    metrics.write_text('{"step": 1}\n[2]\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: holds list"):
        read_run(tmp_path)
    metrics.write_text('{"step": 1}\n{"step": 2, "accu')
    (tmp_path / "config.yaml").write_text("seed: 3\nmethod: grpo\n")
    run = read_run(tmp_path)
    assert run.metrics == [{"step": 1}]
    assert run.config == {"seed": 3, "method": "grpo"}
    assert run.summary == {}
    assert run.samples == []
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json, line 1: not JSON"):
        read_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"config\.yaml, line 1: not valid YAML"):
        read_run(tmp_path)


# What a person sees

HEADER = {
    "method": "grpo",
    "model": "embedded",
    "task": "chain_sum",
    "out": "runs/a-rather-long-name-of-a-folder/0",
}
METRICS = {
    "reward/mean": 0.53, "accuracy": 0.51, "length/mean": 18.2, "signal/groups": 0.75, "entropy": 0.41,
    "time/step": 3.14, "kl/ref": 0.0123, "clip_fraction/low": 0.001, "clip_fraction/high": 0.002, "grad_norm": 0.7, "tokens_per_s": 5400,
}  # fmt: skip


def plain(width: int = 200) -> tuple[rich.console.Console, io.StringIO]:
    file = io.StringIO()
    return rich.console.Console(file=file, width=width, highlight=False), file


def test_plain_lines_where_there_is_no_terminal() -> None:
    out, file = plain(40)
    with Console(HEADER, 60, every=5, out=out) as console:
        for step in range(1, 13):
            console.step(step, METRICS | ({"eval/accuracy": 0.6, "eval/pass@8": 0.8} if step == 12 else {}))
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("method grpo  model embedded")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["step 1/60", "step 5/60", "step 10/60"]
    assert lines[2] == "step 5/60  reward 0.53  accuracy 0.51  length 18.2  signal 0.75  entropy 0.41  3.1 s"
    assert lines[-1] == "  held-out after step 12: accuracy 0.60  pass@8 0.80"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(HEADER, 2, quiet=True) as console:
        console.step(1, METRICS | {"signal/groups": 0.0})
        console.task("evaluation", 1, 2)
        console.note("a note")
    assert capsys.readouterr() == ("", "")


def test_a_step_without_signal_says_why() -> None:
    out, file = plain()
    with Console({}, 60, every=10, out=out) as console:
        console.step(7, METRICS | {"signal/groups": 0.0})
        console.step(8, METRICS | {"signal/groups": 0.0, "accuracy": 0.0})
        console.step(9, {k: v for k, v in METRICS.items() if k != "signal/groups"})
    text = file.getvalue()
    assert text.count("all responses to each prompt got the same reward: nothing to learn from in this step") == 2
    assert text.count("none was right") == 1
    assert "step 9/" not in text


def test_missing_and_non_finite_metrics_do_not_disturb() -> None:
    out, file = plain()
    with Console({}, 3, out=out) as console:
        console.step(1, {"reward/mean": math.nan, "accuracy": None, "length/mean": 4.0})
    assert file.getvalue().splitlines()[-1] == "step 1/3  length 4.0"


@pytest.mark.parametrize("width", [30, 60, 76, 120])
def test_the_live_view_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    out = rich.console.Console(file=file, width=width, height=40, force_terminal=True, highlight=False)
    with Console(HEADER, 60, out=out) as console:
        console.task("warm start", 3, 10)
        for step in range(1, 21):
            console.step(step, METRICS | {"reward/mean": step / 20, "signal/groups": 0.0, "eval/accuracy": 0.61})
        with out.capture() as captured:
            out.print(console)
    view = captured.get()
    assert "\x1b[3" not in view  # no colours; bold is none
    lines = Text.from_ansi(view).plain.splitlines()
    assert max(len(line) for line in lines) <= width
    text = " ".join(" ".join(lines).split())
    for part in ("grpo", "step 20/60", "reward", "1.00", "grad norm", "nothing to learn", "held-out", "0.61"):
        assert part in text
    assert "warm start" not in text  # the phase is over


def test_a_note_cannot_command_the_terminal_nor_break_an_ascii_one() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console({"task": "añadir"}, 1, out=rich.console.Console(file=file, width=80))
    with console:
        console.note("\x1b[2Jcleared → [bold]kept[/bold]")
        console.step(1, METRICS)
    final_table({"before": {"accuracy": 0.1}, "after": {"accuracy": 0.2}}, Path("é"), out=console.out)
    file.flush()
    text = file.buffer.getvalue().decode("ascii")
    assert "?[2Jcleared ? [bold]kept[/bold]" in text
    assert "+10.0 points" in text


def test_phases_are_told_once_in_plain_lines() -> None:
    out, file = plain()
    with Console({}, 5, out=out) as console:
        for done in range(1001):
            console.task("warm start", done, 1000)
    assert file.getvalue().split("\n")[1:-1] == ["warm start 0 %", "warm start 100 %"]


def test_the_final_table_has_both_ends_and_one_line_for_the_path() -> None:
    out, file = plain(60)
    before = {"accuracy": 0.414, "pass@8": 0.8, "length": 18.0, "format": 0.95, "n": 256, "lengths": [1]}
    after = {"accuracy": 0.891, "pass@8": 0.9, "length": 16.5, "format": 1.0}
    report = Path("/a/folder/whose/name/is/longer/than/the/terminal/is/wide/and/more/report.html")
    final_table(
        {"before": before, "after": after, "steps": 60, "seconds": 192.4, "stopped": "interrupted"}, report, out=out
    )
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    for line in ("accuracy 41.4 % 89.1 % +47.7 points", "pass@8 80.0 % 90.0 % +10.0 points", "length 18.0 16.5 -1.5"):
        assert line in lines
    assert "60 steps, 3 min 12 s, stopped: interrupted" in lines
    assert f"report: {report}" in lines


def test_what_probes_measured_stands_in_columns() -> None:
    out, file = plain(60)
    found = {"a/gap@1": 0.0, "a/gap@0.5": 0.25, "a/cosine@1": 1.0, "a/cosine@0.5": None, "b/share": 0.1234}
    final_table({"after": {"accuracy": 0.5} | found | {"measured": list(found)}}, None, out=out)
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    at = lines.index("Measured by probes")
    assert lines[at + 2] == "1 0.5"
    assert lines[at + 4 : at + 7] == ["a/gap 0 0.25", "a/cosine 1", "b/share 0.123"]


def test_the_final_table_of_a_run_without_evaluations() -> None:
    out, file = plain()
    final_table({"steps": 1, "seconds": 0.51, "stopped": "finished"}, None, out=out)
    assert file.getvalue().strip() == "1 step, 0.5 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (192.4, "3 min 12 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sparkline_spans_lowest_to_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0, 2.0]) == "▁▁▁"
    assert sparkline([1.0]) == ""
    assert sparkline([math.nan, 1.0, 2.0]) == "▁█"
