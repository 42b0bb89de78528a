"""The record of a run: files that only grow while it trains, and the reader of what they hold."""

from __future__ import annotations

import errno
import json
import math
import numbers
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from policyopt.errors import UserError
from policyopt.files import Malformed, parse_json, parse_yaml
from policyopt.spans import span

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from policyopt.training.tracking import Trackers

Position = dict[str, int]


_GO_ON = "then go on with --resume and the folder of the run"
_FULL = f"the disk is full, so this file could not be written. Free some space, {_GO_ON}"
_LIMITED = f"larger than this process may write ({{reason}}). Raise the limit (ulimit -f unlimited), {_GO_ON}"
_FORBIDDEN = "may not be written ({reason}). Choose another folder with --out"
_TOLD = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _LIMITED, errno.EACCES: _FORBIDDEN, errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
}  # fmt: skip
_BROKEN = f"could not be written ({{reason}}). See to the disk, {_GO_ON}"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written (a full disk, a limit, a forbidden place, a broken
    disk) into a :class:`UserError` that names ``path`` and how to go on."""
    try:
        yield
    except Exception as e:
        number = getattr(e, "errno", None)
        if number is None and (said := re.search(r"\(os error (\d+)\)", str(e))):  # as safetensors says it
            number = int(said[1])
        if number is None:
            raise
        raise UserError(f"{path}: {_TOLD.get(number, _BROKEN).format(reason=os.strerror(number))}") from e


class RunLog:
    """Metrics and samples of a run, written to its folder while it trains.

    ``metrics.jsonl`` and ``samples.jsonl`` hold one JSON object per line, ``tensorboard/`` the same metrics for
    TensorBoard, and ``trackers`` get them too. Each line goes out in one write, so a killed process loses at most the line
    it was writing.
    :meth:`position` belongs in a checkpoint; :meth:`rewind` brings all three back to it, so that a resumed run
    logs no step twice. An existing folder is continued.

    Raises :class:`UserError` naming the file where the disk is full or the folder may not be written.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True, trackers: Trackers | None = None) -> None:
        self.folder = Path(folder)
        self._trackers = trackers
        self.tensorboard = self.folder / "tensorboard" if tensorboard else None
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics = _Lines(self.folder / "metrics.jsonl")
        self._samples = _Lines(self.folder / "samples.jsonl")
        self._writer: SummaryWriter | None = None
        self._purge: int | None = None
        self._next = 0  # the first step that is not logged yet

    @span("log")
    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Append one line: ``step``, then the values in alphabetical order. NaN and infinity are written as null."""
        row = {name: _plain(values[name]) for name in sorted(values)}
        self._metrics.append({"step": int(step), **row})
        self._next = int(step) + 1
        if self.tensorboard is not None:
            with disk_errors(self.tensorboard):
                writer = self._open_writer(self.tensorboard)
                for name, value in row.items():
                    if isinstance(value, int | float):
                        writer.add_scalar(name, value, int(step))
        if self._trackers is not None:
            self._trackers.log(int(step), row)

    @span("log")
    def sample(self, record: Mapping[str, Any]) -> None:
        """Append one response with what it was worth; keys keep their order."""
        self._samples.append(record)

    def position(self) -> Position:
        """Where the files end, safe on disk: ``metrics`` and ``samples`` in bytes, ``step`` the next step to log."""
        if self._writer is not None and self.tensorboard is not None:
            with disk_errors(self.tensorboard):
                self._writer.flush()
        return {"metrics": self._metrics.sync(), "samples": self._samples.sync(), "step": self._next}

    def rewind(self, position: Mapping[str, int]) -> None:
        """Forget what was written after ``position``, a half line of a killed process included.

        An empty mapping rewinds to the very start. Raises :class:`UserError` where a file is shorter than its
        position: then it is not the file that the checkpoint was written beside, and nothing is changed.
        """
        position = position or {"metrics": 0, "samples": 0, "step": 0}
        self._metrics.check(position["metrics"])
        self._samples.check(position["samples"])
        if self._trackers is not None:
            self._trackers.sent = max((row["step"] for row in _read_lines(self._metrics.path)), default=-1)
        self._metrics.truncate(position["metrics"])
        self._samples.truncate(position["samples"])
        self._next = self._purge = position["step"]
        self._close_writer()

    def close(self) -> None:
        """Flush and close everything; closing twice is harmless."""
        self._metrics.close()
        self._samples.close()
        self._close_writer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_writer(self, folder: Path) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # here, because reading a run should not need torch

            # TensorBoard drops the events from purge_step on that an earlier process left in the same folder.
            self._writer = SummaryWriter(str(folder), purge_step=self._purge, flush_secs=15)
        return self._writer

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and self.tensorboard is not None:
            with disk_errors(self.tensorboard):
                writer.close()


class _Lines:
    """An append-only file of JSON lines that never ends in half a line for longer than a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            self.fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._cut_half_line()

    def append(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
        # A lone surrogate, which a model's bytes can decode to, has no UTF-8 form: it becomes "?".
        data = text.encode("utf-8", "replace") + b"\n"
        with disk_errors(self.path):
            written = os.write(self._fd(), data)
            while written < len(data):  # only on a disk that is about to be full
                try:
                    written += os.write(self._fd(), data[written:])
                except OSError:
                    os.ftruncate(self._fd(), self._size() - written)
                    raise

    def sync(self) -> int:
        with disk_errors(self.path):
            os.fsync(self._fd())
        return self._size()

    def check(self, offset: int) -> None:
        if self._size() < offset:
            raise UserError(
                f"{self.path}: has {self._size()} bytes, but the checkpoint was written when it had {offset}. The file "
                "was cut or exchanged: put the right one back, or start again in a new folder"
            )

    def truncate(self, offset: int) -> None:
        with disk_errors(self.path):
            os.ftruncate(self._fd(), offset)

    def close(self) -> None:
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)

    def _fd(self) -> int:
        if self.fd is None:
            raise ValueError(f"{self.path} is closed")
        return self.fd

    def _size(self) -> int:
        return os.fstat(self._fd()).st_size

    def _cut_half_line(self) -> None:
        end = size = self._size()
        while end > 0:
            start = max(0, end - 65536)
            newline = os.pread(self._fd(), end - start, start).rfind(b"\n")
            end = start if newline < 0 else start + newline + 1
            if newline >= 0:
                break
        if end < size:
            os.ftruncate(self._fd(), end)


