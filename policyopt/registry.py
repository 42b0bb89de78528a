"""The registry: what the library holds, by name and kind, and the decorators that put something into it.

What there is comes from :mod:`policyopt.index`, which reads the source; a page is imported when something on it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from policyopt.claims import Claim
from policyopt.docs import plain
from policyopt.errors import nearest
from policyopt.index import KINDS as KINDS
from policyopt.index import OWN_FILE, entry_name, family_of, in_any_case, index
from policyopt.index import Entry as Entry
from policyopt.index import Kind as Kind

if TYPE_CHECKING:
    from policyopt.part import Part, Probe
    from policyopt.recipe import Recipe

Confidence = Literal["code", "paper", "secondary", "recalled", "abstract"]
T = TypeVar("T")


@dataclass(eq=False)
class Registered(Generic[T]):
    """A documented function in the registry."""

    kind: ClassVar[Kind]

    make: Callable[..., T]
    name: str
    family: str
    _: KW_ONLY
    base: Registered[T] | None = None
    """What it is written as the difference from; it may be somebody's own."""
    arxiv: str | None = None
    code: str | None = None
    confidence: Confidence = "paper"
    """Where the facts come from: authors' code, the paper, a third party, general knowledge, or the abstract alone."""
    use: str | None = None
    """The command that uses it."""

    def __call__(self, *args: object, **kwargs: object) -> T:
        return self.make(*args, **kwargs)

    @property
    def parent(self) -> str | None:
        """Name of what it is written as the difference from."""
        return self.base.name if self.base is not None else None

    @cached_property
    def entry(self) -> Entry:
        """What the registry says of it."""
        return Entry(
            self.name, self.kind, self.make.__module__, self.make.__name__, self.family, self.parent, self.arxiv,
            self.code, self.confidence, self.summary, self.use,
        )  # fmt: skip

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring."""
        return " ".join((inspect.getdoc(self.make) or "").split("\n\n")[0].split())

    @property
    def source(self) -> str:
        """Where to read more: the paper, or the authors' code."""
        return self.entry.source

    @property
    def hyperparameters(self) -> dict[str, inspect.Parameter]:
        """The arguments by name, with their defaults."""
        return dict(inspect.signature(self.make).parameters)


@dataclass(eq=False)
class Method(Registered["Recipe"]):
    """A published method: call it with its hyper-parameters to get its recipe."""

    kind = "method"
    _: KW_ONLY
    claim: Claim | None = None
    """What its paper says that it does better, and how that can be seen in miniature."""

    def __call__(self, *args: object, **kwargs: object) -> Recipe:
        return self.make(*args, **kwargs).replace(name=self.name)


class Study(Registered["tuple[Probe, ...]"]):
    """A paper that measures or proves and trains nothing of its own: call it to get the probes that it measures with."""

    kind = "study"


class Tool(Registered[Any]):
    """Something for before or after training, such as a decoding strategy or a merge of models: call it to do it."""

    kind = "tool"


class Guide(Registered[Any]):
    """Advice on what the library has for a purpose; its docstring is the advice. Call it for what it recommends."""

    kind = "guide"


_METHODS: dict[str, Method] = {}
_OTHERS: dict[str, Registered[Any]] = {}
"""Studies, tools and guides."""


def method(
    *,
    parent: Method | None = None,
    arxiv: str | None = None,
    code: str | None = None,
    confidence: Confidence = "paper",
    claim: Claim | None = None,
) -> Callable[[Callable[..., Recipe]], Method]:
    """Register a function as a method under its own name, with hyphens for underscores; its family is the folder it
    lies in. ``claim`` says what ``policyopt replicate`` puts to the test."""
    return lambda make: _register(
        Method, _METHODS, make, base=parent, arxiv=arxiv, code=code, confidence=confidence, claim=claim
    )


def study(
    *, use: str, arxiv: str | None = None, code: str | None = None, confidence: Confidence = "paper"
) -> Callable[[Callable[..., tuple[Probe, ...]]], Study]:
    """Register a function that returns probes as a study; ``use`` is a command that measures with it."""
    return lambda make: _register(Study, _OTHERS, make, use=use, arxiv=arxiv, code=code, confidence=confidence)


def tool(
    *, use: str, arxiv: str | None = None, code: str | None = None, confidence: Confidence = "paper"
) -> Callable[[Callable[..., Any]], Tool]:
    """Register a function as a tool; ``use`` is the command that runs it."""
    return lambda make: _register(Tool, _OTHERS, make, use=use, arxiv=arxiv, code=code, confidence=confidence)


