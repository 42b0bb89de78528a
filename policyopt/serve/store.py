"""What outlives the process: sessions, models, samplers and checkpoints, each written whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from policyopt.errors import UserError
from policyopt.files import read_json, sync, write_whole
from policyopt.serve.refused import Refused, unknown

Kind = Literal["weights", "sampler_weights", "external_weights", "live"]
"""Of a checkpoint: with the optimiser's state, to draw from, to take away; ``live`` is where a model stood when the server was ended."""
Thing = Literal["sessions", "models", "samplers"]

ADAPTERS, REST, RECORD = "adapter_model.safetensors", "optimizer.safetensors", "checkpoint.json"
_OLD, _GONE = "tmp-old-", "tmp-gone-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}", re.ASCII)
_PATH = re.compile(r"tinker://([^/]+)/(weights|sampler_weights|external_weights)/([^/]+)", re.ASCII)


@dataclass(frozen=True)
class Saved:
    """A checkpoint."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Its address, ``tinker://MODEL/KIND/NAME``."""
        return str(self.record["path"])

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        return sum(p.stat().st_size for p in self.folder.iterdir())

    def adapters(self) -> dict[str, Tensor]:
        """Its adapters by name."""
        return self._load(ADAPTERS)

    def rest(self) -> dict[str, Tensor] | None:
        """The state of the optimiser, where it was kept."""
        return self._load(REST) if (self.folder / REST).is_file() else None

    def _load(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.folder / name)
        except Exception as error:  # whatever safetensors raises for a file that somebody has cut or removed
            raise Refused(
                f"{self.path} is damaged on the server's disk ({name}): load another checkpoint", 410
            ) from error


class Store:
    """The folder of a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.things: dict[str, dict[str, dict[str, Any]]] = {}
        for thing in ("sessions", "models", "samplers"):
            (folder / thing).mkdir(parents=True, exist_ok=True)
            self.things[thing] = dict(self._read(thing))
        (folder / "checkpoints").mkdir(exist_ok=True)
        for old in folder.glob(f"checkpoints/*/*/{_OLD}*"):  # of a process that was killed between two renames
            if not (name := old.with_name(old.name.removeprefix(_OLD))).exists():
                old.rename(name)
        for scrap in folder.glob("checkpoints/*/*/tmp-*"):  # ... while it wrote
            shutil.rmtree(scrap, ignore_errors=True)

    def _read(self, thing: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted((self.folder / thing).glob("*.json")):
            if path.name.startswith("tmp-"):
                path.unlink(missing_ok=True)
                continue
            record = read_json(path, 1 << 20)
            yield record["id"], record

    def put(self, thing: Thing, record: Mapping[str, Any]) -> None:
        """Write a record, which has an ``id``."""
        write_whole(self.folder / thing / f"{record['id']}.json", json.dumps(record), durable=True)
        self.things[thing][record["id"]] = dict(record)

    def drop(self, thing: Thing, name: str) -> None:
        """Forget a record."""
        self.things[thing].pop(name, None)
        (self.folder / thing / f"{name}.json").unlink(missing_ok=True)

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def save(
        self, model: str, kind: Kind, name: str, write: Callable[[Path], None], record: Mapping[str, Any], *,
        overwrite: bool = False,
    ) -> Saved:  # fmt: skip
        """Write a checkpoint: ``write`` fills a folder, which then gets its name. Raises
        :class:`~policyopt.serve.refused.Refused` for a name that cannot be one or is taken, and for a full disk."""
        if not _NAME.fullmatch(name) or name.startswith("tmp-"):
            raise Refused(f"path {name[:200]!r}: a name of 1 to 128 letters, digits and _ . : - is needed, no folder")
        final = self.folder / "checkpoints" / model / kind / name
        if final.exists() and not overwrite:
            raise Refused(f"path {name!r}: a checkpoint of this model has that name; choose another")
        scratch = final.with_name(f"tmp-{name}")
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            write(scratch)
            path = f"tinker://{model}/{kind}/{name}"
            whole = dict(record) | {"path": path, "model": model, "kind": kind, "name": name, "time": time.time()}
            (scratch / RECORD).write_text(json.dumps(whole))
            for file in (*scratch.iterdir(), scratch):
                sync(file)
            if final.exists():
                final.rename(old := final.with_name(_OLD + name))
                scratch.rename(final)
                shutil.rmtree(old, ignore_errors=True)
            else:
                scratch.rename(final)
            sync(final.parent)
        except OSError as error:
            raise Refused(f"the checkpoint cannot be written on the server ({error.strerror or error})", 507) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Saved(final, whole)

    def find(self, path: str) -> Saved:
        """A checkpoint by its address. Raises :class:`~policyopt.serve.refused.Refused` where there is none."""
        parts = _PATH.fullmatch(path)
        if parts is None:
            raise Refused(
                f"{path[:200]!r} is no address of a checkpoint: tinker://MODEL/weights/NAME (or sampler_weights, external_weights)"
            )
        model, kind, name = parts.groups()
        if _NAME.fullmatch(model) and _NAME.fullmatch(name):
            found = self._open(self.folder / "checkpoints" / model / kind / name)
            if found is not None:
                return found
        raise unknown(f"{path}: this server holds no such checkpoint")

    def all(self, model: str = "*") -> list[Saved]:
        """The checkpoints, of one model or of all, newest first."""
        if model != "*" and not _NAME.fullmatch(model):
            return []
        opened = (self._open(p.parent) for p in (self.folder / "checkpoints").glob(f"{model}/*weights/*/{RECORD}"))
        return sorted((s for s in opened if s is not None), key=lambda s: -s.record["time"])

    def live(self, model: str) -> Saved | None:
        """Where a model stood when the server was ended."""
        return self._open(self.folder / "checkpoints" / model / "live" / "state")

    def _open(self, folder: Path) -> Saved | None:
        if folder.name.startswith("tmp-"):
            return None
        try:
            saved = Saved(folder, read_json(folder / RECORD, 1 << 20))
        except UserError:
            return None
        expires = saved.record.get("expires")
        if expires is not None and expires < time.time():
            self.delete(saved)
            return None
        return saved

    def amend(self, saved: Saved, **changes: Any) -> None:
        """Change the record of a checkpoint."""
        write_whole(saved.folder / RECORD, json.dumps(dict(saved.record) | changes), durable=True)

    def delete(self, saved: Saved) -> None:
        """Remove a checkpoint: first its name, then its files."""
        old = saved.folder.with_name(_GONE + saved.folder.name)
        with suppress(OSError):
            saved.folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)


def write_tensors(folder: Path, **files: Mapping[str, Tensor]) -> None:
    """Write tensors by name into files of safetensors, ``NAME.safetensors`` each."""
    for name, tensors in files.items():
        save_file({k: x.detach().cpu().contiguous() for k, x in tensors.items()}, folder / f"{name}.safetensors")


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store in a folder, which no other server can take meanwhile. Raises :class:`~policyopt.errors.UserError` where one
    has it or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "serve.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"--folder {folder}: another server has it; end that one, or choose another folder") from None
    except OSError as error:
        raise UserError(f"--folder {folder}: it cannot be written ({error.strerror}); choose another") from error
    try:
        yield Store(folder)
    finally:
        lock.release()
