"""Trainer ranks that a launcher such as torchrun has started, all by one command: the first drives, the others serve it."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import cloudpickle

from policyopt.engine.sharded.crew import ALIKE
from policyopt.errors import UserError, first_line

if TYPE_CHECKING:
    from policyopt.engine.sharded.rank import Rank

_HOME = "go home"
_FALLEN = "policyopt/fallen"
"""Where the first rank that ended alone says why, in the store of the process group."""
_LONG = timedelta(days=365)
"""How long ranks wait for the driver: it may draw, judge or build a model for hours."""


class Launched:
    """A :class:`~policyopt.engine.sharded.crew.Crew` of the processes that a launcher started. This one, rank 0, takes its
    share of every call."""

    def __init__(self) -> None:
        import torch.distributed as dist

        from policyopt.engine.sharded.rank import Rank

        self._group = _join()
        self._rank, self._open = Rank(), True
        self.size = dist.get_world_size()

    def call(self, name: str, *args: Any) -> list[Any]:
        """See :class:`~policyopt.engine.sharded.crew.Crew`."""
        if not self._open:
            raise UserError("the ranks of this run have ended; go on with --resume")
        try:
            _say((name, args), self._group)
            replies: list[Any] = [None] * self.size
            _gather(_outcome(self._rank, name, args), replies, self._group)
        except BaseException as error:
            self._open = False  # the others may be in the middle of it, and are not to be talked to any more
            if isinstance(error, RuntimeError) and _of_peers(error):
                raise UserError(f"{_why(error)}. Go on from the last checkpoint with --resume") from error
            raise
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    def close(self) -> None:
        """See :class:`~policyopt.engine.sharded.crew.Crew`."""
        import torch.distributed as dist

        if self._open:
            self._open = False
            with suppress(RuntimeError):  # of ranks that have gone already
                _say((_HOME, ()), self._group)
                dist.destroy_process_group()


_crew: Launched | None = None


def crew() -> Launched:
    """The processes of the launcher, within :func:`launched`."""
    assert _crew is not None, "no launcher has started this"
    return _crew


@contextmanager
def launched() -> Iterator[None]:
    """What a launcher has started is one crew in here: on rank 0 the body runs; on the others it does not, they serve and
    then end by ``SystemExit``.

    Raises :class:`~policyopt.errors.UserError` where the ranks do not find each other.
    """
    global _crew
    if int(os.environ.get("RANK", "0")) > 0:
        serve()
        raise SystemExit(0)
    _crew = Launched()
    try:
        yield
    finally:
        _crew.close()
        _crew = None


def serve() -> None:
    """Do what the driver calls, until it sends this rank home or is gone.

    Signals are the driver's to answer: this rank would else leave in the middle of a step that shall still end.
    """
    import torch.distributed as dist

    from policyopt.engine.sharded.rank import Rank

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    group = _join()
    rank = Rank()
    while True:
        try:
            name, args = _heard(group)
            if name == _HOME:
                dist.destroy_process_group()
                return
            _gather(_outcome(rank, name, args), None, group)
        except Exception as error:
            if not _of_peers(error):
                _tell(error)
            os._exit(1)  # what lies open is of a run that has ended


def _join() -> Any:
    """Find the other ranks. Returns the group in which the driver talks.

    Raises :class:`~policyopt.errors.UserError` where they do not find each other.
    """
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, and the ranks do not find each other ({first_line(error)}): start "
                "them with torchrun"
            ) from error
    return dist.new_group(backend="gloo", timeout=_LONG)


def _outcome(rank: Rank, name: str, args: tuple[Any, ...]) -> Any:
    """What comes of a call: a result, or an error that every rank comes to alike."""
    try:
        return getattr(rank, name)(*args)
    except ALIKE as error:
        return error


def _say(call: tuple[str, tuple[Any, ...]], group: Any) -> None:
    import torch
    import torch.distributed as dist

    dist.broadcast_object_list([cloudpickle.dumps(call)], 0, group=group, device=torch.device("cpu"))


def _heard(group: Any) -> tuple[str, tuple[Any, ...]]:
    import torch
    import torch.distributed as dist

    said: list[Any] = [None]
    dist.broadcast_object_list(said, 0, group=group, device=torch.device("cpu"))
    call: tuple[str, tuple[Any, ...]] = cloudpickle.loads(said[0])
    return call


def _gather(reply: Any, replies: list[Any] | None, group: Any) -> None:
    import torch.distributed as dist

    dist.gather_object(reply, replies, 0, group=group)


# Ranks that end ---------------------------------------------------------------------------------------------------------


def _of_peers(error: BaseException) -> bool:
    """Whether an error says that another process is gone, rather than what is wrong in this one."""
    import torch.distributed as dist

    kinds = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, kinds) or bool(re.search(r"gloo|NCCL|[Cc]onnection", str(error)))


def _tell(error: BaseException) -> None:
    """Say why this rank ends alone, to people and to the driver."""
    import torch.distributed as dist

    rank = dist.get_rank()
    text = "".join(traceback.format_exception(error))
    print(f"rank {rank}: {text}", file=sys.__stderr__, flush=True)
    _store().set(_FALLEN, f"rank {rank} stopped: {first_line(error)}")


def _why(error: BaseException) -> str:
    """Why the ranks ended."""
    try:
        store = _store()
        if store.check([_FALLEN]):
            return str(store.get(_FALLEN).decode())
    except Exception:  # the store has ended as well
        pass
    said = "" if "gloo" in str(error) else f" ({first_line(error)})"  # gloo knows no more than that
    return f"a rank of this run has ended, and the others with it{said}"


def _store() -> Any:
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()
