"""The registry: what a method must say of itself, and that nothing else in the library knows its name."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import policyopt
import policyopt.methods
import policyopt.parts
from policyopt import cache, index, registry
from policyopt.data import builtin_tasks
from policyopt.index import function_name
from policyopt.part import Part
from policyopt.recipe import Recipe
from policyopt.registry import Method, entries, entry, get_method, guide, library_part, method, methods, study, tool
from tests.batches import EVERY_METHOD, LIBRARY_PARTS

BASES = ("policyopt.part", "policyopt.sources.program", "policyopt.control.follows", "policyopt.control.by_step")
"""Where the classes are that others are made from."""
PACKAGE = Path(policyopt.__file__).parent
FIRST = {"cispo", "dapo", "dr-grpo", "grpo", "gspo", "luspo", "ppo", "reinforce", "remax", "rloo"}


def test_the_methods_are_there_in_order() -> None:
    assert set(methods()) >= FIRST
    assert list(methods()) == sorted(methods())
    assert all(m.name == name for name, m in methods().items())


def test_a_name_is_given_once() -> None:
    def grpo() -> Recipe: ...

    grpo.__module__ = "policyopt.methods.group.another"
    with pytest.raises(ValueError, match=r"a method called 'grpo' exists already, in policyopt\.methods\.group\.grpo"):
        method()(grpo)


@pytest.mark.parametrize(
    ("name", "nearest"), [("grppo", "grpo"), ("dr_grppo", "dr-grpo"), ("reinforce++", "reinforce")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(KeyError) as caught:
        get_method(name)
    assert f"no method is called {name!r}; nearest: " in caught.value.args[0]
    assert nearest in caught.value.args[0].split("nearest: ")[1].split(" (")[0].split(", ")


def test_methods_are_attributes_of_their_package() -> None:
    assert policyopt.methods.dr_grpo is get_method("dr-grpo")
    assert "dr_grpo" in dir(policyopt.methods)
    with pytest.raises(AttributeError, match="no method is called 'gppo'"):
        _ = policyopt.methods.gppo


# The index -------------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_the_index_knows_of_a_method_what_its_page_says(method: Method) -> None:
    assert index.index()[method.name] == method.entry
    assert entry(method.name).load() is method


def test_the_index_has_every_part_of_the_library() -> None:
    found, stack = set(), [Part]
    while stack:
        cls = stack.pop()
        stack += cls.__subclasses__()
        slots = cls.__module__ in BASES
        if "__dataclass_fields__" in cls.__dict__ and cls.__module__.startswith("policyopt.") and not slots:
            found.add(cls)
    assert found == set(LIBRARY_PARTS.values())
    assert all(entry(name).family != "part" for name in LIBRARY_PARTS), "each lies in a slot"


def test_no_two_things_share_a_name() -> None:
    found = [*index._scanned(cache.PACKAGE), *index._testbeds()]
    assert len({e.name for e in found}) == len(found)
    assert {e.kind for e in found} >= {"method", "part", "testbed", "study"}
    assert {e.name for e in entries("study")} == {
        "alignment-asymptotics", "daa-overoptimisation", "lemo", "policy-cliff", "r-to-q", "redteamcua", "rl-subnetworks",
    }  # fmt: skip
    assert {e.name for e in entries("testbed")} == set(builtin_tasks())
    assert all(e.summary and e.how for e in found)


def test_the_index_is_kept_until_the_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "kept"))
    fresh = index.index.__wrapped__()
    (file,) = (tmp_path / "kept").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(index, "_scanned", lambda package: pytest.fail("read again"))
        assert index.index.__wrapped__() == fresh
    for spoilt in ("", "[]", '{"digest": "old", "data": {}}', json.dumps({"digest": cache.digest(), "data": {"x": 1}}),
                   json.dumps({"digest": cache.digest(), "data": {"entries": [{"no": 1}]}})):  # fmt: skip
        file.write_text(spoilt)
        assert index.index.__wrapped__() == fresh
        assert len(json.loads(file.read_text())["data"]["entries"]) == len(fresh) - len(builtin_tasks())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "file"))
    assert index.index.__wrapped__() == fresh, "a disk that takes nothing"
    assert (tmp_path / "file").read_text() == ""


def test_a_part_is_looked_up_by_its_name() -> None:
    assert library_part("Normalise") is policyopt.parts.Normalise
    with pytest.raises(KeyError, match="no part is called 'Normalize'; nearest: Normalise"):
        library_part("Normalize")
    with pytest.raises(KeyError, match="no part is called 'grpo'"):
        library_part("grpo")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rl-subnetworks", "rl-subnetworks is a study, not a method: Which share .* Use: policyopt train grpo --with rl-subnetworks"),
        ("KL", "KL is a part, not a method: .* Use: in a recipe"),
        ("chain_sum", "chain_sum is a testbed, not a method: .* Use: policyopt train grpo --task chain_sum"),
    ],
)  # fmt: skip
def test_what_is_no_method_says_what_it_is(name: str, said: str) -> None:
    with pytest.raises(KeyError, match=said):
        get_method(name)
    with pytest.raises(KeyError, match="nothing is called 'Normalize'; nearest: Normalise"):
        entry("Normalize")


@pytest.mark.parametrize(("decorator", "kind"), [(study, "study"), (tool, "tool"), (guide, "guide")])
def test_what_is_registered_is_listed_under_its_kind(
    decorator: Any, kind: registry.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hedged_bets(share: float = 0.5) -> tuple[Any, ...]:
        """How bets are hedged.

        At length.
        """
        return (share,)

    monkeypatch.setattr(registry, "_OTHERS", {})
    made = decorator(use="policyopt eval --hedged", arxiv="1234.5678")(hedged_bets)
    assert made(0.25) == (0.25,)
    assert list(made.hyperparameters) == ["share"]
    mine = entry("hedged-bets")
    assert mine in entries(kind) and mine not in entries("method")
    assert (mine.kind, mine.family, mine.source, mine.summary, mine.how) == (
        kind, "own", "arXiv:1234.5678", "How bets are hedged.", "policyopt eval --hedged"
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"a {kind} called 'hedged-bets' exists already"):
        decorator(use="")(hedged_bets)


# What a page says --------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_a_method_says_what_it_is(method: Method) -> None:
    text = inspect.getdoc(method.make) or ""
    assert ".. math::" in text, "no formula"
    assert 20 < len(method.summary) < 160
    assert method.summary.endswith(".")
    assert method.arxiv or method.code or "Source" in text, "no source"
    assert re.search(r"Source|[Dd]efault|paper|authors|arXiv", text), "where the defaults come from is not said"
    assert method.__doc__ == method.make.__doc__
    assert all(p.default is not p.empty for p in method.hyperparameters.values()), "a default is missing"


@EVERY_METHOD
def test_a_parent_is_a_method_and_the_line_ends(method: Method) -> None:
    line = [method]
    while line[-1].parent is not None:
        line.append(get_method(line[-1].parent))
        assert line[-1] not in line[:-1]


@EVERY_METHOD
def test_a_method_differs_from_its_parent(method: Method) -> None:
    assert method() != (get_method(method.parent)() if method.parent else None)


@EVERY_METHOD
def test_a_recipe_carries_the_name_of_its_method(method: Method) -> None:
    assert method().name == method.name


def test_every_page_holds_one_thing_in_the_folder_of_its_family() -> None:
    """A page is a file, or a folder with the method (the study, the tool) in its ``__init__``."""
    families = {f.parent for f in (PACKAGE / "methods").glob("*/__init__.py")}
    pages = {p for family in families for p in family.iterdir() if p.name not in ("__init__.py", "__pycache__")}
    for m in (e for e in entries() if e.kind in ("method", "study", "tool", "guide")):
        if not m.module.startswith("policyopt."):
            continue
        file = Path(inspect.getfile(m.load().make))
        page = file.parent if file.name == "__init__.py" else file
        assert page == PACKAGE / "methods" / m.family.replace("-", "_") / (function_name(m.name) + page.suffix)
        pages.remove(page)
    assert not pages, "pages without anything"


def test_every_family_says_what_its_methods_have_in_common() -> None:
    for folder in {m.family.replace("-", "_") for m in methods().values()}:
        text = (PACKAGE / "methods" / folder / "__init__.py").read_text()
        assert ast.get_docstring(ast.parse(text)), folder


def names_decided_on(tree: ast.AST, names: set[str]) -> Iterator[ast.AST]:
    """Where code decides by the name of a method: comparisons, patterns, prefixes, and tables by name."""

    def constants(*nodes: ast.AST | None) -> set[object]:
        return {c.value for node in nodes if node for c in ast.walk(node) if isinstance(c, ast.Constant)}

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            said = constants(node.left, *node.comparators)
        elif isinstance(node, ast.MatchValue):
            said = constants(node.value)
        elif isinstance(node, ast.Dict):
            said = constants(*node.keys)
        elif isinstance(node, ast.Subscript):
            said = constants(node.slice)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith", "get"):
            said = constants(*node.args)
        else:
            continue
        if said & names:
            yield node


ADVICE = PACKAGE / "comparing/advise/symptoms.py"
"""What people are told names methods; nothing is decided by it."""


def test_nothing_branches_on_the_name_of_a_method() -> None:
    names = {*methods(), *map(function_name, methods())} - {*index.KINDS}  # one is called like a kind
    found = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]
        for file in sorted({*PACKAGE.rglob("*.py")} - {ADVICE})
        for node in names_decided_on(ast.parse(file.read_text(encoding="utf-8")), names)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "if name == 'grpo': pass",
        "x = method.name in ('ppo', 'rloo')",
        "match m:\n case 'dapo': pass",
        "f = {'grpo': 1}[m]",
        "name.startswith('dr_grpo')",
        "table.get('gspo')",
    ],
)
def test_a_branch_on_a_name_would_be_found(code: str) -> None:
    assert list(names_decided_on(ast.parse(code), {*methods(), "dr_grpo"}))
