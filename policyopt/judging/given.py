"""Judges that are Python callables: by name where a fresh interpreter finds them, else sent to the worker as they are.

A function of a notebook or of a script, a lambda, a closure, an object that can be called: its name says what it was
(``<function brevity of notebook>``), the name carries it, and a run that goes on in another session asks for it again.
"""

from __future__ import annotations

import base64
import functools
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from policyopt.carried import Carried
from policyopt.errors import UserError
from policyopt.items import JudgeSpec
from policyopt.judging.modules import is_module


def name_of(function: Callable[..., Any], taken: tuple[str, ...] = ()) -> str:
    """What a callable is called as a judge: ``module:name`` where a fresh interpreter finds the module, else a
    name that carries it, numbered where it is ``taken``."""
    inner = function.func if isinstance(function, functools.partial) else function
    module, name = getattr(inner, "__module__", None) or "", getattr(inner, "__qualname__", type(inner).__qualname__)
    same = name.isidentifier() and getattr(sys.modules.get(module), name, None) is function
    # The file of __main__ is never run again in a worker: it may be the script that trains
    if same and module != "__main__" and is_module(module):
        return f"{module}:{name}"
    shown = f"<function {name} of {_home(module)}"
    numbered = (f"{shown}{extra}>" for extra in ("", *(f", number {n}" for n in range(2, 100))))
    return Carried(next(n for n in numbered if n not in taken), function)


def is_given(name: str) -> bool:
    """Whether a name is one that only a Python session can fill."""
    return name.startswith("<function ")


def _home(module: str) -> str:
    """Where a callable was made, in a word that no machine changes."""
    if module not in ("", "__main__"):
        return module
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).name if file else "notebook" if "ipykernel" in sys.modules else "session"


# Into the worker -----------------------------------------------------------------------------------------------------

_RECEIVED: dict[str, Callable[..., Any]] = {}
"""In a worker: the callables that came with its judge."""


def _names(value: Any) -> Iterator[Carried]:
    if isinstance(value, Carried):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _names(inner)


def packed(spec: JudgeSpec) -> dict[str, str]:
    """The callables that a judge is made of, by name, as text that :func:`receive` reads.

    Raises :class:`~policyopt.errors.UserError` for one that holds what no other process can have.
    """
    return {str(name): _pack(name) for name in _names({"": spec.name, **spec.options}) if name.value is not None}


def _pack(name: Carried) -> str:
    import cloudpickle

    module = sys.modules.get(getattr(name.value, "__module__", None) or "")
    # What another interpreter could not import goes along as it is
    alone = getattr(module, "__file__", None) is not None and module is not None and not is_module(module.__name__)
    if alone:
        cloudpickle.register_pickle_by_value(module)
    try:
        return base64.b64encode(cloudpickle.dumps(name.value)).decode("ascii")
    except Exception as error:
        raise UserError(
            f"judge {name}: it cannot be sent to the judge's process ({type(error).__name__}: {error}); define it in a "
            "file, or make what it holds inside of it"
        ) from error
    finally:
        if alone:
            cloudpickle.unregister_pickle_by_value(module)


def receive(sent: Mapping[str, str]) -> None:
    """In a worker: unpack the callables that its judge is made of."""
    _RECEIVED.update({name: pickle.loads(base64.b64decode(text)) for name, text in sent.items()})


def find(name: str) -> Callable[..., Any] | None:
    """The callable of a name that carries one, or came with the worker's judge."""
    return name.value if isinstance(name, Carried) else _RECEIVED.get(name)


def need(name: str) -> Callable[..., Any]:
    """As :func:`find`. Raises :class:`~policyopt.errors.UserError` for one that is gone with its session."""
    found = find(name)
    if found is None:
        raise UserError(
            f"judge {name} was a function of a Python session, which is not here: give it again, as judge=..., or put it "
            "into a file and name it as path/to/file.py:name"
        )
    return found
