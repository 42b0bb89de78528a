"""What a run says where Ray cannot serve it, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch

from policyopt.engine import Model, Models, check_engine, checksum
from policyopt.engine.checksum import checksum as sum_of
from policyopt.engine.ray import crew, open_engine
from policyopt.engine.ray.cluster import Connection, need_ray
from policyopt.engine.settings import Cluster
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.part import part
from policyopt.sources.program import Rollout
from tests.runs import PROCESSES

RECIPE = grpo(group_size=4)


def test_the_checksum_sees_every_bit_place_name_and_type() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    whole = sum_of({"a": x, "b": x[:1]})
    flipped = x.clone()
    flipped.view(torch.int32)[1, 1] ^= 1
    swapped = x.clone()
    swapped[0, 0], swapped[0, 1] = x[0, 1], x[0, 0]
    others = [{"a": flipped, "b": x[:1]}, {"a": swapped, "b": x[:1]}, {"c": x, "b": x[:1]}, {"a": x}]
    others += [{"a": x.reshape(5, 3), "b": x[:1]}, {"a": x.double(), "b": x[:1]}]
    assert whole not in [sum_of(other) for other in others]
    assert whole == sum_of({"b": x[:1], "a": x.t().contiguous().t()}), "neither order nor layout counts"
    with mock.patch.object(checksum, "_AT_ONCE", 4):
        assert whole == sum_of({"a": x, "b": x[:1]}), "nor do the pieces that it is worked out in"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "no Ray cluster can be joined there"),
        ("nowhere.invalid:6379", "no Ray cluster can be joined there"),
        ("ray://127.0.0.1:10001", "without ray://"),
    ],
)
def test_an_address_that_cannot_be_joined(address: str, said: str, models: Models) -> None:
    with mock.patch("ray.is_initialized", return_value=False), pytest.raises(UserError, match=said):
        open_engine(models, RECIPE, Cluster(address=address))


def test_too_few_places(cluster: Connection, models: Models, tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"--trainers 4 --samplers 2 need 6 CPUs, and the Ray cluster has 5"):
        open_engine(models, RECIPE, Cluster(trainers=4, samplers=2))
    on_gpus = Models(Model(str(tiny_model), {"device": "cuda"}))
    with pytest.raises(UserError, match="need 2 GPUs, and the Ray cluster has 0"):
        open_engine(on_gpus, RECIPE, Cluster())


def test_processes_that_run_other_code(cluster: Connection, models: Models) -> None:
    theirs = crew.versions() | {"torch": "1.0"}
    with mock.patch.object(crew, "versions", return_value=theirs):
        with pytest.raises(UserError, match=r"trainer 0 runs torch .* instead of 1.0: install the same versions"):
            open_engine(models, RECIPE, Cluster())


def test_ray_that_is_not_installed() -> None:
    with mock.patch.dict(sys.modules, {"ray": None}), pytest.raises(UserError, match=r"pip install 'policyopt\[ray\]'"):
        need_ray()


@part
class Bent(Rollout):
    """A program that changes logits."""

    asks: ClassVar[frozenset[str]] = frozenset({"logit processors"})


def test_a_program_whose_function_would_run_in_the_sampler_is_refused() -> None:
    with pytest.raises(UserError, match=r"'logit processors' \(source Bent\)"):
        check_engine(RECIPE.set("source", Bent()), "ray")


def hold(said: Any) -> None:
    """A process that starts Ray and says who keeps it and where."""
    connection = Connection(Cluster())
    keeper = connection._keeper
    assert keeper is not None
    said.send((keeper.pid, keeper.args[-1]))
    time.sleep(600)


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_nothing_is_left_of_a_ray_whose_run_is_killed() -> None:
    shared = set(os.listdir("/dev/shm"))
    heard, said = PROCESSES.Pipe(duplex=False)
    process: Any = PROCESSES.Process(target=hold, args=(said,))
    process.start()
    assert heard.poll(180)
    leader, folder = heard.recv()
    assert len(session(leader)) > 3 and Path(folder).is_dir()
    process.kill()
    process.join()
    for _ in range(600):
        if not session(leader) and set(os.listdir("/dev/shm")) <= shared:  # where other programs come and go
            break
        time.sleep(0.1)
    assert session(leader) == [] and not Path(folder).exists()
    assert set(os.listdir("/dev/shm")) <= shared
