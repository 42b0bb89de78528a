"""The house stands as it is drawn: imports run down, what lies in common rooms is common, and files can be read."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import policyopt

ROOT = Path(policyopt.__file__).parent

STOREYS = (
    "errors", "cache", "carried", "docs", "files", "hub", "items", "notebook", "page", "options", "aliases", "spans", "claims", "checked",
    "schema", "rows", "groups", "turns",
    "sandbox", "judging", "part", "parts", "control", "environments", "models", "data", "sources",
    "index", "registry", "qualified", "capability", "paths", "recipe", "objective", "steering", "own", "methods",
    "engine", "training", "stages", "serve", "lens", "comparing", "integrations", "cli",
)  # fmt: skip
"""The rooms of the package, from the ground up: each may import from those before it and from no other."""

OPEN = {"EMA", "Decoupled", "Tag", "Regex", "Phrases", "LastAnswer", "Lines"}
"""What no page names, or one alone: a choice for a recipe of one's own."""

COMMON = ("parts", "control", "sources/draw")
"""The rooms for what two papers or more use."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def files(*inside: str) -> tuple[Path, ...]:
    """The Python files of the package, or of some of its folders."""
    return tuple(sorted(p for folder in inside or ("",) for p in (ROOT / folder).rglob("*.py")))


@cache
def module(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(("policyopt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


@cache
def modules() -> frozenset[str]:
    return frozenset(map(module, files()))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, functions: bool = False) -> Iterator[str]:
    """Modules of the package that a file imports, with those inside ``functions`` or when it is loaded alone."""
    known = modules()
    pending: list[ast.AST] = [*tree(path).body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.ImportFrom):
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in known else str(node.module) for name in named if name.startswith("policyopt"))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("policyopt"))
        elif functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)


def names(node: ast.AST) -> set[str]:
    """What some code names."""
    found = (
        n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)
    )
    return set(found)


def page(path: Path) -> str:
    """The page that a file of ``methods`` is part of: a file, or a folder of a family."""
    return "/".join(path.relative_to(ROOT / "methods").parts[:2]).removesuffix(".py")


# Imports -------------------------------------------------------------------------------------------------------------


def test_no_import_runs_in_a_circle() -> None:
    down = {module(p): set(imports(p)) - {module(p)} for p in files()}
    while ready := {name for name, below in down.items() if not below & down.keys()}:
        down = {name: below for name, below in down.items() if name not in ready}
    assert not down, f"in a circle, or above one: {', '.join(sorted(down))}"


def test_no_import_runs_upward() -> None:
    assert {room(p) for p in files()} - {"__init__", "__main__"} <= set(STOREYS), "a room that is not in the plan"
    upward = set()
    for path in files():
        here = room(path)
        if here.startswith("__"):
            continue
        below = {*STOREYS[: STOREYS.index(here) + 1]}
        upward |= {
            f"{module(path)} -> {name}" for name in imports(path, functions=True)
            if name != "policyopt" and name.split(".")[1] not in below
        }  # fmt: skip
    assert not upward


# Common rooms --------------------------------------------------------------------------------------------------------


def common() -> Iterator[tuple[Path, ast.ClassDef | ast.FunctionDef]]:
    """Classes and public functions of the common rooms, with their files."""
    for path in files(*COMMON):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield path, node


def askers(path: Path, name: str) -> set[Path]:
    """The other files that import something from a common room, by its own module or by the door of the room."""
    doors = {ROOT / folder / "__init__.py" for folder in COMMON}  # they name everything
    places = {module(path), *(module(d) for d in doors if d.parent in path.parents)}
    return {p for p in files() if p not in doors and any((place, name) in asked(p) for place in places)}


@cache
def asked(path: Path) -> frozenset[tuple[str, str]]:
    """Module and name of everything that a file imports from the package."""
    found = (n for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom))
    return frozenset((str(n.module), alias.name) for n in found for alias in n.names)


def test_what_is_common_is_asked_for_by_two_pages_or_by_code_that_is_no_page() -> None:
    pages, lonely = ROOT / "methods", set()
    for path, node in common():
        who = askers(path, node.name)
        beside = any(node.name in names(other) for other in tree(path).body if other is not node)
        outside = any(pages not in p.parents for p in who)
        if not beside and not outside and len({page(p) for p in who}) < 2:
            lonely.add(f"{module(path)}.{node.name}")
    assert {name for name in lonely if name.rsplit(".", 1)[1] not in OPEN} == set()


def test_no_common_module_serves_one_page() -> None:
    direct: dict[Path, set[Path]] = {}
    for path, node in common():
        direct.setdefault(path, set()).update(askers(path, node.name))

    def users(path: Path, seen: set[Path]) -> set[Path]:
        for other in direct[path] - seen:
            seen.add(other)
            if other in direct:
                users(other, seen)
        return seen

    for path in direct:
        found = users(path, set()) - direct.keys()
        pages = {page(p) for p in found if ROOT / "methods" in p.parents}
        assert len(pages) > 1 or len(found) > len(pages), f"{module(path)} serves {pages or 'nobody'}"


def test_no_page_takes_a_part_from_another_page() -> None:
    pages = [p for p in files("methods") if len(p.relative_to(ROOT / "methods").parts) > 1 and p.name != "__init__.py"]
    taken = {
        f"{page(p)} takes {name} from {place}" for p in pages for place, name in asked(p)
        if place.startswith("policyopt.methods.") and name != place.split(".")[3]
        and "/".join(place.split(".")[2:4]) != page(p)
    }  # fmt: skip
    assert not taken, "it moves to a common room: it has its second use"


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_files_and_functions_can_be_read() -> None:
    assert not [module(p) for p in files() if len(p.read_text().splitlines()) > 400]
    long = [
        f"{module(p)}.{node.name}" for p in files() for node in ast.walk(tree(p))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 50
    ]  # fmt: skip
    assert len(long) <= 3, long


def test_what_the_common_rooms_export_is_there() -> None:
    for folder in COMMON:
        door = importlib.import_module(f"policyopt.{folder.replace('/', '.')}")
        assert sorted(door.__all__) == sorted(set(door.__all__)) and all(hasattr(door, name) for name in door.__all__)
