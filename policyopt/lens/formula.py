r"""Formulas and prose of docstrings for a terminal and for a page: LaTeX as MathML, and as one line of Unicode."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import Literal
from xml.etree import ElementTree

from latex2mathml.converter import convert

_SUB = dict(zip("0123456789aehijklmnoprstuvx+−=()βγρφχ", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₊₋₌₍₎ᵦᵧᵨᵩᵪ", strict=True))
_SUP = dict(
    zip("0123456789abcdefghijklmnoprstuvwxyz+−=()*TN", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ⁺⁻⁼⁽⁾*ᵀᴺ", strict=True)
)
_OVER = {
    "^": "\u0302",
    "ˆ": "\u0302",
    "~": "\u0303",
    "˜": "\u0303",
    "¯": "\u0304",
    "―": "\u0304",
    "‾": "\u0304",
    "_": "\u0304",
}
_NAMES = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar"}
_SPACED = set("=≈≤≥<>≠≜≡→←↦∈∉∼~+±∓·×⋅∪∩∧∨∣‖|←⇒⇔∝≪≫")
_BIG = set("∑∏∫⋃⋂")
_OPEN = set("([{,;=|<>≤≥∼←→·/") | {""}
_NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", _NAMESPACE)
_FENCES = {"lceil": "⌈", "rceil": "⌉", "lfloor": "⌊", "rfloor": "⌋"}
_ENVIRONMENT = re.compile(r"\\begin\{\w+\}.*?\\end\{\w+\}", re.S)
_JOIN = "\0"
"""Stands after the name of a function: nothing before a bracket, a space before anything else."""


def lines(latex: str) -> list[str]:
    r"""A formula cut where its author left a wide gap (``\qquad``) or began a new line."""
    inside = _ENVIRONMENT.findall(latex)
    pieces = re.split(r"\\qquad|(?<=,)\\quad|\\\\", _ENVIRONMENT.sub(_JOIN, latex))
    return [re.sub(_JOIN, lambda _: inside.pop(0), piece).strip() for piece in pieces if piece.strip()]


def mathml(latex: str, display: Literal["inline", "block"] = "inline") -> str:
    """A formula as MathML, which browsers draw without a script. Raises ``ValueError`` for LaTeX that cannot be read."""
    return ElementTree.tostring(_tree(latex, display), "unicode")


_WORDS = re.compile(
    r"\\(?:mathrm|operatorname\*?|mathit|text)\{([A-Za-z \-]*)\}"  # set upright by the author
    r"|\\text\{[^{}]*\}|\\(?:begin|end)\{[^}]*\}(?:\{[^}]*\})?|\\[A-Za-z]+"  # left as they are
    r"|([A-Za-z]{3,})"  # a word that would be set as a product of its letters
)


def _tree(latex: str, display: Literal["inline", "block"]) -> ElementTree.Element:
    latex = re.sub(r"\\([lr])(ceil|floor)(?![a-z])", lambda m: _FENCES[m[1] + m[2]], latex)
    words = _WORDS.sub(lambda m: rf"\text{{{m[1] or m[2]}}}" if m[1] or m[2] else m[0], latex)
    try:
        root = ElementTree.fromstring(convert(words, display=display))
    except Exception as error:  # the converter raises a dozen kinds of its own
        raise ValueError(f"not LaTeX that can be shown ({type(error).__name__}): {latex}") from error
    for node in root.iter(f"{{{_NAMESPACE}}}mi"):
        if node.text == "~":  # the converter takes the relation for a name
            node.tag, node.text = f"{{{_NAMESPACE}}}mo", "∼"
    for row in root.iter(f"{{{_NAMESPACE}}}mrow"):
        _space(row)
    return root


def _space(row: ElementTree.Element) -> None:
    """Spaces that a browser cannot know: around bars, after the name of a function, after a sign without left side."""
    before = "("
    for node, after in itertools.zip_longest(row, list(row)[1:]):
        kind, sign = node.tag.rsplit("}", 1)[-1], (node.text or "").strip()
        if kind in ("mi", "mo") and len(sign) > 1 and sign.isalpha():
            node.tag = f"{{{_NAMESPACE}}}mo"
            opens = after is not None and (after.text or "").strip() in ("(", "[")
            node.attrib = {"form": "prefix", "lspace": "0.17em", "rspace": "0" if opens else "0.17em"}
        elif kind == "mo" and sign in ("|", "∣"):
            node.attrib |= {"lspace": "0", "rspace": "0"}
        elif kind == "mo" and sign in ("−", "+", "±") and before in _OPEN:
            node.set("form", "prefix")
        if kind != "mspace":
            before = sign if kind == "mo" and not sign.isalpha() else "x"


def unicode(latex: str) -> str:
    r"""A formula on one line of plain characters: ``\frac1N\sum_i s_i A_i`` becomes ``1/N ∑ᵢ sᵢAᵢ``."""
    text = _walk(_tree(latex, "inline"))
    text = re.sub(rf"{_JOIN}\s*(?=[(\[])", "", text).replace(_JOIN, " ")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"‖ ([^‖]*) ‖ ?(?=[₁₂_])", r"‖\1‖", text)
    text = re.sub(r"([(\[{/]) ", r"\1", text)
    text = re.sub(r"(^|[(\[{,;=|≤≥<>∼~·/]) ?− ", r"\1 −", text)
    return unicodedata.normalize("NFC", re.sub(r"(?<=[(\[{/]) | (?=[)\]},;/])", "", text).strip())


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
    if kind == "mfrac" and node.get("linethickness", "1")[0] == "0":  # a binomial coefficient, in its own brackets
        return f"{_flat(inner[0])} choose {_flat(inner[1])}"
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
    """A symbol with its accent; over more than one symbol the accent has a name."""
    core = base.replace(_JOIN, " ").strip()
    if re.fullmatch(r"\w\w*[′*]?", core):
        return core[0] + mark + core[1:]
    return f" {_NAMES[mark]}({core})"


# Docstrings ----------------------------------------------------------------------------------------------------------

Kind = Literal["text", "math", "code"]


def prose(text: str) -> Iterator[tuple[Kind, str]]:
    """Running text of a docstring in pieces: plain, ``:math:`` and code."""
    for piece in re.split(r"(:math:`[^`]+`|(?::\w+)*:\w+:`[^`]+`|``[^`]+``|`[^`]+`)", " ".join(text.split())):
        if piece.startswith(":math:"):
            yield "math", piece[7:-1]
        elif piece.startswith((":", "`")) and piece.endswith("`"):
            yield (
                "code",
                piece.rsplit(":", 1)[-1].strip("`").removeprefix("~").rsplit(".", 1)[-1]
                if piece[0] == ":"
                else piece.strip("`"),
            )
        elif piece:
            yield "text", piece


def spoken(text: str) -> str:
    """Running text of a docstring as plain characters, its formulas in Unicode."""
    return "".join(unicode(x) if kind == "math" else x for kind, x in prose(text))
