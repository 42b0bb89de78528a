"""How runs hand each other what they have drawn: packages of text, and a folder in which they lie."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import pydantic
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter

from policyopt.files import parse_json
from policyopt.items import Example

MAX_BYTES = 1 << 23
"""Of a package."""


MAX_RESPONSES = 64
"""In a package."""


MAX_MESSAGES = 64
"""In a question."""


MAX_FILES = 1 << 16
"""That a folder is looked through for."""


_STRICT = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


class Unusable(Exception):
    """A package that cannot be used; the message is one word that the log counts it under."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class ChatMessage:
    """One message of a question."""

    role: Annotated[str, Field(pattern="^[a-z_]{1,32}$")]
    content: str


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Written:
    """A response."""

    text: str
    finished: bool
    """It ended by itself, inside the budget of the run that wrote it."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Package:
    """A question, what its judge needs, and the responses of one run. Text alone: a run that takes it in encodes and
    judges it by itself."""

    question: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    answer: str
    meta: dict[str, JsonValue]
    responses: Annotated[list[Written], Field(min_length=2, max_length=MAX_RESPONSES)]

    def example(self, id: str) -> Example:
        """The question, as a task would ask it."""
        return Example(id, tuple({"role": t.role, "content": t.content} for t in self.question), self.answer, None, self.meta)  # fmt: skip

    def to_json(self) -> bytes:
        """The package as JSON. Raises ``ValueError`` for what others would not take: text that is none (lone
        surrogates), numbers that are not finite, and too much of it."""
        data = _PACKAGE.dump_json(self)
        parse_json(data)
        if len(data) > MAX_BYTES:
            raise ValueError(f"a package of {len(data)} bytes, more than {MAX_BYTES}")
        return data

    @classmethod
    def from_json(cls, data: bytes) -> Package:
        """Read a package that somebody else has written. Raises :class:`Unusable` for anything but a package: nothing
        in it is more than text, finite numbers, and lists and mappings of these, and nothing is said twice."""
        try:
            parse_json(data)
            return _PACKAGE.validate_json(data)
        except ValueError as error:
            raise Unusable("malformed") from error


_PACKAGE: TypeAdapter[Package] = TypeAdapter(Package)


def package(example: Example, written: list[tuple[str, bool]]) -> Package:
    """A question with responses to it, each with whether it has ended.

    Raises ``ValidationError`` where there are too few or too many, or the question's metadata is not JSON.
    """
    messages = [ChatMessage(m["role"], m["content"]) for m in example.prompt]
    return Package(messages, example.answer, _plain(example.meta), [Written(*w) for w in written])


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {k: _plain(v) for k, v in x.items()}
    return [_plain(v) for v in x] if isinstance(x, list | tuple) else x


class Channel(Protocol):
    """Where runs publish packages and find those of others. Nobody waits for anybody."""

    def publish(self, step: int, number: int, content: Package) -> None:
        """Make a package known to others, under a number of its own in its step.

        Raises ``OSError`` where that fails, ``ValueError`` for a package that cannot be sent.
        """
        ...

    def collect(self, step: int) -> list[str]:
        """The names of what others have published and is not too old, in any order. ``step`` is where the run is.

        Raises ``OSError`` where that fails.
        """
        ...

    def read(self, name: str) -> Package:
        """A package. Raises :class:`Unusable` where it is none."""
        ...


_NAME = re.compile(r"(?P<run>[\w-]+)\.(?P<step>\d{6,12})\.(?P<number>\d{1,6})\.json", re.ASCII)


@dataclass(frozen=True)
class Folder:
    """A folder that several runs can write to: one JSON file for each package, called after run, step and number. It is
    made where it is missing.

    A file appears whole or not at all, and under the same name again where a resumed run repeats a step. When a run
    collects, it removes its own packages but those of its last ``keep`` steps. What lies in the folder was written by
    strangers: only plain files of at most ``MAX_BYTES`` are read, and what does not hold a package is
    :class:`Unusable`.
    """

    path: Path
    run: str
    """The name of this run, which no other one has: letters, digits, ``-`` and ``_``."""
    keep: int = 4
    """Steps."""
    max_age: float = 3600.0
    """Seconds after which the packages of others are too old."""

    def publish(self, step: int, number: int, content: Package) -> None:
        """See :class:`Channel`."""
        data, scratch = content.to_json(), self.path / f"tmp-{uuid.uuid4().hex}"
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with open(scratch, "xb") as file:  # never through a link that somebody has put there
                file.write(data)
            scratch.replace(self.path / f"{self.run}.{step:06d}.{number}.json")
        finally:
            scratch.unlink(missing_ok=True)

    def collect(self, step: int) -> list[str]:
        """See :class:`Channel`."""
        self.path.mkdir(parents=True, exist_ok=True)
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in itertools.islice(entries, MAX_FILES)]
        packages = {name: found for name in names if (found := _NAME.fullmatch(name))}
        mine = {name: int(found["step"]) for name, found in packages.items() if found["run"] == self.run}
        for name, published in mine.items():
            if published <= step - self.keep:
                (self.path / name).unlink(missing_ok=True)
        oldest = time.time() - self.max_age
        return [name for name in packages if name not in mine and self._changed(name) > oldest]

    def read(self, name: str) -> Package:
        """See :class:`Channel`."""
        try:
            with open(self.path / name, "rb", opener=_plain_file) as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise Unusable("gone") from None
        except OSError as error:
            raise Unusable("malformed") from error
        if len(data) > MAX_BYTES:
            raise Unusable("large")
        return Package.from_json(data)

    def _changed(self, name: str) -> float:
        with contextlib.suppress(OSError):
            return (self.path / name).lstat().st_mtime
        return 0.0


def _plain_file(path: str, flags: int) -> int:
    """Open a file, but neither follow a link out of the folder nor wait for the other end of a pipe."""
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("not a plain file")
    return file
