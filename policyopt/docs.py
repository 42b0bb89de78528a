"""Docstrings read apart: what a terminal shows of them, their sentences, and those below the fields of a class."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap


def plain(text: str) -> str:
    """A docstring as a terminal shows it: without markup, each paragraph one line that may be wrapped anywhere."""
    text = re.sub(r"(?::\w+:)?(`+)~?([^`]+)\1", r"\2", inspect.cleandoc(text))
    paragraphs = []
    for paragraph in text.split("\n\n"):
        space = "\n" if paragraph.startswith(".. math::") else " "
        lines = paragraph.removeprefix(".. math::").split("\n")
        paragraphs.append(space.join(line.strip() for line in lines))
    return "\n\n".join(paragraphs)


def paragraphs(doc: str) -> tuple[list[str], list[str]]:
    """A docstring's formulas (LaTeX, each with all its lines) and its paragraphs of prose, in their order."""
    formulas, texts = [], []
    for paragraph in inspect.cleandoc(doc).split("\n\n"):
        if paragraph.startswith(".. math::"):
            formulas.append(" ".join(paragraph.removeprefix(".. math::").split()))
        elif paragraph.strip():
            texts.append(" ".join(paragraph.split()))
    return formulas, texts


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring, markup and all."""
    text = next(iter(paragraphs(doc)[1]), "")
    return re.split(r"(?<=[^\s.(][\w)`\]]\.)(?<!\bDr\.)(?<!\bal\.)\s+(?=[A-Z:`\[])", text, maxsplit=1)[0]


def field_docs(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a class, which Python itself does not keep."""
    return {name: text for base in reversed(cls.__mro__) for name, text in _own_field_docs(base).items()}


@functools.lru_cache(maxsize=1024)
def _own_field_docs(cls: type) -> dict[str, str]:
    """Those that the class itself has, read once: a command asks for each a dozen times."""
    if "__docs__" in cls.__dict__:  # made while the program runs: there is no source to search
        return dict(cls.__docs__)  # type: ignore[attr-defined]
    docs: dict[str, str] = {}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return docs
    for field, text in itertools.pairwise(getattr(tree.body[0], "body", [])):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[ast.unparse(field.target)] = plain(str(text.value.value))
    return docs
