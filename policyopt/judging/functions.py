"""Python functions as judges by name: found, and checked before anything runs."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from inspect import Signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from policyopt.errors import UserError
from policyopt.judging.calls import judge_from
from policyopt.judging.given import is_given, need
from policyopt.judging.kinds import Judge
from policyopt.judging.modules import find_source
from policyopt.judging.signatures import ASKED, COMPARING, columns_read, signature_of, style_of


def split_name(name: str) -> tuple[str, str] | None:
    """File or module, and function; ``None`` where ``name`` is not an import path."""
    home, colon, function = name.rpartition(":")
    return (home, function) if colon and home and function.isidentifier() else None


def function_judge(name: str, options: Mapping[str, Any]) -> Judge:
    """A Python function by its name ``module:function`` or ``file.py:function``; its file is loaded here. A callable that
    came without a file is here already."""
    if is_given(name):
        return judge_from(need(name), options)
    home, function = split_name(name) or ("", "")
    module = _load(Path(home).resolve()) if home.endswith(".py") else importlib.import_module(home)
    return judge_from(getattr(module, function), options)


def _load(path: Path) -> ModuleType:
    """The module of a file, which runs once."""
    label = f"judge_{path.stem}"
    known = sys.modules.get(label)
    if known is not None and known.__file__ == str(path):
        return known
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(label, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module
    spec.loader.exec_module(module)
    return module


Definition = ast.FunctionDef | ast.AsyncFunctionDef


class Known(NamedTuple):
    """What can be said of a function before anything runs."""

    signature: Signature
    place: str
    """``"my.py, line 3: "``; empty where that is unknown."""
    written: str
    """``"score(prompt, response)"``."""


def look_at(name: str) -> Known | None:
    """A judge's function without running anything; ``None`` where only running its file would tell.

    Raises :class:`~policyopt.errors.UserError` for a file, module or function that is not there.
    """
    if is_given(name):
        function = need(name)
        code = getattr(inspect.unwrap(function), "__code__", None)
        place = f"{code.co_filename}, line {code.co_firstlineno}: " if code and Path(code.co_filename).is_file() else ""
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return None
        label = getattr(function, "__name__", type(function).__name__)
        return Known(signature, place, f"{label}{signature}")
    home, function_name = split_name(name) or ("", "")
    source = find_source(home, name)
    found = None if source is None else _definition(name, source, function_name)
    if found is None or not _as_written(found):
        return None
    written = f"{found.name}({ast.unparse(found.args)})"
    return Known(signature_of(found.args), f"{source}, line {found.lineno}: ", written)


def check_function(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a missing file or function, or a wrong signature, by reading the source: nothing is run."""
    known = look_at(name)
    if known is None or style_of(known.signature, options) is not None:
        return
    call = ", ".join(["prompt", "response", "answer", *(f"{option}=..." for option in options)])
    function = known.written.partition("(")[0]
    raise UserError(
        f"judge {name!r}: {known.place}{known.written} cannot be called as {function}({call}); a judge takes {ASKED}"
    )


def columns_of(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a row that a function cannot do without, as far as that is known before anything runs."""
    known = look_at(name)
    return () if known is None else columns_read(known.signature, options)


def compares(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a judge is a function that compares responses, as far as that is known before anything runs."""
    known = look_at(name) if split_name(name) or is_given(name) else None
    return known is not None and style_of(known.signature, options) in COMPARING


def _definition(name: str, source: Path, function: str) -> Definition | None:
    """The definition of a function in a file; ``None`` where the file gets it otherwise."""
    try:
        tree = ast.parse(source.read_bytes(), str(source))
    except SyntaxError as error:
        raise UserError(f"judge {name!r}: {source}, line {error.lineno}: {error.msg}") from None
    found: ast.stmt | None = None
    names: list[str] = []
    for node in tree.body:
        bound: list[str] = []
        if isinstance(node, Definition | ast.ClassDef):
            bound = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign):
            bound = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound = [node.target.id]
        elif not isinstance(node, ast.Expr | ast.Pass):
            bound = [child.name for child in ast.walk(node) if isinstance(child, Definition)]
        names += bound
        if function in bound:
            found = node
    if found is None:
        close = ", ".join(difflib.get_close_matches(function, names, n=3, cutoff=0.5))
        raise UserError(f"judge {name!r}: {source} defines no {function!r}" + (f"; nearest: {close}" if close else ""))
    return found if isinstance(found, Definition) else None


def _as_written(function: Definition) -> bool:
    """Whether a function is called as it stands: without decorators, or with ``@judge(...)``, which changes nothing."""
    names = [ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in function.decorator_list]
    return set(names) <= {"judge"}