def _plain(x: Any) -> Any:
    """Data that standard JSON can hold: tensors and numpy scalars become numbers, what is not finite becomes None."""
    if x is None or isinstance(x, str | bool):
        return x
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if isinstance(x, numbers.Integral):
        return int(x)
    if isinstance(x, numbers.Real):
        return float(x) if math.isfinite(x) else None
    if hasattr(x, "tolist"):
        return _plain(x.tolist())
    raise TypeError(f"a log line holds numbers, text, lists and mappings, not {type(x).__name__}: {x!r:.80}")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder holds. A file that the run has not written yet reads as empty."""

    folder: Path
    config: dict[str, Any]
    config_text: str
    metrics: list[dict[str, Any]]
    """One mapping per step, in the order of the steps."""
    samples: list[dict[str, Any]]
    summary: dict[str, Any]
    """Empty while the run goes on and after it was killed."""


def read_run(folder: Path) -> RunRecord:
    """Read the files of a run, finished or not. Half a line at the end of a file, left by a killed process, is skipped.

    Raises :class:`UserError` where the folder is missing or is no run, or a file is damaged (with its line).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: there is no such folder. Give the folder of a run, as `policyopt train --out` wrote it"
        )
    names = ("config.yaml", "metrics.jsonl", "summary.json")
    if not any((folder / name).is_file() for name in names):
        raise UserError(f"{folder}: is not the folder of a run: it has none of {', '.join(names)}")
    config_text = _read(folder / "config.yaml")
    try:
        config = parse_yaml(config_text)
    except Malformed as e:
        raise e.at(folder / "config.yaml", "valid YAML") from e
    return RunRecord(
        folder,
        config if isinstance(config, dict) else {},
        config_text,
        _read_lines(folder / "metrics.jsonl"),
        _read_lines(folder / "samples.jsonl"),
        read_summary(folder / "summary.json"),
    )


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""


def read_summary(path: Path) -> dict[str, Any]:
    """What ``summary.json`` holds; nothing where it is not there yet. Raises :class:`UserError` for a damaged one."""
    text = _read(path)
    if not text.strip():
        return {}
    try:
        summary = parse_json(text, finite=False)
    except Malformed as e:
        raise UserError(f"{e.at(path, 'JSON')}. Without this file the run reads as unfinished") from e
    if not isinstance(summary, dict):
        raise UserError(
            f"{path}: holds {type(summary).__name__}, expected an object with method, model, task, before, after"
        )
    return summary


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    # Only "\n" ends a record: text of a model may hold any other line break that str.splitlines knows.
    *lines, _half = _read(path).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line, finite=False)
        except Malformed as e:
            raise UserError(f"{path}:{number}: not JSON ({e}). Delete this line to read the rest") from e
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: holds {type(record).__name__}, expected one JSON object per line")
        records.append(record)
    return records
