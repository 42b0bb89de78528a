r"""Formulas and prose of docstrings for a terminal and for a page: LaTeX as MathML, and as one line of Unicode."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Literal
from xml.etree import ElementTree

from latex2mathml.converter import convert

_SUB = dict(zip("0123456789aehijklmnoprstuvx+−=()βγρφχ", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₊₋₌₍₎ᵦᵧᵨᵩᵪ", strict=True))
_SUP = dict(zip("0123456789abcdefghijklmnoprstuvwxyz+−=()*TN", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ⁺⁻⁼⁽⁾*ᵀᴺ", strict=True))
_OVER = {"^": "\u0302", "ˆ": "\u0302", "~": "\u0303", "˜": "\u0303", "¯": "\u0304", "―": "\u0304", "‾": "\u0304", "_": "\u0304"}
_SPACED = set("=≈≤≥<>≠≜≡→←↦∈∉∼~+±∓·×⋅∪∩∧∨∣‖|←⇒⇔∝≪≫")
_BIG = set("∑∏∫⋃⋂")
_JOIN = "\0"
"""Stands after the name of a function: nothing before a bracket, a space before anything else."""


def lines(latex: str) -> list[str]:
    r"""A formula cut where its author left a wide gap (``\qquad``) or began a new line."""
    return [piece.strip() for piece in re.split(r"\\qquad|(?<=,)\\quad|\\\\(?![^{]*\\end)", latex) if piece.strip()]


def mathml(latex: str, display: Literal["inline", "block"] = "inline") -> str:
    """A formula as MathML, which browsers draw without a script. Raises ``ValueError`` for LaTeX that cannot be read."""
    # A word is set upright and as one piece.
    latex = re.sub(r"\\(?:mathrm|operatorname|mathit)\*?\{([A-Za-z \-]+)\}", r"\\text{\1}", latex)
    latex = re.sub(r"([_^])\{([A-Za-z]{3,})\}", r"\1{\\text{\2}}", latex)
    latex = re.sub(r"(?<![\\A-Za-z{])([A-Za-z]{3,})(?![A-Za-z]*\})", r"\\text{\1}", latex)
    try:
        return convert(latex, display=display)
    except Exception as error:  # the converter raises a dozen kinds of its own
        raise ValueError(f"not LaTeX that can be shown ({type(error).__name__}): {latex}") from error


def unicode(latex: str) -> str:
    r"""A formula on one line of plain characters: ``\frac1N\sum_i s_i A_i`` becomes ``1/N ∑ᵢ sᵢAᵢ``."""
    root = ElementTree.fromstring(mathml(latex))
    text = _walk(root)
    text = re.sub(rf"{_JOIN}\s*(?=[(\[])", "", text).replace(_JOIN, " ")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"([(\[{/]) ", r"\1", text)
    text = re.sub(r"(^|[(\[{,;=|≤≥<>∼~·/]) ?− ", r"\1 −", text)
    return re.sub(r"(?<=[(\[{/]) | (?=[)\]},;/])", "", text).strip()


def _walk(node: ElementTree.Element) -> str:
    kind = node.tag.rsplit("}", 1)[-1]
    inner = list(node)
    if kind in ("mi", "mn", "mtext", "ms"):
        word = node.text or ""
        return f" {word}{_JOIN}" if kind != "mn" and len(word) > 1 and word.isalpha() and word.isascii() else word
    if kind == "mo":
        return _operator(node)
    if kind == "mspace":
        return " "
    if kind == "mfrac":
        return f" {_grouped(inner[0], False)}/{_grouped(inner[1], True)} "
    if kind in ("msub", "munder"):
        return _scripted(inner[0], inner[1], None)
    if kind == "msup":
        return _scripted(inner[0], None, inner[1])
    if kind in ("msubsup", "munderover"):
        return _scripted(inner[0], inner[1], inner[2])
    if kind == "mover":
        base, over = _walk(inner[0]), _walk(inner[1]).strip()
        return _accented(base, _OVER[over]) if over in _OVER else f"{base}^{over}"
    if kind in ("msqrt", "mroot"):
        return f"√({_flat(inner[0] if kind == 'mroot' else node)})"
    if kind in ("mtable", "mtr"):
        return ("; " if kind == "mtable" else " ").join(_walk(x).strip() for x in inner)
    return _row(inner)


def _row(nodes: list[ElementTree.Element]) -> str:
    """Neighbours in a row; a minus sign with nothing to its left is a sign, not an operation."""
    out = ""
    for node in nodes:
        text = _walk(node)
        if text == "−":
            left = out.replace(_JOIN, " ").rstrip()
            text = " − " if left and left[-1] not in "([{,;=|+−<>≤≥/·×∈~" else "−"
        out += text
    return out


def _operator(node: ElementTree.Element) -> str:
    sign = (node.text or "").strip()
    if sign in _BIG:
        return f" {sign} "
    if sign == "|" or sign == "∥" or sign == "‖":
        return " ‖ " if sign != "|" else "|"
    if len(sign) > 1 and sign.isalpha():
        return f" {sign}{_JOIN}"
    if sign in _SPACED:
        return f" {sign} "
    return f"{sign} " if sign in (",", ";") else sign


def _flat(node: ElementTree.Element) -> str:
    kind = node.tag.rsplit("}", 1)[-1]
    text = _row(list(node)) if kind in ("msqrt", "mrow") else _walk(node)
    return re.sub(rf"{_JOIN}\s*(?=[(\[])", "", text).replace(_JOIN, " ").strip()


def _grouped(node: ElementTree.Element, below: bool) -> str:
    """A numerator or denominator, in brackets where it would otherwise be read in another way."""
    while node.tag.endswith("mrow") and len(node) == 1:
        node = node[0]
    text = _flat(node)
    fenced = re.fullmatch(r"\|[^|]*\||\([^()]*\)", text)
    many = (below and node.tag.endswith("mrow") and len(node) > 1) or re.search(r"[ /]", text)
    return f"({text})" if many and not fenced else text


def _scripted(base: ElementTree.Element, sub: ElementTree.Element | None, sup: ElementTree.Element | None) -> str:
    text = _walk(base)
    joined = text.endswith(_JOIN)
    big = text.strip() in _BIG
    text = text.removesuffix(_JOIN).rstrip() if joined or big else text
    if sub is not None:
        text += _script(_flat(sub), _SUB, "_")
    if sup is not None:
        text += _script(_flat(sup), _SUP, "^")
    return f"{text}{_JOIN}" if joined else f" {text.strip()} " if big else text


def _script(text: str, table: dict[str, str], sign: str) -> str:
    """Small characters where all of them exist, else ``_old`` or ``_(old, i)``."""
    tight = text.replace(" ", "")
    if tight == "′" or set(tight) == {"′"}:
        return tight
    letters = tight.replace(",", "")
    if letters and all(c in table for c in letters):
        return "".join(table.get(c, c) for c in (letters if len(letters) < 4 else tight))
    return f"{sign}{tight}" if re.fullmatch(r"[<>≤≥]?[\w∞*]+", tight) else f"{sign}({text})"


def _accented(base: str, mark: str) -> str:
    core = base.replace(_JOIN, "").strip()
    return core[0] + mark + core[1:] if core else base


# Docstrings ----------------------------------------------------------------------------------------------------------

Kind = Literal["text", "math", "code"]


def prose(text: str) -> Iterator[tuple[Kind, str]]:
    """Running text of a docstring in pieces: plain, ``:math:`` and code."""
    for piece in re.split(r"(:math:`[^`]+`|(?::\w+)*:\w+:`[^`]+`|``[^`]+``|`[^`]+`)", " ".join(text.split())):
        if piece.startswith(":math:"):
            yield "math", piece[7:-1]
        elif piece.startswith((":", "`")) and piece.endswith("`"):
            yield "code", piece.rsplit(":", 1)[-1].strip("`").removeprefix("~").rsplit(".", 1)[-1] if piece[0] == ":" else piece.strip("`")
        elif piece:
            yield "text", piece


def spoken(text: str) -> str:
    """Running text of a docstring as plain characters, its formulas in Unicode."""
    return "".join(unicode(x) if kind == "math" else x for kind, x in prose(text))


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
    return re.split(r"(?<=[^\s.][\w)`\]]\.)(?<!\bDr\.)(?<!\bal\.)\s+(?=[A-Z:`\[])", text, maxsplit=1)[0]
