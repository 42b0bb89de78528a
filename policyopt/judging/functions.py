"""Python functions as judges: found, checked before anything runs, called, and read."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import math
import numbers
import reprlib
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, Verdict
from policyopt.judging.kinds import Judge


def prompt_of(example: Example) -> str | list[dict[str, str]]:
    """The prompt as a judge's function gets it: text where it is one user message, else the list of messages."""
    if len(example.prompt) == 1 and example.prompt[0]["role"] == "user":
        return example.prompt[0]["content"]
    return [dict(message) for message in example.prompt]


MOST_PARTS = 64
"""Numbers that a verdict may hold beside its score."""


class BadResult(Exception):
    """A judge's function returned something that is no verdict."""


def finite(value: object) -> float:
    """A number or bool (NumPy's and torch's scalars too) as a finite float."""
    item = getattr(value, "item", None)
    if callable(item):
        value = item()
    if not isinstance(value, numbers.Real):
        raise BadResult(f"returned {reprlib.repr(value)}, expected a number, a bool, a dict with a score, or None")
    score = float(value)
    if not math.isfinite(score):
        raise BadResult(f"returned the score {score}, expected a finite number")
    return score


def read_result(result: object) -> Verdict:
    """What a judge's function returned, as a verdict; ``None``, alone or as the score, says that the judge does not apply to
    the row. Raises :class:`BadResult` for what is none."""
    if result is None:
        return Verdict.absent()
    if not isinstance(result, Mapping):
        score = finite(result)
        return Verdict(score, score >= 1, False, f"score {score:g}")
    unknown = set(result) - {"score", "correct", "formatted", "reason", "parts"}
    if "score" not in result or unknown:
        raise BadResult(
            f"returned a dict with keys {sorted(map(str, result))}, "
            "expected score and, where wanted, correct, formatted, reason, parts"
        )
    if result["score"] is None:
        return Verdict.absent(str(result.get("reason", "the judge does not apply to this row")))
    score, parts = finite(result["score"]), result.get("parts", {})
    if not isinstance(parts, Mapping) or len(parts) > MOST_PARTS:
        raise BadResult(f"returned parts {reprlib.repr(parts)}, expected at most {MOST_PARTS} numbers by name")
    return Verdict(
        score,
        bool(result.get("correct", score >= 1)),
        bool(result.get("formatted", False)),
        str(result.get("reason", f"score {score:g}")),
        parts={str(name): _part(x) for name, x in parts.items()},
    )


def _part(value: object) -> float | list[float]:
    """A number, or a list of numbers for a column that takes one."""
    return [finite(x) for x in value] if isinstance(value, list | tuple) else finite(value)


def split_name(name: str) -> tuple[str, str] | None:
    """File or module, and function; ``None`` where ``name`` is not an import path."""
    home, colon, function = name.rpartition(":")
    return (home, function) if colon and home and function.isidentifier() else None


def function_judge(name: str, options: Mapping[str, Any]) -> Judge:
    """A Python function by its name ``module:function`` or ``file.py:function``; its file is loaded here."""
    home, function = split_name(name) or ("", "")
    if home.endswith(".py"):
        path = Path(home).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(f"judge_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(home)
    call = getattr(module, function)
    inspect.signature(call).bind("prompt", "response", "answer", **options)

    def judge(example: Example, response: str) -> Verdict:
        return read_result(call(prompt_of(example), response, example.answer, **options))

    return fills(judge, *getattr(call, "columns", ()))


def fills(judge: Judge, *columns: str) -> Judge:
    """The judge, which fills these columns beside what every judge says."""
    judge.columns = columns  # type: ignore[attr-defined]
    return judge


def import_path() -> list[str]:
    """Where modules of judges are looked for: where this process looks, and in the current folder."""
    here = str(Path.cwd())
    return list(dict.fromkeys([*(entry or here for entry in sys.path), here]))


def find_source(home: str, name: str) -> Path | None:
    """The source file of a module or of a ``.py`` path, without running any of it; ``None`` for a compiled module."""
    if home.endswith(".py"):
        if not Path(home).is_file():
            raise UserError(f"judge {name!r}: there is no file {home}")
        return Path(home)
    search: Any = import_path()
    parts = home.split(".")
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), search)
        if spec is None:
            missing = ".".join(parts[: i + 1])
            raise UserError(f"judge {name!r}: no module {missing!r} in the current folder or the installed packages")
        search = spec.submodule_search_locations or []
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def check_function(name: str, home: str, function: str, options: Mapping[str, Any]) -> None:
    """Refuse a missing file or function, or a wrong signature, by reading the source: nothing is run."""
    source = find_source(home, name)
    if source is None:
        return
    try:
        tree = ast.parse(source.read_bytes(), str(source))
    except SyntaxError as error:
        raise UserError(f"judge {name!r}: {source}, line {error.lineno}: {error.msg}") from None
    found: ast.stmt | None = None
    names: list[str] = []
    for node in tree.body:
        bound: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound = [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign):
            bound = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            bound = [node.target.id]
        elif not isinstance(node, ast.Expr | ast.Pass):
            bound = [child.name for child in ast.walk(node) if isinstance(child, ast.FunctionDef)]
        names += bound
        if function in bound:
            found = node
    if found is None:
        close = ", ".join(difflib.get_close_matches(function, names, n=3, cutoff=0.5))
        raise UserError(f"judge {name!r}: {source} defines no {function!r}" + (f"; nearest: {close}" if close else ""))
    if isinstance(found, ast.AsyncFunctionDef):
        raise UserError(
            f"judge {name!r}: {source}, line {found.lineno}: {function} is async, expected a plain function"
        )
    if isinstance(found, ast.FunctionDef) and _as_written(found) and not _takes_three(found.args, set(options)):
        call = ", ".join(["prompt", "response", "answer", *(f"{option}=..." for option in options)])
        raise UserError(
            f"judge {name!r}: {source}, line {found.lineno}: {function}({ast.unparse(found.args)}) "
            f"cannot be called as {function}({call})"
        )


def _as_written(function: ast.FunctionDef) -> bool:
    """Whether a function is called as it stands: without decorators, or with ``@judge(...)``, which changes nothing."""
    names = [ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in function.decorator_list]
    return set(names) <= {"judge"}


def _takes_three(args: ast.arguments, options: set[str]) -> bool:
    """Whether a function with these arguments takes (prompt, response, answer) and the options by name."""
    positional = [a.arg for a in (*args.posonlyargs, *args.args)]
    required = positional[: len(positional) - len(args.defaults)]
    by_name = set(positional[3:]) - {a.arg for a in args.posonlyargs} | {a.arg for a in args.kwonlyargs}
    needed = set(required[3:])
    needed |= {a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None}
    enough = len(positional) >= 3 or args.vararg is not None
    return enough and needed <= options and (args.kwarg is not None or options <= by_name)
