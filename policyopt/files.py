"""Files that a run starts from and leaves: read within limits, written whole or not at all. Nothing heavy is imported."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from json.decoder import JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

import yaml

from policyopt.errors import UserError

MAX_JSON = 256 << 20
"""Bytes of a JSON file."""
MAX_YAML = 1 << 20
"""Bytes of a YAML file."""
MAX_DEPTH = 100
"""Lists and mappings inside each other."""
MAX_KEY = 1000
"""Characters of a key."""
MAX_NODES = 100_000
"""Values that a YAML file stands for, each as often as an alias repeats it."""


class Malformed(ValueError):
    """What is wrong with a text, and in which of its lines (from 1; 0: not known)."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line

    def at(self, path: Path, kind: str) -> UserError:
        """The error as a reader of the file needs it."""
        return UserError(f"{path}{f', line {self.line}' if self.line else ''}: not {kind} ({self})")


def need_run(folder: Path) -> None:
    """Raises :class:`~policyopt.errors.UserError` where no run lies."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--resume {folder}: no run lies there (config.yaml is missing)")


def read_bytes(path: Path, most: int) -> bytes:
    """A file. Raises :class:`~policyopt.errors.UserError` where it cannot be read or holds more than ``most`` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r}: cannot be read ({error})") from error  # a NUL in the name
    if len(data) > most:
        raise UserError(f"{path}: larger than {most >> 20} MiB, which no such file needs to be")
    return data


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file, whole or not at all; a ``durable`` one is on the disk for good before it has its name. Raises ``OSError`` as
    any writing does; nothing is left behind then.

    A lone surrogate, which a model's bytes can decode to, has no UTF-8 form: it becomes "?".
    """
    scratch = path.with_name(f"tmp-{path.name}")
    try:
        scratch.write_bytes(text.encode("utf-8", "replace"))
        if durable:
            sync(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """See to it that a file, or the names in a folder, are on the disk for good."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of ``folder`` at the end: that appears whole or not at all, and one that exists is
    replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f"tmp-{folder.name}-*"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"tmp-{folder.name}-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        yield whole
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        whole.rename(folder)


# JSON ----------------------------------------------------------------------------------------------------------------


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """The value in a JSON file, as :func:`parse_json` reads it. Raises :class:`~policyopt.errors.UserError` naming the
    file, and the line."""
    try:
        return parse_json(read_bytes(path, most))
    except Malformed as error:
        raise error.at(path, "JSON") from error


def parse_json(data: bytes | str, *, finite: bool = True) -> Any:
    """The value that a text is in JSON, strictly: no key twice or of more than ``MAX_KEY`` characters, nothing nested
    deeper than ``MAX_DEPTH``, and where ``finite`` no NaN or infinity.

    Raises :class:`Malformed`.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse if finite else None)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"{error.msg} at column {error.colno}", error.lineno) from None
    except RecursionError:
        raise Malformed(f"nested more than {MAX_DEPTH} deep") from None
    except Malformed as error:
        raise Malformed(str(error), _line_of_object(text)) from None
    except ValueError:
        raise Malformed("a number of thousands of digits") from None
    _need_shallow(value, finite)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Malformed(f"the key {next(k for k in keys if keys.count(k) > 1)[:40]!r} stands twice in an object")
    for key in found:
        if len(key) > MAX_KEY:
            raise Malformed(f"a key of {len(key)} characters, {key[:40]!r}...")
    return found


def _refuse(constant: str) -> None:
    raise Malformed(f"{constant} is no number of JSON")


class _Placing(json.JSONDecoder):
    """A slow decoder that knows where the object with the error begins."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=_unique)
        self.start: int | None = None
        self.parse_object = self._placed
        self.scan_once = py_make_scanner(self)

    def _placed(self, place: tuple[str, int], *rest: Any) -> Any:
        try:
            return JSONObject(place, *rest)
        except Malformed:
            self.start = place[1] if self.start is None else self.start
            raise


def _line_of_object(text: str) -> int:
    decoder = _Placing()
    try:
        decoder.decode(text)
    except (ValueError, RecursionError):
        pass
    return 0 if decoder.start is None else text.count("\n", 0, decoder.start) + 1


def _need_shallow(value: Any, finite: bool) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Malformed(f"nested more than {MAX_DEPTH} deep")
        inside = [y for x in level for y in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else [x])]
        if finite and any(isinstance(x, float) and not math.isfinite(x) for x in inside):
            raise Malformed("a number beyond all bounds")
        level = [x for x in inside if isinstance(x, dict | list)]


# YAML ----------------------------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as :func:`parse_yaml` reads it. Raises :class:`~policyopt.errors.UserError` naming the
    file, and the line."""
    try:
        data = parse_yaml(read_bytes(path, MAX_YAML))
    except Malformed as error:
        raise error.at(path, "valid YAML") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of fields such as `steps: 100`")
    return data


def parse_yaml(data: bytes | str) -> Any:
    """The value that a text is in YAML: plain data, no key twice, and no more of it than ``MAX_NODES`` and ``MAX_DEPTH``
    allow, so that aliases of aliases cannot blow it up.

    Raises :class:`Malformed`.
    """
    try:
        loader = yaml.SafeLoader(data)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise Malformed(reason, mark.line + 1 if mark else 0) from None
    except RecursionError:
        raise Malformed(f"nested more than {MAX_DEPTH} deep") from None
    except Malformed:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # of a date that is none, a huge number ...
        raise Malformed(f"a value that cannot be read: {error}"[:200]) from None


def _count(node: yaml.Node, known: dict[yaml.Node, int], depth: int) -> int:
    """How many values a node stands for."""
    line = node.start_mark.line + 1
    if node in known:
        if not known[node]:
            raise Malformed("an alias stands inside what it is an alias of", line)
        return known[node]
    if depth > MAX_DEPTH:
        raise Malformed(f"nested more than {MAX_DEPTH} deep", line)
    known[node] = 0
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _need_unique(node)
        inside = [x for pair in node.value for x in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    total = 1
    for x in inside:
        total += _count(x, known, depth + 1)
        if total > MAX_NODES:
            raise Malformed(f"it stands for more than {MAX_NODES} values", line)
    known[node] = total
    return total


def _need_unique(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if len(key.value) > MAX_KEY:
            raise Malformed(f"a key of {len(key.value)} characters, {key.value[:40]!r}...", line)
        if (key.tag, key.value) in seen:
            raise Malformed(f"the key {key.value!r} stands there twice", line)
        seen.add((key.tag, key.value))
