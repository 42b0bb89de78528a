"""Checkpoints are there whole or not at all, and say what is wrong with them."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from policyopt.errors import UserError
from policyopt.training import checkpoint
from policyopt.training.checkpoint import load_checkpoint, prune, save_checkpoint
from tests.runs import PROCESSES


def content(step: int, size: int = 500) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """State and tensors that belong together: each can be told from the other's step."""
    state = {"counts": {"seconds": step + 0.1}, "last": {"reward/mean": 1 / (step + 3)}, "queue": [None, "ü"]}
    tensors = {
        "policy/weight": torch.arange(size, dtype=torch.float64) + step,
        "policy.step/weight": torch.tensor(float(step)),
        "queue.0/tokens": torch.full((2, 3), step),
        "half": torch.full((4,), step, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }
    return state, tensors


def assert_is(found: Any, step: int, size: int = 500) -> None:
    state, tensors = content(step, size)
    assert found.step == step
    assert found.state == state | {"step": step}
    assert found.tensors.keys() == tensors.keys()
    for name, x in tensors.items():
        assert found.tensors[name].dtype == x.dtype, name
        assert torch.equal(found.tensors[name], x), name


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_was_saved_is_loaded_to_the_bit(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    path = save_checkpoint(tmp_path / "a" / "b", 12, *content(12), keep=2)
    assert path == tmp_path / "a" / "b" / "step-000012"
    assert names(path) == ["manifest.json", "state.json", "tensors.safetensors"]
    assert_is(load_checkpoint(tmp_path / "a" / "b"), 12)
    precise = {"x": 0.1 + 0.2, "tiny": 5e-324, "large": 1.7976931348623157e308}
    save_checkpoint(tmp_path, 1, precise, {"p": torch.nn.Parameter(torch.ones(3, 2).t())}, keep=1)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state == precise | {"step": 1}
    assert torch.equal(found.tensors["p"], torch.ones(2, 3))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    (tmp_path / "tmp-step-000077").mkdir()
    steps = [0, 5, 10, 999_999, 1_000_000]
    for i, step in enumerate(steps):
        save_checkpoint(tmp_path, step, *content(step), keep=keep)
        assert names(tmp_path) == sorted(f"step-{s:06d}" for s in steps[max(0, i + 1 - keep) : i + 1])
        assert_is(load_checkpoint(tmp_path), step)


def test_the_same_step_may_be_saved_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {"old": True}, {}, keep=2)
    save_checkpoint(tmp_path, 3, *content(3), keep=2)
    assert_is(load_checkpoint(tmp_path), 3)
    assert names(tmp_path) == ["step-000003"]
    renames: list[str] = []
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        renames.append(f"{self.name} -> {target.name}")
        assert all((p / "manifest.json").exists() for p in tmp_path.glob("step-*")), "never half of one under its name"
        return original(self, target)

    with mock.patch.object(Path, "rename", rename):
        save_checkpoint(tmp_path, 3, *content(3), keep=2)
    assert renames[-1] == "tmp-step-000003 -> step-000003"


def test_what_a_killed_run_left_is_pruned(tmp_path: Path) -> None:
    prune(tmp_path / "not-there-yet", keep=1)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, *content(step), keep=3)
    (tmp_path / "tmp-step-000004").mkdir()
    (tmp_path / "tmp-step-000004" / "tensors.safetensors").write_bytes(b"half")
    prune(tmp_path, keep=2)
    assert names(tmp_path) == ["step-000002", "step-000003"]
    assert_is(load_checkpoint(tmp_path), 3)


# Killed while it writes


def write_for_ever(folder: Path, size: int) -> None:
    found = load_checkpoint(folder)
    step = 0 if found is None else found.step
    while True:
        step += 1
        save_checkpoint(folder, step, *content(step, size), keep=2)


