"""What the library holds, read from its source without running it: methods, parts, tools, studies, guides, testbeds."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from policyopt import cache as disk
from policyopt.docs import first_sentence

Kind = Literal["method", "part", "tool", "testbed", "study", "guide"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_DECORATORS = ("method", "tool", "study", "guide")
OWN_FILE = "_policyopt_own_"
"""How the names of modules begin that are made from a file of the user's own."""
_FOLDERS = ("methods", "parts", "control", "sources")
_ROOTS = ("part.py", "sources/program.py", "control/follows.py", "control/by_step.py")
"""Where the slots are defined, whose classes are no parts themselves."""


@dataclass(frozen=True)
class Entry:
    """Something that the library holds under a name."""

    name: str
    kind: Kind
    module: str
    """Where it is defined."""
    attribute: str
    """What it is called there."""
    family: str = ""
    """Of a part: its slot; of anything else the folder that it lies in."""
    parent: str | None = None
    arxiv: str | None = None
    code: str | None = None
    confidence: str | None = None
    """Where its facts come from; see :class:`~policyopt.registry.Registered`."""
    summary: str = ""
    """The first sentence of its docstring, with its markup."""
    use: str | None = None
    """The command that uses it."""

    def load(self) -> Any:
        """The object itself; imports its module."""
        return getattr(importlib.import_module(self.module), self.attribute)

    @property
    def source(self) -> str:
        """Where to read more: the paper, the authors' code, or for a part the module that says so."""
        if self.arxiv or self.code:
            return f"arXiv:{self.arxiv}" if self.arxiv else str(self.code)
        return "textbook" if self.kind == "method" else self.module

    @property
    def how(self) -> str:
        """How it is used: a command, or a line of Python."""
        if self.use:
            return self.use
        if self.kind == "part":
            return f"in a recipe ({self.family}): from {self.module} import {self.attribute}"
        return f"policyopt train grpo --task {self.name}" if self.kind == "testbed" else f"policyopt train {self.name}"


@cache
def index() -> Mapping[str, Entry]:
    """Everything in the library by name. Nothing of it is imported; what was read is kept on the disk until the source
    changes."""
    try:
        found = [Entry(**entry) for entry in disk.read("index")["entries"]]
    except (KeyError, TypeError):
        found = sorted(_scanned(disk.PACKAGE), key=lambda e: (KINDS.index(e.kind), e.name))
        disk.write("index", {"entries": [asdict(e) for e in found]})
    return {e.name: e for e in (*found, *_testbeds())}


def _testbeds() -> Iterator[Entry]:
    from policyopt.data import builtin_tasks

    for name, summary in builtin_tasks().items():
        yield Entry(name, "testbed", "policyopt.data", "load_task", "task", summary=summary)


# Reading the source --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Class:
    """A class as its source shows it."""

    node: ast.ClassDef
    module: str
    slot: bool
    """It is defined where the slots are."""

    @property
    def bases(self) -> list[str]:
        return [_name(base) for base in self.node.bases]


def _scanned(package: Path) -> Iterator[Entry]:
    classes: dict[str, _Class] = {}
    files = [package / name for name in _ROOTS]
    files += sorted(file for folder in _FOLDERS for file in (package / folder).rglob("*.py") if file not in files)
    for file in files:
        module = ".".join((package.name, *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, _Class(node, module, file in files[: len(_ROOTS)]))
            elif isinstance(node, ast.FunctionDef):
                yield from _registered(node, module)
    for name, cls in classes.items():
        if not cls.slot and any(_name(d) == "part" for d in cls.node.decorator_list):
            slot = next(iter(_slots(name, classes)), None)
            if slot is not None:
                yield Entry(name, "part", cls.module, name, slot.lower(), summary=_summary(cls.node))


def _registered(node: ast.FunctionDef, module: str) -> Iterator[Entry]:
    """A function under ``@method(...)`` or another decorator of the registry."""
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and (kind := _name(call.func)) in _DECORATORS:
            said = {
                k.arg: entry_name(_name(k.value)) if k.arg == "parent" else _value(k.value)
                for k in call.keywords
                if k.arg != "claim"
            }
            facts: dict[str, Any] = {"confidence": "paper"} | {str(k): v for k, v in said.items()}
            facts["family"] = family_of(module)
            yield Entry(entry_name(node.name), kind, module, node.name, summary=_summary(node), **facts)  # type: ignore[arg-type]


def _slots(name: str, classes: Mapping[str, _Class]) -> Iterator[str]:
    """The classes right below ``Part`` that a class comes from; a slot goes before a base that only helps."""
    found: list[str] = []
    for base in classes[name].bases if name in classes else []:
        found += [name] if base == "Part" else _slots(base, classes)
    yield from sorted(dict.fromkeys(found), key=lambda x: (x == "Wrapper", x not in classes or not classes[x].slot))


def entry_name(function: str) -> str:
    """The name under which a function is registered: its own, with hyphens for underscores, and a point between two numbers:
    ``kimi_k1_5`` is ``kimi-k1.5``."""
    return re.sub(r"(?<=\d)_(?=\d)", ".", function).replace("_", "-")


def function_name(entry: str) -> str:
    """The function that is registered under a name."""
    return re.sub(r"[.-]", "_", entry)


def in_any_case(name: str, known: Collection[str]) -> str:
    """The one of the names that are known which somebody means by ``Dr-GRPO``, ``dr_grpo`` or ``dr grpo``; ``name`` itself
    where there is none, or where it is one."""
    if name in known:
        return name
    key = _key(name)
    return next((k for k in known if _key(k) == key), name)


def _key(name: str) -> str:
    return re.sub(r"[\s_.-]+", "-", name.strip()).casefold()


def family_of(module: str) -> str:
    """The folder that a page lies in; "own" for one outside the library."""
    inside = module.removeprefix("policyopt.methods.")
    return "own" if inside == module else inside.split(".")[0].replace("_", "-")


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript | ast.Call):
        return _name(node.value if isinstance(node, ast.Subscript) else node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    doc = ast.get_docstring(node) or ""
    return first_sentence(doc) if isinstance(node, ast.ClassDef) else " ".join(doc.split("\n\n")[0].split())
