"""What documents say is there: numbers of the log, links, methods, options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import policyopt
from policyopt.options import catalogue
from policyopt.registry import get_method
from policyopt.training.config import TrainConfig

ROOT = Path(policyopt.__file__).parent
PAGE = ROOT.parent / "docs" / "glossary.md"
NAME = re.compile(r"[a-z_]+/[a-z_]+")
PLACES = ("training", "engine", "parts", "methods", "control", "sources")


def described() -> set[str]:
    """Names in the first cells of the tables; ``a/b`` followed by ``/c`` stands for ``a/c`` too."""
    found: set[str] = set()
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            stem = ""
            for name in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
                stem = stem if name.startswith("/") else name.partition("/")[0]
                found.add(stem + name if name.startswith("/") else name)
    return found


def keys(path: Path) -> Iterator[str]:
    """Constant keys of dictionaries that are written down or filled in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Dict):
            found = node.keys
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found = [node.slice]
        else:
            continue
        yield from (k.value for k in found if isinstance(k, ast.Constant) and isinstance(k.value, str))


def test_every_metric_is_described() -> None:
    told = described()
    families = {name.split("/")[0] for name in told if name.endswith(("/*", "/NAME", "/PATH"))}
    logged = {
        name for place in PLACES for path in (ROOT / place).rglob("*.py") for name in keys(path) if NAME.fullmatch(name)
    }
    assert len(logged) > 40, "the names are looked for in the wrong place"
    inner = {
        f"{name}/{part}" for name in ("mismatch", "moved") for part in ("sum", "tokens")
    }  # what the updates hand to the log, which divides one by the other
    assert {n for n in logged - told - inner if n.split("/")[0] not in families} == set()


DOCS = [*ROOT.parent.glob("*.md"), *(ROOT.parent / "docs").glob("*.md")]


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#\s]*)", text):
        assert not target or (page.parent / target).exists(), target
    for anchor in re.findall(r"\]\(#([^)\s]+)\)", text):
        assert anchor in {_anchor(line) for line in text.splitlines() if line.startswith("#")}, anchor


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def test_fields_that_documents_set_are_there() -> None:
    known = {f"--{o.name}" for o in catalogue(TrainConfig(recipe=get_method("grpo")()))}
    for page in DOCS:
        for option in re.findall(
            r"(--(?:optim|eval|checkpoints|judging|stopping|tracking|prompting)\.[\w.-]+)", page.read_text()
        ):
            assert option.rstrip(".") in known, f"{page.name}: {option}"