def guide(
    *, use: str, arxiv: str | None = None, code: str | None = None, confidence: Confidence = "paper"
) -> Callable[[Callable[..., Any]], Guide]:
    """Register a function as a guide; ``use`` is the command to begin with."""
    return lambda make: _register(Guide, _OTHERS, make, use=use, arxiv=arxiv, code=code, confidence=confidence)


R = TypeVar("R", bound=Registered)


def _register(cls: type[R], known: dict[str, Any], make: Callable[..., Any], **facts: Any) -> R:
    name, module = entry_name(make.__name__), make.__module__
    if module.startswith(OWN_FILE) or (cls is Method and family_of(module) == "own"):  # found by file or module
        return _made(cls, make, **facts)
    there = next((found.entry for found in _live() if found.name == name), index().get(name))
    if there is not None and (there.module != module or name in known):
        raise ValueError(f"a {there.kind} called {name!r} exists already, in {there.module}")
    known[name] = _made(cls, make, **facts)
    return known[name]


def _made(cls: type[R], make: Callable[..., Any], **facts: Any) -> R:
    found = cls(make, entry_name(make.__name__), family_of(make.__module__), **facts)
    update_wrapper(found, make, updated=())
    return found


def _live() -> Iterable[Registered[Any]]:
    return (*_METHODS.values(), *_OTHERS.values())


# What there is -------------------------------------------------------------------------------------------------------


def entries(kind: Kind | None = None) -> list[Entry]:
    """Everything of a kind (unset: of all kinds) by kind, family and name. Nothing is imported for it."""
    found = {**index(), **{r.name: r.entry for r in _live()}}.values()
    return sorted((e for e in found if kind in (None, e.kind)), key=lambda e: (KINDS.index(e.kind), e.family, e.name))


def entry(name: str) -> Entry:
    """What is called ``name``, of whatever kind. Raises ``KeyError`` that lists the nearest names."""
    found = {e.name: e for e in entries()}
    name = in_any_case(name, found)
    if name in found:
        return found[name]
    raise KeyError(f"nothing is called {name!r}; {_near(name, found)} (`policyopt list --kind all` shows everything)")


def methods() -> dict[str, Method]:
    """All methods by name, in alphabetical order; imports them all."""
    for found in index().values():
        if found.kind == "method":
            importlib.import_module(found.module)
    return dict(sorted(_METHODS.items()))


def get_method(name: str) -> Method:
    """The method called ``name``; imports its page alone.

    Raises ``KeyError`` that lists the nearest names, or for something else of that name says what it is and how it is used.
    """
    name = need_method(name)
    if name not in _METHODS:
        importlib.import_module(index()[name].module)
    return _METHODS[name]


def need_method(name: str) -> str:
    """The name of a method as it is written here, in lower case with hyphens. Raises ``KeyError`` as :func:`get_method` does.
    Nothing is imported."""
    if name in _METHODS:
        return name
    found = {e.name: e for e in entries()}
    known = [e.name for e in found.values() if e.kind == "method"]
    name = in_any_case(in_any_case(name, known), found)
    if name in found and name not in known:
        other = found[name]
        raise KeyError(f"{name} is a {other.kind}, not a method: {plain(other.summary)} Use: {other.how}")
    if name not in known:
        raise KeyError(f"no method is called {name!r}; {_near(name, known)} (`policyopt list` shows all {len(known)})")
    return name


def get_study(name: str) -> Study:
    """The study called ``name``. Raises ``KeyError`` that lists what studies there are."""
    name = need_study(name)
    if name not in _OTHERS:
        importlib.import_module(index()[name].module)
    return _OTHERS[name]  # type: ignore[return-value]


def need_study(name: str) -> str:
    """The name of a study as it is written here. Raises ``KeyError`` as :func:`get_study` does. Nothing is imported."""
    known = [e.name for e in entries("study")]
    name = in_any_case(name, known)
    if name not in known:
        raise KeyError(f"no study is called {name!r}; known: {', '.join(known)}")
    return name


def library_part(name: str) -> type[Part]:
    """The class of the library's part called ``name``; imports its module alone.

    Raises ``KeyError`` that lists the nearest names.
    """
    known = {e.name: e for e in index().values() if e.kind == "part"}
    if name not in known:
        raise KeyError(f"no part is called {name!r}; {nearest(name, sorted(known))}")
    found: type[Part] = known[name].load()
    return found


def _near(name: str, known: Iterable[str]) -> str:
    return f"nearest: {', '.join(difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3)) or 'none'}"
