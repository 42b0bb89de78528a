"""Code of a user's own by name: ``my.py:name`` and ``package.module:name``; and the names of parts in YAML.

A file runs once, under a module name that follows from its path, with its own folder importable meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from policyopt import schema
from policyopt.errors import UserError, nearest
from policyopt.index import OWN_FILE, index
from policyopt.registry import library_part, need_method

if TYPE_CHECKING:
    from policyopt.part import Part

_LOG = logging.getLogger("policyopt")
_LOADED: dict[Path, tuple[str, ModuleType]] = {}
"""The files that have run: path -> digest of what stood there, and the module."""
_FILES: dict[str, Path] = {}
"""Name of a module that was made from a file -> the file."""


def split(name: str) -> tuple[str, str]:
    """A file or a module, and the name in it; ``""`` where none is given."""
    if name.endswith((".py", ".yaml", ".yml")):
        return name, ""
    home, _, attribute = name.rpartition(":")
    return home, attribute


def is_own(name: str) -> bool:
    """Whether a name is of somebody's own code: a file, or a module and a name in it."""
    return name.endswith((".py", ".yaml", ".yml")) or (":" in name and name not in index())


def need(name: str) -> str:
    """The name as the library writes it. Raises :class:`~policyopt.errors.UserError` for one that is no method of the library,
    and for that of a file that is not there. Nothing runs and nothing is imported."""
    if is_own(name):
        need_file(name)
        return name
    try:
        return need_method(name)
    except KeyError as error:
        raise UserError(f"{error.args[0]}; one of your own is my.py, my.py:NAME or package.module:NAME") from error


def need_file(name: str) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a name of a file that is not there."""
    home = split(name)[0]
    if home.endswith((".py", ".yaml", ".yml")) and not Path(home).is_file():
        raise UserError(f"there is no file {home}")


def lookup(name: str) -> Any:
    """What stands under ``my.py:name`` or ``package.module:name``. The file runs, like any script.

    Raises :class:`~policyopt.errors.UserError` for a file or module that is not there or raises, with file and line,
    and for a name that is not in it, with the nearest ones.
    """
    home, attribute = split(name)
    found: Any = load_file(Path(home)) if home.endswith(".py") else load_module(home)
    for step in attribute.split("."):
        if not hasattr(found, step):
            known = [n for n in vars(found) if not n.startswith("_")]
            raise UserError(f"{name}: nothing is called {step!r} there; {nearest(step, known)}")
        found = getattr(found, step)
    return found


# Loading -------------------------------------------------------------------------------------------------------------


def load_file(path: Path) -> ModuleType:
    """The module of a file; the file runs where it has not, or has changed since. What it prints goes to standard error.

    Raises :class:`~policyopt.errors.UserError` where it is not there or raises, with the line.
    """
    need_file(str(path))
    shown, path = path, path.resolve()
    if (imported := _imported(path)) is not None:
        return imported
    digest = hashlib.blake2b(path.read_bytes()).hexdigest()
    if path in _LOADED and _LOADED[path][0] == digest:
        return _LOADED[path][1]
    name = f"{OWN_FILE}{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{shown} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pydantic look types up
    _FILES[name] = path
    _LOG.info("running %s", shown)
    try:
        with _on_path(0, str(path.parent)), contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{shown} cannot be imported: {_line(error, path)}{_said(error)}") from error
    _LOADED[path] = digest, module
    return module


def load_module(name: str) -> ModuleType:
    """An importable module; the current folder counts too. Raises :class:`~policyopt.errors.UserError`."""
    if name not in sys.modules:
        _LOG.info("running %s", name)
    try:
        with _on_path(len(sys.path), str(Path.cwd())), contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{name} cannot be imported: {_said(error)}") from error
        raise UserError(f"no module {error.name!r} in the current folder or the installed packages") from error
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
        place = f"{frames[-1].filename}, line {frames[-1].lineno}: "
        raise UserError(f"{name} cannot be imported: {place}{_said(error)}") from error


def loaded_files() -> list[str]:
    """The files of one's own that have run, in order: another process needs them to read what was made of them."""
    return [str(path) for path in _LOADED]


@contextlib.contextmanager
def forgotten(path: Path) -> Iterator[ModuleType]:
    """The module of a file; if it had not run before, it and its columns are forgotten afterwards."""
    if _imported(path.resolve()) is not None or path.resolve() in _LOADED:
        yield load_file(path)
        return
    with schema.forgotten():
        module = load_file(path)
        try:
            yield module
        finally:
            del _LOADED[path.resolve()]
            sys.modules.pop(module.__name__, None)


def _imported(path: Path) -> ModuleType | None:
    """The module that the running program has made of a file already: its script, or something that it imports."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(path.name) and not name.startswith(OWN_FILE) and Path(file).resolve() == path:
            return module
    return None


@contextlib.contextmanager
def _on_path(place: int, folder: str) -> Iterator[None]:
    sys.path.insert(place, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have changed the path itself
            sys.path.remove(folder)


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if Path(f.filename).resolve() == path]
    return f"line {lines[-1]}: " if lines else ""


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


# Parts ---------------------------------------------------------------------------------------------------------------


def part_name(cls: type[Part]) -> str:
    """The name by which YAML finds a class of parts again: ``Normalise`` for the library's, else with its file or
    module: ``/home/me/my.py:Normalise``, ``package.module:Normalise``."""
    if cls.__module__.startswith("policyopt."):
        return cls.__name__
    home: object = cls.__module__
    if cls.__module__ in _FILES:
        home = _FILES[cls.__module__]
    elif cls.__module__ == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        home = Path(file).resolve()
    return f"{home}:{cls.__qualname__}"


def part_class(name: str) -> type[Part]:
    """The class of parts of a name that :func:`part_name` gave. A file that it names runs.

    Raises :class:`~policyopt.errors.UserError` for a name that is not known, and for what is no part.
    """
    from policyopt.part import Part

    if ":" not in name:
        try:
            return library_part(name)
        except KeyError as error:
            own = f"a part of your own is written with its file or module: my.py:{name}, package.module:{name}"
            raise UserError(f"{error.args[0]}; {own}") from error
    if "<locals>" in name:
        raise UserError(f"{name} is made inside a function and cannot be found again: define it at the top of its file")
    found = lookup(name)
    if not (isinstance(found, type) and issubclass(found, Part)):
        raise UserError(f"{name} is no part: expected a class under @part, made from a slot of policyopt.part")
    return found
