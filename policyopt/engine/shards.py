"""Checkpoints in shards: each rank writes what it holds, and any number of ranks, or a process without any, reads it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

SHARDS = "shards"
"""The folder of a checkpoint that they lie in, in the format of :mod:`torch.distributed.checkpoint`."""


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write tensors by name; every rank of the process group has to, and each writes the parts that it holds.

    Raises ``OSError``, on every rank, where one of them cannot write.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save({name: x.detach() for name, x in tensors.items()}, storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:
        raise _reason(error, folder) from error


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors among those of ``like`` that were written, each spread as that is; every rank of the process group has to
    ask, if there is one.

    Raises ``KeyError`` for one of another shape, ``OSError``, on every rank, where a file cannot be read.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(folder)
    try:
        written = reader.read_metadata().state_dict_metadata
    except Exception as error:  # whatever a pickle raises that is none
        raise OSError(f"{folder}: it cannot be read ({error})") from error
    found = {name: torch.zeros_like(x.detach()) for name, x in like.items() if name in written}
    for name, x in found.items():
        size = getattr(written[name], "size", None)
        if size != x.shape:
            raise KeyError(f"{name}: shape {tuple(size or ())}, expected {tuple(x.shape)}")
    try:
        with warnings.catch_warnings():  # that there is one process alone, as there should be
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(found, storage_reader=reader, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise _reason(error, folder) from error
    return found


def placed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, which every rank has, each spread as that of ``like``; those of another shape stay as they are."""

    def spread(x: Tensor, model: Tensor | None) -> Tensor:
        if not isinstance(model, DTensor) or model.shape != x.shape:
            return x
        return distribute_tensor(x.to(model.device), model.device_mesh, model.placements, src_data_rank=None)

    return {name: spread(x, like.get(name)) for name, x in tensors.items()}


def _reason(error: BaseException, folder: Path) -> OSError:
    """What went wrong on a rank, as all of them tell it."""
    failures = getattr(error, "failures", {})
    first = next((e for e, _ in failures.values()), error)
    if isinstance(first, OSError):
        return first
    return OSError(f"{folder}: {first}")
