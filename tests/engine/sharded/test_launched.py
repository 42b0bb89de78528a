"""Whole runs in two processes, by the command line: the curve of one process, checkpoints for any number, and no way to hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from policyopt.errors import UserError
from policyopt.training.checkpoint import load_checkpoint, save_checkpoint
from tests.engine.sharded.launching import Torchrun, curve, forked, line, until
from tests.runs import lines
from tests.tiny import write_task


@pytest.fixture
def task(tmp_path: Path) -> dict[str, str]:
    return write_task(tmp_path / "task")


def assert_same_curve(one: Path, two: Path, steps: int) -> None:
    mine, theirs = curve(two), curve(one)
    assert len(mine) == len(theirs) == steps + 1
    for a, b in zip(mine, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


RESUME = ("train", "grpo", "--resume")


def test_two_ranks_train_as_one_which_takes_their_checkpoint(
    tmp_path: Path, tiny_model: Path, task: dict[str, str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert forked(line(one, tiny_model, task, "--steps", 3), tmp_path, size=1)[0] == [0]
    codes, said = forked(line(two, tiny_model, task, "--steps", 2), tmp_path)
    assert codes == [0, 0], said
    AutoModelForCausalLM.from_pretrained(two / "model")
    codes, said = forked([*RESUME, str(two), "--steps", "3"], tmp_path, size=1)
    assert codes == [0], said
    assert_same_curve(one, two, 3)
    weights = load_file(two / "model" / "model.safetensors")
    for name, x in load_file(one / "model" / "model.safetensors").items():
        torch.testing.assert_close(weights[name], x, rtol=1e-3, atol=1e-4)


def test_a_shard_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    shard = Path("shards") / "__1_0.distcp"

    def write(folder: Path) -> None:
        (folder / shard).parent.mkdir()
        (folder / shard).write_bytes(b"whole")

    for step in (1, 2):
        save_checkpoint(tmp_path, step, {}, {}, 2, write)
    newest = tmp_path / "step-000002" / shard
    newest.write_bytes(b"wrong")
    with pytest.raises(UserError, match=f"{newest} is not what was written.*to resume from the checkpoint before it"):
        load_checkpoint(tmp_path)
    newest.unlink()
    with pytest.raises(UserError, match=f"{newest} is missing: the checkpoint is incomplete"):
        load_checkpoint(tmp_path)


@pytest.mark.heavy
def test_ranks_go_on_with_a_run_of_one_process_and_stop_at_a_damaged_shard(
    tmp_path: Path, tiny_model: Path, task: dict[str, str]
) -> None:
    one, whole = tmp_path / "one", tmp_path / "whole"
    for out, steps in ((one, 2), (whole, 3)):
        assert forked(line(out, tiny_model, task, "--steps", steps), tmp_path, size=1)[0] == [0]
    assert forked([*RESUME, str(one), "--steps", "3"], tmp_path)[0] == [0, 0]
    assert_same_curve(whole, one, 3)
    shard = max((one / "checkpoints" / "step-000003" / "shards").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    codes, said = forked([*RESUME, str(one), "--steps", "4"], tmp_path)
    assert codes == [2, 0] and f"{shard} is not what was written" in said


@pytest.mark.heavy
def test_bad_input_under_a_launcher_ends_all_ranks(tmp_path: Path, tiny_model: Path, task: dict[str, str]) -> None:
    codes, said = forked(line(tmp_path / "run", tmp_path / "nowhere", task, "--steps", 1), tmp_path)
    assert codes == [2, 0] and "there is no such folder" in said, "rank 1 was sent home"
    codes, said = forked(line(tmp_path / "run", tiny_model, task, "--steps", 1, "--compile"), tmp_path)
    assert codes == [2, 0] and "--compile" in said
    codes, said = forked(line(tmp_path / "run", tiny_model, task, "--engine", "tinker"), tmp_path)
    assert codes == [2, 2] and "--engine tinker: it starts processes of its own" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_twenty_steps_under_torchrun(tmp_path: Path, tiny_model: Path, task: dict[str, str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert forked(line(one, tiny_model, task, "--steps", 20), tmp_path, size=1)[0] == [0]
    run = Torchrun(line(two, tiny_model, task, "--steps", 20), tmp_path / "said.txt")
    assert run.wait() == 0, run.console.read_text()
    assert_same_curve(one, two, 20)


@pytest.mark.heavy
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_is_killed(rank: int, tmp_path: Path, tiny_model: Path, task: dict[str, str]) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    run = Torchrun(line(out, tiny_model, task, "--steps", 300), tmp_path / "said.txt")
    until(out / "checkpoints" / "step-000003", run)
    os.kill(run.rank(rank), signal.SIGKILL)
    assert run.wait() != 0
    said = run.console.read_text()
    if rank == 1:
        assert "a rank of this run has ended" in said and "--resume" in said
    last = max(int(p.name.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*"))
    resumed = Torchrun(["train", "grpo", "--steps", str(last + 2), "--resume", str(out)], tmp_path / "again.txt")
    assert resumed.wait() == 0, resumed.console.read_text()
    reference = Torchrun(line(whole, tiny_model, task, "--steps", last + 2), tmp_path / "whole.txt")
    assert reference.wait() == 0
    assert curve(out) == curve(whole), "to the bit: nothing is lost or doubled"
    asked = [[row["prompt"] for row in lines(folder / "samples.jsonl")] for folder in (out, whole)]
    assert asked[0] == asked[1]


@pytest.mark.heavy
def test_sigterm_stops_after_the_step_with_a_checkpoint(tmp_path: Path, tiny_model: Path, task: dict[str, str]) -> None:
    out = tmp_path / "run"
    run = Torchrun(line(out, tiny_model, task, "--steps", 300), tmp_path / "said.txt")
    until(out / "checkpoints" / "step-000003", run)
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    said = run.console.read_text()
    assert "stopping after this step" in said and "stopped: interrupted" in said
    last = max(int(p.name.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*"))
    assert len(lines(out / "metrics.jsonl")) == last + 1
    assert (out / "model" / "model.safetensors").is_file()


BREAKS = '''
import os
from typing import ClassVar

import policyopt as po
from policyopt.part import part
from policyopt.parts import PPOClip


@part
class Breaks(PPOClip):
    def __call__(self, log_ratio, batch):
        if os.environ.get("RANK") == "{rank}":
            raise RuntimeError("boom")
        return super().__call__(log_ratio, batch)


def breaks():
    """Ends one rank in its first update."""
    return po.methods.grpo(group_size=4).replace(surrogate=Breaks())
'''


@pytest.mark.heavy
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_all(rank: int, tmp_path: Path, tiny_model: Path, task: dict[str, str]) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS.replace("{rank}", str(rank)))
    words = line(tmp_path / "run", tiny_model, task, "--steps", 3)
    words[1] = f"{tmp_path / 'breaks.py'}:breaks"
    del words[words.index("--group-size") : words.index("--group-size") + 2]
    run = Torchrun(words, tmp_path / "said.txt")
    assert run.wait() != 0
    said = run.console.read_text()
    assert "RuntimeError: boom" in said
    assert said.count("running ") == 1, "the first alone speaks"
    if rank == 1:  # unless torchrun is quicker to end it
        told = "policyopt: rank 1 stopped: boom. Go on from the last checkpoint with --resume"
        assert told in said or "go on with: policyopt train --resume" in said
