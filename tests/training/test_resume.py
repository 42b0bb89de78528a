"""A run that is killed, at whatever moment, and resumed ends as one that nobody disturbed: to the bit."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.recipe import Update
from policyopt.training.checkpoint import load_checkpoint, save_checkpoint
from policyopt.training.config import Checkpoints, Optim, TrainConfig, config_from_yaml
from policyopt.training.run import run
from tests.runs import assert_same_end, die, finish, hear, left_behind, nth, start, tiny_run
from tests.tiny import write_task

KINDS: dict[str, dict[str, Any]] = {
    "grpo": {"recipe": grpo(group_size=4)},
    "ppo": {
        "recipe": ppo(group_size=2, kl_target=1.0, entropy_coef=0.01).replace(update=Update(epochs=2, minibatches=2)),
        "batch": 8,
    },
    "stale": {"recipe": reinforce(group_size=4, kl_coef=0.01), "staleness": 2},
    "dapo": {"recipe": dapo(group_size=4, rounds=3, minibatches=2)},
}
"""What a checkpoint has to remember differs: a moving baseline, moments of two optimisers, a queue of batches, a cursor that jumps."""

MORE: dict[str, dict[str, Any]] = {
    "remax": {"recipe": remax(group_size=2), "batch": 8},
    "lora": {"recipe": grpo(group_size=4), "lora": True},
    "stale-ppo": {"recipe": ppo(group_size=1, epochs=2), "batch": 4, "staleness": 2},
    "stale-dapo": {"recipe": dapo(group_size=4, rounds=2), "staleness": 1, "checkpoints": Checkpoints(every=3, keep=1)},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def undisturbed(place: Path, tiny_model: Path) -> Callable[[str], tuple[TrainConfig, dict[str, Any], float]]:
    """The configuration of a kind of run, what it leaves behind when nobody disturbs it, and the seconds of its loop."""
    task = write_task(place / "task")

    @functools.cache
    def of(kind: str) -> tuple[TrainConfig, dict[str, Any], float]:
        config = tiny_run(place / f"{kind}-undisturbed", tiny_model, task, **(KINDS | MORE)[kind])
        process = start(config)
        hear(process)
        begun = time.perf_counter()
        finish(process, config)
        assert config.out is not None
        return config, left_behind(config.out), time.perf_counter() - begun

    return of


def again(config: TrainConfig, out: Path) -> TrainConfig:
    """The same run in another folder."""
    return dataclasses.replace(config, out=out)


def started(out: Path) -> bool:
    """Whether there is a run to go on with; where one was killed before that, its folder is cleared."""
    config = out / "config.yaml"
    there = config.exists() and config.stat().st_size > 0
    if not there:
        shutil.rmtree(out, ignore_errors=True)
    return there


def scraps(out: Path) -> list[str]:
    """What should not be there when a run is over."""
    return [str(p.relative_to(out)) for p in out.rglob("tmp-*")]


def kill_and_resume(config: TrainConfig, seconds: float, kills: int, seed: int) -> list[int]:
    """Kill a run and its resumptions at random moments of their loops (some before), then let it end.

    Returns the newest checkpoint at each kill, -1 for none. There are fewer kills where a run ends before its own.
    """
    rng, out = random.Random(seed), config.out
    assert out is not None
    at: list[int] = []
    while len(at) < kills:
        process = start(config, resume=started(out))
        if rng.random() > 0.2:
            hear(process)
        process.join(rng.uniform(0.0, seconds if not at else seconds / 2))
        if process.exitcode is None:
            process.kill()
            process.join()
            at.append(max((int(p.name[5:]) for p in (out / "checkpoints").glob("step-*")), default=-1))
            continue
        finish(process, config)
        if at:
            return at
        shutil.rmtree(out)  # it was faster than the one that was timed
        seconds /= 2
    finish(start(config, resume=started(out)), config)
    return at


# At random moments


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, undisturbed: Any, tmp_path: Path) -> None:
    config, reference, seconds = undisturbed(kind)
    out = tmp_path / "run"
    assert kill_and_resume(again(config, out), seconds, kills=2, seed=len(kind))
    assert_same_end(out, reference)
    assert not scraps(out)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS | MORE)
def test_killed_many_times(kind: str, seed: int, undisturbed: Any, tmp_path: Path) -> None:
    config, reference, seconds = undisturbed(kind)
    out = tmp_path / "run"
    at = kill_and_resume(again(config, out), seconds, kills=12, seed=100 * seed + len(kind))
    print(f"{kind}: {len(at)} kills, at checkpoints {at}")
    assert at
    assert_same_end(out, reference)
    assert not scraps(out)


# At chosen moments


def before(original: Any, *args: Any, **kwargs: Any) -> None:
    die()


def after(original: Any, *args: Any, **kwargs: Any) -> None:
    original(*args, **kwargs)
    die()


def halfway(original: Any, tensors: Any, path: Path) -> None:
    """Half of the file is on the disk."""
    original(tensors, path)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
        os.fsync(file.fileno())
    die()


def half_removed(original: Any, path: Path, **kwargs: Any) -> None:
    """One of the files of an old checkpoint is gone."""
    sorted(Path(path).iterdir())[0].unlink()
    die()


CHECKPOINT, EVALUATOR = "policyopt.training.checkpoint", "policyopt.training.evaluate:Evaluator"
TRAINER, POLICY = "policyopt.training.loop:Trainer", "policyopt.models.load:Policy"
trap = functools.partial(functools.partial, nth)
MOMENTS: list[tuple[str, Callable[[], None], int]] = [
    ("before the first checkpoint", trap(EVALUATOR, "__call__", 0, after), -1),
    ("half of the first checkpoint", trap(CHECKPOINT, "save_file", 0, halfway), -1),
    ("the second without its manifest", trap(CHECKPOINT, "_digest", 3, before), 0),
    ("half of the second", trap(CHECKPOINT, "save_file", 0, halfway), 0),
    ("all but its new name", trap(CHECKPOINT, "sync", 4, before), 0),
    ("a step after it", trap(TRAINER, "step", 2, after), 2),
    ("in an evaluation", trap(EVALUATOR, "__call__", 0, before), 2),
    ("the third there, old ones not yet deleted", trap(CHECKPOINT, "sync", 5, after), 4),
    ("an old one half deleted at the start", trap("shutil", "rmtree", 0, half_removed), 4),
    ("an old one half deleted at the next checkpoint", trap("shutil", "rmtree", 1, half_removed), 6),
    ("the last checkpoint written, nothing else", trap(EVALUATOR, "__call__", 1, before), 10),
    ("while the model is written", trap("transformers:PreTrainedModel", "save_pretrained", 0, after), 10),
    ("before the summary has its name", trap("pathlib:Path", "replace", 1, before), 10),
    ("before the report", trap("policyopt.training.report", "read_run", 0, before), 10),
]
"""Where a run and its resumptions kill themselves one after the other, and the newest checkpoint that is there then."""


def test_killed_at_the_worst_moments_one_after_the_other(undisturbed: Any, tmp_path: Path) -> None:
    config, reference, _ = undisturbed("grpo")
    config = again(config, tmp_path / "run")
    for moment, sabotage, newest in MOMENTS:
        process = start(config, resume=started(config.out), sabotage=sabotage)
        process.join(120)
        assert process.exitcode == -9, (moment, config.out.with_suffix(".txt").read_text()[-3000:])
        found = load_checkpoint(config.out / "checkpoints")
        assert (-1 if found is None else found.step) == newest, moment
        summary = config.out / "summary.json"
        assert not summary.exists() or json.loads(summary.read_text())["steps"] == 10, "whole or not at all"
    finish(start(config, resume=True), config)
    assert_same_end(config.out, reference)
    assert not scraps(config.out)


# What resuming means


@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_is_seen_once_in_each_pass(kind: str, undisturbed: Any) -> None:
    """The reference itself: 18 prompts to train on, in passes, whoever filters or waits."""
    config, reference, _ = undisturbed(kind)
    metrics = [m for m in reference["metrics"] if m["step"] > 0]
    assert [m["step"] for m in metrics] == list(range(1, 11))
    assert reference["state"]["cursor"] == sum(m["prompts"] for m in metrics) >= 10 * config.prompts
    train = [s for s in reference["samples"] if s["phase"] == "train"]
    seen = Counter(s["id"] for s in train)
    assert all(count % config.recipe.source.size == 0 for count in seen.values())
    if kind == "dapo":
        assert any(m["filtered"] > 0 for m in metrics), "some prompts were drawn and dropped"
        return
    passes, rest = divmod(10 * config.prompts, 18)
    times = {count // config.recipe.source.size for count in seen.values()}
    assert times <= {passes, passes + 1}
    assert sum(count == (passes + 1) * config.recipe.source.size for count in seen.values()) == rest
    first_pass = list(dict.fromkeys(s["id"] for s in train))
    assert len(first_pass) == 18


def test_resuming_a_finished_run_changes_nothing(undisturbed: Any, tmp_path: Path) -> None:
    config, reference, _ = undisturbed("grpo")
    config = again(config, tmp_path / "run")
    shutil.copytree(undisturbed("grpo")[0].out, config.out)
    finish(start(config, resume=True), config)
    assert_same_end(config.out, reference)


def test_a_checkpoint_of_an_earlier_version_is_refused_as_such(undisturbed: Any, tmp_path: Path) -> None:
    config, _, _ = undisturbed("grpo")
    config = again(config, tmp_path / "run")
    shutil.copytree(undisturbed("grpo")[0].out, config.out)
    found = load_checkpoint(config.out / "checkpoints")
    assert found is not None
    old = {"policy/lm_head.weight": torch.zeros(2)}
    state = {name: value for name, value in found.state.items() if name != "step"}
    save_checkpoint(config.out / "checkpoints", found.step, state, old, keep=1)
    with pytest.raises(UserError, match="written by an earlier version of policyopt"):
        run(config, resume=config.out, quiet=True)


def test_more_steps_may_be_asked_for_and_are_remembered(place: Path, tmp_path: Path, tiny_model: Path) -> None:
    task, constant = write_task(place / "task"), Optim(lr=3e-3)
    whole = tiny_run(tmp_path / "whole", tiny_model, task, optim=constant, steps=4)
    part = tiny_run(tmp_path / "part", tiny_model, task, optim=constant, steps=2)
    assert whole.out is not None
    assert part.out is not None
    assert run(whole, quiet=True).summary["steps"] == 4
    assert run(part, quiet=True).summary["steps"] == 2
    assert run(dataclasses.replace(part, steps=4), resume=part.out, quiet=True).summary["steps"] == 4
    mine, other = left_behind(part.out), left_behind(whole.out)
    assert [m["step"] for m in mine["metrics"]] == list(range(5))
    assert mine["metrics"] == other["metrics"]
    assert all((mine["weights"][k] == x).all() for k, x in other["weights"].items())
    assert config_from_yaml(part.out / "config.yaml").steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "that run has seed = 1, not 2"),
        ({"recipe": grpo(group_size=4, low=0.3)}, "that run has recipe.surrogate.low = 0.2, not 0.3"),
        ({"batch": 8}, "that run has batch = 16, not 8"),
        ({"eval": {"prompts": 3}}, "that run has eval.prompts = 6, not 3"),
    ],
)
def test_what_would_change_the_past_is_refused(change: dict[str, Any], message: str, undisturbed: Any) -> None:
    config, _, _ = undisturbed("grpo")
    if "eval" in change:
        change = {"eval": dataclasses.replace(config.eval, **change["eval"])}
    before = sorted((p, p.stat().st_mtime_ns) for p in config.out.rglob("*"))
    with pytest.raises(UserError, match=message):
        run(dataclasses.replace(config, **change), resume=config.out, quiet=True)
    assert sorted((p, p.stat().st_mtime_ns) for p in config.out.rglob("*")) == before, "nothing was touched"


# A full disk


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Take all the space that is left."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def filled(disk: Path, original: Any, *args: Any, **kwargs: Any) -> Any:
    fill(disk)
    return original(*args, **kwargs)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(undisturbed: Any, tmp_path: Path) -> None:
    config, reference, _ = undisturbed("grpo")
    with small_disk(tmp_path / "disk", 48) as disk:
        config = again(config, disk / "run")
        for where, name, n in ((TRAINER, "step", 4), (POLICY, "save", 0)):
            process = start(
                config, resume=started(config.out), sabotage=trap(where, name, n, functools.partial(filled, disk))
            )
            process.join(120)
            assert process.exitcode == 1
            (disk / "filler").unlink()
            text = config.out.with_suffix(".txt").read_text()
            assert "UserError" in text.splitlines()[-1], text[-3000:]
            assert "the disk is full" in text.splitlines()[-1]
            assert not scraps(config.out)
            config.out.with_suffix(".txt").unlink()
        finish(start(config, resume=True), config)
        assert_same_end(config.out, reference)
