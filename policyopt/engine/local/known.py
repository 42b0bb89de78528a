"""What models that stand still think of given texts, kept on the disk by content: nothing is scored twice."""

from __future__ import annotations

import json
import logging
import mmap
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import policyopt
from policyopt.engine.checksum import checksum
from policyopt.models.load import Role
from policyopt.rows import Batch

LIMIT = 10 << 30
"""Bytes of all files together; what was not read for longest goes first."""
ROOM = 4 << 20
"""Bytes that wait in memory at most before they are written."""
HEAD = struct.Struct("<16sI")
"""Of a record: the digest of a text, and the bytes of its numbers, which follow it with a digest of the whole record."""
CHECK = 8
"""Bytes of that digest."""

Score = Callable[[Batch], Tensor]


class Known:
    """Log-probabilities of the tokens of texts under one model, read where they were written by this run or an earlier one.

    ``folder`` belongs to the model (:func:`fingerprint`). Every process that has something new writes one file of its own
    there, record after record, so that processes do not meet. A record whose digest is wrong, and all of its file behind
    it, is as if it were not there: its texts are scored again. Where the disk takes nothing, nothing is kept.

    A text is its prompt, its tokens, which of them are the policy's own, and its temperature: all that a number depends on
    beside the model. Another template gives other prompts. Numbers are kept to the bit, as they were when the text was met
    first; scored in other company, they would differ by float noise.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.folder, self.dtype = folder, dtype
        self._found: dict[bytes, memoryview] = {}
        self._new: list[bytes] = []
        self._file: Path | None = folder / f"{uuid.uuid4().hex}.bin"
        with suppress(OSError):
            for path in sorted(folder.glob("*.bin")):
                self._found.update(_records(path))

    def __len__(self) -> int:
        return len(self._found)

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        """[N, T] of a batch: ``score`` is asked for the rows that are not known yet, all at once, and for none where there
        are none."""
        if batch.support is not None or batch.routes is not None or batch.guided is not None:  # no given text has them
            return score(batch)
        texts = _texts(batch)
        new = [i for i, (key, _) in enumerate(texts) if key not in self._found]
        if new:
            said = score(batch[torch.tensor(new, device=batch.mask.device)]).to("cpu", self.dtype)
            for i, row in zip(new, said, strict=True):
                self._add(texts[i][0], row[: texts[i][1]].numpy().tobytes())
        out = torch.zeros(batch.mask.shape, dtype=self.dtype)
        for i, (key, length) in enumerate(texts):
            if length:
                out[i, :length] = torch.frombuffer(bytearray(self._found[key]), dtype=self.dtype)
        return out.to(batch.mask)

    def _add(self, key: bytes, numbers: bytes) -> None:
        if key in self._found:  # twice in one batch
            return
        self._found[key] = memoryview(numbers)
        record = HEAD.pack(key, len(numbers)) + numbers
        self._new.append(record + _check(record))
        if sum(map(len, self._new)) > ROOM:
            self.write()

    def write(self) -> None:
        """Put on the disk what is new."""
        if not self._new or self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(b"".join(self._new))
        except OSError as error:  # half a record may be there, and nothing behind it would be read
            self._file = None
            logging.getLogger(__name__).warning(
                f"{self.folder}: log-probabilities of given texts are not kept ({error})"
            )
        self._new = []


def open_known(folder: Path | None, roles: Mapping[str, Role], dtype: torch.dtype) -> dict[str, Known]:
    """What is known of models that stand still, by role; nothing where there is no folder to keep it in."""
    if folder is None:
        return {}
    make_room(folder)
    return {name: Known(folder / fingerprint(role, dtype), dtype) for name, role in roles.items()}


def fingerprint(role: Role, dtype: torch.dtype) -> str:
    """32 hexadecimal digits over all that what a model says depends on: every bit of its weights, its configuration, how and
    where it computes, and the versions of what does so."""
    model: Any = role.model
    config = model.config
    told = {key: x for key, x in config.to_dict().items() if key not in ("_name_or_path", "transformers_version")}
    way = [
        policyopt.__version__, torch.__version__, transformers.__version__, str(dtype), model.device.type,
        config._attn_implementation, json.dumps(told, sort_keys=True, default=str), checksum(role.tensors()),
    ]  # fmt: skip
    return blake2b("\0".join(map(str, way)).encode(), digest_size=16).hexdigest()


def make_room(folder: Path, limit: int = LIMIT) -> None:
    """Delete the files of a folder and its folders that were read longest ago, until the others take ``limit`` bytes."""
    found = []
    for path in folder.glob("*/*.bin"):
        with suppress(OSError):  # another process makes room too
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > limit:
            with suppress(OSError):
                path.unlink()


def _texts(batch: Batch) -> list[tuple[bytes, int]]:
    """The digest of each row's text, and how many tokens its response has."""
    ones = torch.ones(len(batch), dtype=torch.float64)
    columns = (
        batch.mask if batch.present is None else batch.present, batch.prompt, batch.prompt_mask, batch.tokens, batch.mask,
        ones if batch.temperature is None else batch.temperature.double(),
    )  # fmt: skip
    out = []
    for present, prompt, shown, tokens, mask, heat in zip(*(x.cpu().numpy() for x in columns), strict=True):
        there = present.nonzero()[0]
        length = int(there[-1]) + 1 if len(there) else 0
        parts = (prompt[shown > 0], tokens[:length], mask[:length] > 0, heat[:length] if heat.ndim else heat[None])
        found = blake2b(digest_size=16)
        for x in parts:
            found.update(struct.pack("<Q", len(x)) + x.tobytes())
        out.append((found.digest(), length))
    return out


def _records(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """The records of a file as far as they are whole."""
    with suppress(OSError, ValueError), path.open("rb") as file:  # an empty file cannot be mapped
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        path.touch()  # it is of use: see make_room
        start = 0
        while start + HEAD.size <= len(data):
            key, size = HEAD.unpack_from(data, start)
            end = start + HEAD.size + size
            if _check(data[start:end]) != data[end : end + CHECK]:
                return
            yield key, data[start + HEAD.size : end]
            start = end + CHECK


def _check(record: bytes | memoryview) -> bytes:
    return blake2b(record, digest_size=CHECK).digest()
