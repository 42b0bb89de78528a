"""What numeric cases call things, method by method, where a method has words of its own.

The module of a method is found by its name (``-`` and ``.`` are ``_``). It may define

``COLUMNS``
    given column -> (column of the batch, kind); the kind is "row" [N], "token" [N, T], "step" [N, K], "logits"
    [N, T, V] (the name is then a role: "policy", "old", "reference", "teacher"; or "hidden", for hidden states [N, T, d]), or "free": read by the module alone.
``PARAMS``
    hyper-parameter of a case -> an argument of the method or a dotted path in its recipe, several of them, ``None``
    (a fact that needs no place), or a function of its value that returns {argument or path: value}.
``GIVEN``
    the ``what`` of a case -> a function of the whole ``given`` that tells it in columns of a batch and
    hyper-parameters, where a case describes its rows in another way.
``KEYS``
    expected key -> a function of the :class:`~policyopt.lens.case.Run`.
``CASES``
    the ``what`` of a case -> a function of the whole ``given`` that returns every expected key, for cases that are no
    batch with a loss.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from policyopt.index import function_name


@dataclass(frozen=True)
class Vocabulary:
    """The words of one method."""

    given: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    cases: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)


CHECKOUT = Path(__file__).parents[2] / "tests" / "cases" / "words"
"""The words of the library's own cases, where the package runs from its checkout; a wheel has none."""


def words_of(cases: Path, folder: Path | None = None) -> Path | None:
    """The folder of words for a file of cases: the one that is named, else ``words`` beside the file, else the
    checkout's; ``None`` where there is none."""
    beside = cases.parent / "words"
    return next((f for f in ([folder] if folder else [beside, CHECKOUT]) if f.is_dir()), None)


def vocabulary(method: str, folder: Path | None) -> Vocabulary:
    """The words of a method in a folder; none where it has no file there."""
    path = folder / f"{function_name(method)}.py" if folder else None
    if path is None or not path.is_file():
        return Vocabulary()
    return Vocabulary(
        *(getattr(_module(path.resolve()), words, {}) for words in ("GIVEN", "COLUMNS", "PARAMS", "KEYS", "CASES"))
    )


@cache
def _module(path: Path) -> ModuleType:
    """A file of words, read once; it may import others of its folder by name."""
    name = f"{_PACKAGE}{blake2b(str(path.parent).encode(), digest_size=6).hexdigest()}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(path.parent)]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.{path.stem}")


_PACKAGE = "_policyopt_words_"