def test_a_process_killed_while_it_writes_leaves_whole_checkpoints(tmp_path: Path) -> None:
    """SIGKILL at random moments of a process that does nothing but write."""
    rng, size, halves, newest = random.Random(0), 100_000, 0, 0
    for turn in range(100):
        if turn >= 10 and halves >= 2:
            break
        process = PROCESSES.Process(target=write_for_ever, args=(tmp_path, size))
        process.start()
        before, give_up = newest, time.monotonic() + 60
        while newest == before and time.monotonic() < give_up:
            time.sleep(0.001)
            newest = max((int(p.name[5:]) for p in tmp_path.glob("step-*")), default=0)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        halves += any(tmp_path.glob("tmp-step-*"))
        found = load_checkpoint(tmp_path)
        assert found is not None
        assert found.step > before
        assert_is(found, found.step, size)
        newest = found.step
        for path in tmp_path.glob("step-*"):
            assert len(names(path)) == 3, "older ones are whole too"
    assert halves >= 2, "the moments were chosen badly: hardly any fell into a write"
    save_checkpoint(tmp_path, newest + 1, *content(1), keep=1)
    assert names(tmp_path) == [f"step-{newest + 1:06d}"], "scraps of killed writers go with the next checkpoint"


# Damage


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_is_named(name: str, share: float, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 4, *content(4), keep=2)
    path = save_checkpoint(tmp_path, 8, *content(8), keep=2) / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path)
    assert str(path) in str(caught.value)
    assert "resume from the checkpoint before it" in str(caught.value)
    for file in (tmp_path / "step-000008").iterdir():
        file.unlink()
    (tmp_path / "step-000008").rmdir()
    assert_is(load_checkpoint(tmp_path), 4)  # the advice is good


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_file_that_is_gone_is_named(name: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 8, *content(8), keep=2) / name
    path.unlink()
    with pytest.raises(UserError, match=str(path)) as caught:
        load_checkpoint(tmp_path)
    assert "to start again" in str(caught.value)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_damage_anywhere_is_found(name: str, tmp_path: Path) -> None:
    """One bit flipped, in every part of the file."""
    path = save_checkpoint(tmp_path, 8, *content(8), keep=2) / name
    whole = path.read_bytes()
    for i in range(len(whole)) if len(whole) < 400 else range(0, len(whole), 97):
        for bit in (0, 7):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :])
            with pytest.raises(UserError, match=r"damaged|cut short|incomplete") as caught:
                load_checkpoint(tmp_path)
            # A damaged manifest tells wrong things of the other files.
            assert str(path if name != "manifest.json" else path.parent) in str(caught.value)
    path.write_bytes(whole)
    assert_is(load_checkpoint(tmp_path), 8)


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"tensors.safetensors": 3}', "3", '"x"', "\x00"])
def test_a_manifest_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 8, *content(8), keep=2) / "manifest.json"
    path.write_text(text)
    with pytest.raises(UserError, match=str(path)):
        load_checkpoint(tmp_path)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-by-step").mkdir()
    save_checkpoint(tmp_path, 8, *content(8), keep=1)
    save_checkpoint(tmp_path, 9, *content(9), keep=1)
    assert names(tmp_path) == ["notes.txt", "step-000009", "step-by-step"]
    assert_is(load_checkpoint(tmp_path), 9)


# A full disk

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("policyopt.training.checkpoint.save_file", FULL),
        (
            "policyopt.training.checkpoint.save_file",
            SafetensorError("I/O error: No space left on device (os error 28)"),
        ),
        ("pathlib.Path.write_text", FULL),
        ("policyopt.training.checkpoint.sync", OSError(errno.EDQUOT, "Disk quota exceeded")),
        ("pathlib.Path.mkdir", FULL),
    ],
)
def test_a_full_disk_is_a_plain_message_and_changes_nothing(where: str, error: Exception, tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, *content(step), keep=2)
    with mock.patch(where, side_effect=error), pytest.raises(UserError, match="step-000003: the disk is full"):
        save_checkpoint(tmp_path, 3, *content(3), keep=2)
    assert names(tmp_path) == ["step-000001", "step-000002"]
    assert_is(load_checkpoint(tmp_path), 2)
    save_checkpoint(tmp_path, 3, *content(3), keep=2)
    assert_is(load_checkpoint(tmp_path), 3)


