"""What numeric cases call things, method by method, where a method has words of its own.

The module of a method is found by its name (``-`` is ``_``). It may define

``COLUMNS``
    given column -> (column of the batch, kind); the kind is "row" [N], "token" [N, T], "step" [N, K], "logits"
    [N, T, V] (the name is then a role: "policy", "old", "reference", "teacher"), or "free": read by the module alone.
``PARAMS``
    hyper-parameter of a case -> an argument of the method or a dotted path in its recipe, several of them, ``None``
    (a fact that needs no place), or a function of its value that returns {argument or path: value}.
``KEYS``
    expected key -> a function of the :class:`~policyopt.lens.case.Run`.
``CASES``
    the ``what`` of a case -> a function of the whole ``given`` that returns every expected key, for cases that are no
    batch with a loss.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Vocabulary:
    """The words of one method."""

    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    cases: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)


def vocabulary(method: str) -> Vocabulary:
    """The words of a method; none where it has no module."""
    name = f"{__name__}.{method.replace('-', '_')}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return Vocabulary()
    return Vocabulary(*(getattr(module, words, {}) for words in ("COLUMNS", "PARAMS", "KEYS", "CASES")))
