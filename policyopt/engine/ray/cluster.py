"""The Ray that a run works on: one of its own that ends with it, or a cluster that is joined."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from policyopt import __version__
from policyopt.engine.ray.keeper import ADDRESS
from policyopt.engine.settings import Cluster
from policyopt.errors import UserError, first_line

PATIENCE = 120.0
"""Seconds that a cluster may take to start a process of ours."""
ENDING = 30.0
"""Seconds that a Ray of our own may take to end."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_DEDUP_LOGS": "0"}

SECRET = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
"""Where Ray reads that it has to ask for a secret, and which. Its ports are open to whoever reaches this machine; the secret of a Ray
that is started here is made anew each time, and never written."""


def need_ray() -> Any:
    """The package. Raises :class:`~policyopt.errors.UserError` where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError("--engine ray needs the package ray: pip install 'policyopt[ray]'") from error
    return ray


def versions() -> dict[str, str]:
    """What has to be the same in all processes of a run."""
    ray = need_ray()
    return {"python": platform.python_version(), "torch": torch.__version__, "policyopt": __version__} | {
        "ray": ray.__version__
    }


class Connection:
    """A connection to Ray. Where the process has one already it is used, and stays.

    Raises :class:`~policyopt.errors.UserError` where the address cannot be reached or Ray does not start.
    """

    def __init__(self, settings: Cluster) -> None:
        self.ray = need_ray()
        self.address = settings.address
        self._keeper: subprocess.Popen[str] | None = None
        self._secret: dict[str, str] = {}
        self._mine = not self.ray.is_initialized()
        if not self._mine:
            return
        try:
            address = self.address or self._start(settings.trainers + settings.samplers)
            self._join(address)
        except BaseException:
            self.close()
            raise

    @property
    def local(self) -> bool:
        """Whether Ray was started here, for this run alone."""
        return self._keeper is not None

    def _start(self, processes: int) -> str:
        """Start Ray on this machine; returns its address. It has a place for each process, however few processors there are."""
        if SECRET[0] not in os.environ:  # else somebody has chosen
            self._secret = _secret({SECRET[0]: "token", SECRET[1]: os.environ.get(SECRET[1]) or secrets.token_hex(32)})
        short = (
            "/tmp" if os.path.isdir("/tmp") else None
        )  # sockets lie there, whose paths may have a hundred characters
        folder = tempfile.mkdtemp(prefix="policyopt-ray-", dir=short)
        said = Path(folder, "keeper.txt")
        places = max(os.cpu_count() or 1, processes)
        with said.open("w") as errors:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "policyopt.engine.ray.keeper", str(places), folder], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._keeper.stdout is not None
        for line in self._keeper.stdout:
            if line.startswith(ADDRESS):
                return line.removeprefix(ADDRESS).strip()
        reason = said.read_text().strip().splitlines()[-1:] if said.exists() else []
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"Ray does not start on this machine: {' '.join(reason) or 'it ended without a word'}")

    def _join(self, address: str) -> None:
        if address.startswith("ray://"):
            raise UserError(f"--address {address}: give the address of the cluster itself, host:port without ray://")
        host, _, port = address.rpartition(":")
        try:
            if port.isdecimal():
                socket.create_connection((host, int(port)), timeout=10).close()
            with _signals_kept():
                self.ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--address {address}: no Ray cluster can be joined there ({first_line(error, 300)}): start one with `ray start "
                "--head` and give its host:port, or leave --address out"
            ) from error

    def need_places(self, trainers: int, samplers: int, device: str) -> str:
        """The device of the processes, ``cuda`` or ``cpu``. Raises :class:`~policyopt.errors.UserError` where the cluster has
        too few for them."""
        has, needed = self.ray.cluster_resources(), trainers + samplers
        asked = f"--trainers {trainers} --samplers {samplers}"
        gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        if device.startswith("cuda") or (device == "auto" and gpus):
            if gpus < needed:
                raise UserError(
                    f"{asked} need {needed} GPUs, and the Ray cluster has {gpus}: take fewer, add nodes, or take --device cpu"
                )
            return "cuda"
        if cpus < needed:
            raise UserError(f"{asked} need {needed} CPUs, and the Ray cluster has {cpus}: take fewer, or add nodes")
        return "cpu"

    def close(self) -> None:
        """Leave Ray; where it is the run's own, it ends."""
        if self._mine and self.ray.is_initialized():
            with _signals_kept():
                self.ray.shutdown()
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            assert keeper.stdin is not None and keeper.stdout is not None
            with contextlib.suppress(OSError):
                keeper.stdin.close()
            try:
                keeper.wait(ENDING)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(keeper.pid, signal.SIGKILL)
                keeper.wait()
            keeper.stdout.close()
        if self._secret:
            self._secret = _secret({})


def _secret(secret: dict[str, str]) -> dict[str, str]:
    """Put a secret into the environment, where Ray and its processes find it, and return it; an empty one takes it out again."""
    for name in SECRET:
        os.environ.pop(name, None)
    os.environ |= secret
    with contextlib.suppress(ImportError):  # what was read of the environment when Ray was imported
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
    return secret


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the one that ends a run in good order."""
    try:
        before = signal.getsignal(signal.SIGTERM)
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: nothing was changed
            signal.signal(signal.SIGTERM, before)
