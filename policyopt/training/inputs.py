"""What a run was started from: fingerprints of its rows, its code and its models, by which a resumed run sees a change."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyopt.carried import is_carried, need
from policyopt.errors import UserError
from policyopt.files import read_json, write_whole
from policyopt.items import Example, Task
from policyopt.judging.modules import find_source
from policyopt.models.embedded import spread
from policyopt.training.config import TrainConfig
from policyopt.training.logging import disk_errors

FILE = "inputs.json"
WHOLE = 64 << 20
"""Bytes up to which a file of a model is read whole."""
BLOCKS, BLOCK = 64, 1 << 18
"""Of a larger one, so many blocks of so many bytes are read, evenly spread from its first to its last."""

_CODE = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
"""What names code in a configuration: ``my.py:name``, ``package.module:name``."""
_MODEL = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja", ".gguf"}
"""Files of a folder that a model is made of."""

Digests = Mapping[str, str]


@dataclass(frozen=True)
class Inputs:
    """Digests of what a run is started from."""

    task: str
    """Name of the task."""
    rows: Digests
    """By id: all rows of a dataset, training and held out; of questions that are made when asked for, some evenly
    spread."""
    code: Digests
    """By path: the files of the judge and of parts of one's own, and what they import from beside them."""
    models: Mapping[str, Digests]
    """By role, "policy" among them: the files of the model's folder."""

    def changes(self, now: Inputs) -> list[str]:
        """What is different now, in words."""
        found = []
        ids = {*self.rows, *now.rows}
        if differ := sorted((i for i in ids if self.rows.get(i) != now.rows.get(i)), key=_in_order):
            first = f"{len(now.rows)} rows, {len(differ)} differ (first: {differ[0]})"
            found.append(f"{now.task} has changed since the run began: {first}")
        found += [f"{f} has changed since the run began" for f in _unlike(self.code, now.code)]
        for role in sorted({*self.models, *now.models}):
            if files := _unlike(self.models.get(role, {}), now.models.get(role, {})):
                whose = "the model" if role == "policy" else f"the model in the role {role}"
                found.append(f"{whose} has changed since the run began ({', '.join(files[:3])})")
        return found

    def to_json(self) -> str:
        """As a run's folder keeps them; :func:`read_inputs` reads them back."""
        return json.dumps(dataclasses.asdict(self))


def _unlike(a: Digests, b: Digests) -> list[str]:
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def _in_order(id: str) -> tuple[str, int]:
    """Row 9 comes before row 10."""
    source, _, number = id.rpartition(":")
    return source, int(number) if number.isdecimal() else 0


def read_inputs(out: Path) -> Inputs | None:
    """What a run's folder keeps; None for a run that kept nothing.

    Raises :class:`~policyopt.errors.UserError` for a file that holds something else.
    """
    if not (out / FILE).is_file():
        return None
    data = read_json(out / FILE, 4 << 30)
    try:
        return Inputs(
            str(data["task"]), dict(data["rows"]), dict(data["code"]), {k: dict(v) for k, v in data["models"].items()}
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"{out / FILE}: not what a run writes; delete it to go on without a look at what changed"
        ) from error


def inputs_of(config: TrainConfig, task: Task, models: Mapping[str, str]) -> Inputs:
    """Fingerprints of what was loaded; ``models`` says by role in which folder, or under which hub id, a model lies, or carries it."""
    named = _strings(
        [
            config.recipe.to_dict(),
            config.judge,
            config.env,
            (config.env or "").partition(":")[2],
            task.judge and [task.judge.name, task.judge.options],
        ]
    )
    digests = {role: found for role, model in models.items() if (found := _model(model)) is not None}
    return Inputs(
        task.name,
        dict(_rows(task)),
        {str(path): _digest(path.read_bytes()) for path in sorted(_code(named))},
        digests,
    )


def refuse_changes(out: Path, now: Inputs, accept: bool) -> list[str]:
    """What has changed since the run in a folder began, where that is accepted; it then goes by what is there now.

    Raises :class:`~policyopt.errors.UserError` naming the changes where it is not.
    """
    old = read_inputs(out)
    unknown = "nothing is known of what it was started from, so whether that has changed cannot be told"
    found = [unknown] if old is None else old.changes(now)
    if old is not None and found and not accept:
        raise UserError(
            f"--resume {out}: {'; '.join(found)}. Put back what was there, go on all the same with --accept-changes, or "
            "start another run"
        )
    if found:
        with disk_errors(out / FILE):
            write_whole(out / FILE, now.to_json())
    return found


# Rows ----------------------------------------------------------------------------------------------------------------


def _rows(task: Task) -> Iterator[tuple[str, str]]:
    # What comes with a question that is made when asked for may be packed otherwise in every process.
    given = isinstance(task.train, list | tuple)
    for example in [*(task.train if given else spread(task.train)), *task.heldout]:
        yield example.id, _row(example, {"id"} if given else {"id", "meta"})


def _row(example: Example, left: set[str]) -> str:
    fields = {name: x for name, x in vars(example).items() if x and name not in left}
    return _digest(json.dumps(fields, sort_keys=True, default=repr).encode("utf-8", "surrogatepass"), 6)


def _digest(data: bytes, size: int = 16) -> str:
    return hashlib.blake2b(data, digest_size=size).hexdigest()


# Code ----------------------------------------------------------------------------------------------------------------


def _strings(x: Any) -> Iterator[str]:
    """All text in plain data."""
    if isinstance(x, str):
        yield x
    elif isinstance(x, Mapping):
        yield from (s for pair in x.items() for y in pair for s in _strings(y))
    elif isinstance(x, list | tuple):
        yield from (s for y in x for s in _strings(y))


def _code(names: Iterator[str]) -> set[Path]:
    """The source files that names of code stand for, and what these import from beside them."""
    found: set[Path] = set()
    for name in names:
        home = m[1] if (m := _CODE.fullmatch(name)) else ""
        if home and not home.startswith("policyopt."):
            with suppress(UserError):  # text that only looks like a name
                if (source := find_source(home, name)) is not None:
                    _add(source.resolve(), found)
    return found


def _add(path: Path, found: set[Path]) -> None:
    if path in found:
        return
    found.add(path)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [a.name for a in node.names]
        for name in names:
            base = path.parent.joinpath(*name.split("."))
            for beside in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
                if beside.is_file():
                    _add(beside, found)


# Models --------------------------------------------------------------------------------------------------------------


def _model(model: str) -> Digests | None:
    """Digests of what a model is made of: of its folder, of its one file, or of what a session holds; None where nothing is
    here."""
    if is_carried(model):
        found: Digests = need(model, "model").digests()
        return found
    if Path(model).is_file():
        return {Path(model).name: _file(Path(model))}
    if (folder := _folder(model)) is None:
        return None
    return {p.name: _file(p) for p in sorted(folder.iterdir()) if p.suffix in _MODEL and p.is_file()}


def _folder(model: str) -> Path | None:
    """Where the files of a model are: its folder, or that of a hub id in the cache; None where there is none."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _file(path: Path) -> str:
    """A digest of a file; of a large one, of its size and of blocks evenly spread over it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        found = hashlib.blake2b(str(size).encode(), digest_size=16)
        for i in range(BLOCKS):
            file.seek(i * (size - BLOCK) // (BLOCKS - 1))
            found.update(file.read(BLOCK))
        return found.hexdigest()