def test_a_broken_disk_is_named_and_other_errors_come_out_as_they_are(tmp_path: Path) -> None:
    with mock.patch.object(checkpoint, "save_file", side_effect=OSError(errno.EIO, "bad sector")):
        with pytest.raises(UserError, match=r"step-000003: could not be written .Input/output error.*--resume"):
            save_checkpoint(tmp_path, 3, *content(3), keep=2)
    with mock.patch.object(checkpoint, "save_file", side_effect=RuntimeError("ours")):
        with pytest.raises(RuntimeError, match="ours"):
            save_checkpoint(tmp_path, 3, *content(3), keep=2)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(tmp_path, 3, {"x": object()}, {}, keep=2)
    assert names(tmp_path) == []


@pytest.mark.parametrize("spare", [0, 100, 1800])
def test_a_disk_that_is_really_full(spare: int, tmp_path: Path) -> None:
    """Two checkpoints of 1.6 MB fit on 4 MB; the third meets the end of the disk in its tensors or before them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        for step in (1, 2):
            save_checkpoint(disk, step, *content(step, 200_000 if step == 1 else 1000), keep=2)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filler").write_bytes(b"0" * (free - 1024 * spare) if free > 1024 * spare else b"")
        with pytest.raises(UserError, match="step-000003: the disk is full"):
            save_checkpoint(disk, 3, *content(3, 400_000), keep=2)
        assert names(disk) == ["filler", "step-000001", "step-000002"]
        assert_is(load_checkpoint(disk), 2, 1000)
        (disk / "filler").unlink()
        save_checkpoint(disk, 3, *content(3, 100_000), keep=2)
        assert_is(load_checkpoint(disk), 3, 100_000)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# What others put there


def test_what_lies_beside_checkpoints_is_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, *content(3), keep=1)
    for name in ("step-000003-best", "step-abc", "step-٠٠٠٠٠٩", "step-7", "tmp-notes", "tmp-step-mine"):
        shutil.copytree(tmp_path / "step-000003", tmp_path / name)
    (tmp_path / "step-000009").write_text("a file")
    (tmp_path / "step-000008").symlink_to(tmp_path / "step-abc")
    others = set(names(tmp_path)) - {"step-000003"}
    assert_is(load_checkpoint(tmp_path), 3)
    save_checkpoint(tmp_path, 4, *content(4), keep=1)
    prune(tmp_path, keep=1)
    assert set(names(tmp_path)) == {"step-000004"} | others
    assert_is(load_checkpoint(tmp_path / "step-000003-best" / ".."), 4)
    with pytest.raises(UserError, match="step-000009: no checkpoint has this name"):
        save_checkpoint(tmp_path, 9, *content(9), keep=1)
    assert (tmp_path / "step-000009").read_text() == "a file"


def test_a_copy_under_the_name_of_another_step_is_not_taken_for_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, *content(3), keep=1)
    shutil.copytree(tmp_path / "step-000003", tmp_path / "step-000012")
    with pytest.raises(UserError, match="step-000012 is a copy of the checkpoint of step 3: move it away"):
        load_checkpoint(tmp_path)


def grows_too_large(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(UserError, match=r"step-000004: larger than this process may write .*--resume"):
        save_checkpoint(folder, 4, *content(4, 200_000), keep=1)


def test_a_file_beyond_the_limit_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, *content(3), keep=1)
    process = PROCESSES.Process(target=grows_too_large, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert names(tmp_path) == ["step-000003"]
    assert_is(load_checkpoint(tmp_path), 3)
