"""Code of a user's own: ``my.py``, ``my.py:name`` and ``package.module:name`` stand wherever a name of the library does.

A file runs once, under a module name that follows from its path, with its own folder importable meanwhile. What it
defines stays its own: nothing of it enters the registry, and its parts have qualified names.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError, nearest
from policyopt.registry import library_part

if TYPE_CHECKING:
    from policyopt.part import Part

_PREFIX = "_policyopt_own_"
_SEEN: dict[Path, tuple[str, ModuleType]] = {}
"""The files that have run: path -> digest of what stood there, and the module."""


def is_own(name: str) -> bool:
    """Whether a name is of the user's own code (a file, or a module and a name in it) rather than the library's."""
    return ":" in name or name.endswith(".py")


def split(name: str) -> tuple[str, str]:
    """The file or module that a name speaks of, and the name in it; ``""`` where none is given."""
    home, _, attribute = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return home, attribute


def need(name: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` where the file of a name is not there. Nothing is imported."""
    home = split(name)[0]
    if home.endswith(".py") and not Path(home).is_file():
        raise UserError(f"there is no file {home}")


def load(name: str) -> tuple[ModuleType, str]:
    """The module that a name of one's own speaks of, and the name in it.

    Raises :class:`~policyopt.errors.UserError` for a file or module that is not there or cannot be imported, with the
    line where that is known.
    """
    home, attribute = split(name)
    if home.endswith(".py"):
        return load_file(Path(home)), attribute
    try:
        return importlib.import_module(home), attribute
    except Exception as error:  # a user's module may raise anything
        raise UserError(f"{name}: {home} cannot be imported: {type(error).__name__}: {error}") from error


def lookup(name: str) -> Any:
    """What stands under ``my.py:name`` or ``package.module:name``.

    Raises :class:`~policyopt.errors.UserError` as :func:`load` does, and for a name that is not there with the nearest.
    """
    module, attribute = load(name)
    return _attribute(module, attribute, name)


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    there: Any = module
    for step in attribute.split("."):
        if step == "<locals>":
            raise UserError(f"{name} is defined inside a function: move it to the top of its file")
        if not hasattr(there, step):
            known = [n for n in vars(there) if n[0] != "_"]
            raise UserError(f"{name}: nothing is called {step!r} there; {nearest(step, known)}")
        there = getattr(there, step)
    return there


def load_file(path: Path) -> ModuleType:
    """The module of a file. The file runs, like any script; what it prints goes to standard error.

    Once it has run it is kept until it changes. Raises :class:`~policyopt.errors.UserError` as :func:`load` does.
    """
    need(str(path))
    path = path.resolve()
    digest = hashlib.blake2b(path.read_bytes()).hexdigest()
    if path not in _SEEN or _SEEN[path][0] != digest:
        _SEEN[path] = digest, run_file(path)
    return _SEEN[path][1]


def run_file(path: Path) -> ModuleType:
    """As :func:`load_file`, whether it has run before or not."""
    need(str(path))
    path = path.resolve()
    name = f"{_PREFIX}{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # where dataclasses and pydantic look types up
    sys.path.insert(0, str(path.parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise UserError(f"{path} cannot be imported: {_place(error, path)}{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _place(error: BaseException, path: Path) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path]
    if isinstance(error, SyntaxError) and Path(error.filename or "").resolve() == path:
        lines = [error.lineno]  # a file that cannot be parsed has no frame
    return f"line {lines[-1]}: " if lines else ""


# Parts ---------------------------------------------------------------------------------------------------------------


def part_name(cls: type[Part]) -> str:
    """The name of a part in YAML: bare of the library's, ``/path/my.py:Name`` or ``package.module:Name`` of others.

    A file stands with its whole path, so that a run of it is found again from anywhere.
    """
    if cls.__module__.startswith("policyopt."):
        return cls.__name__
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is not None and (cls.__module__ == "__main__" or cls.__module__.startswith(_PREFIX)):
        return f"{Path(file).resolve()}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def part_class(name: str) -> type[Part]:
    """The part of a name that :func:`part_name` gives; the file or module of somebody's own runs for it.

    Raises :class:`~policyopt.errors.UserError` for a name that nothing has, or that is no part.
    """
    from policyopt.part import Part

    if not is_own(name):
        try:
            return library_part(name)
        except KeyError as error:
            raise UserError(
                f"{error.args[0]}; a part of your own is written FILE.py:{name} or MODULE:{name}"
            ) from error
    cls = lookup(name)
    if not (isinstance(cls, type) and issubclass(cls, Part) and "__dataclass_fields__" in cls.__dict__):
        raise UserError(f"{name} is no part: expected a class under @part, made from a slot of policyopt.parts")
    return cls
