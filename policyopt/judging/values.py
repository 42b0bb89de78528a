r"""Numbers as people and models write them, read as values: exactly, or not at all.

``1,234.5``, ``-3``, ``1e-5``, ``3/4``, ``1 1/2``, ``\frac{1}{2}``, ``10\sqrt{2}``, ``2^{10}``, ``3 \times 10^8``, ``\$18.50``,
``50%``, ``5 cm``, ``x = 5``. What can be read in two ways is not read: ``1,5`` (a list, or a decimal comma), ``1.234,5``,
``3, 5``, ``3-5``, ``3:4``, ``2024-01-05``, ``007``.
"""

from __future__ import annotations

import decimal
import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from policyopt.judging.answers import unwrapped
from policyopt.judging.arithmetic import EXACT, Number, Reader, Unreadable, product, same_number, to_float

LONGEST = 1000
"""Characters of a number; what is longer is not read."""


@dataclass(frozen=True)
class Value:
    """A number with what stands around it."""

    number: Number
    unit: str = ""
    """``"cm"``, ``"dollar"``, ``"%"``; empty without one."""
    finished: bool = True
    """Not a sum or product that is still to be worked out, as in ``2+3`` and ``6*7``."""
    name: str = ""
    """What the value is said to be of: ``"x"`` in ``x = 5``."""


def read_value(text: str) -> Value | None:
    """The value that a text is; ``None`` where it is none, or could be several. Of equations the last side counts."""
    if len(text) > LONGEST:
        return None
    try:
        with decimal.localcontext(EXACT):
            return _equation(_normal(text))
    except (Unreadable, decimal.DecimalException, ArithmeticError, ValueError, RecursionError):
        return None


def same_value(wanted: Value, given: Value, tolerance: float = 0.0) -> bool:
    """Whether a value is the reference: its number and, where both have one, its unit.

    A sum that is still to be worked out is no answer. Where one of the two alone has a percent
    sign, a number above 1 may be in percent (50 and 50 %), and one that is equal as a share is right too (0.5 and 50 %).
    """
    if not given.finished or len({wanted.name, given.name} - {""}) > 1:
        return False
    percents = [v.unit == "%" for v in (wanted, given)]
    if percents[0] != percents[1]:
        bare, other = (given, wanted) if percents[0] else (wanted, given)
        if bare.unit:
            return False
        share = Fraction(1, 100) * other.number if isinstance(other.number, Fraction) else other.number / 100
        signless = abs(to_float(bare.number)) > 1 and same_number(bare.number, other.number, tolerance)
        return signless or same_number(bare.number, share, tolerance)
    units = {wanted.unit, given.unit} - {""}
    return len(units) < 2 and same_number(wanted.number, given.number, tolerance)


# The last number of a text --------------------------------------------------------------------------------------------

_PIECES = re.compile(
    r"(?P<word>(?<!\\)[^\W\d_]\w*)|(?P<run>(?:[\d.,/^*+\-=()%{}$€£ \t':!\u2212\u2013\u00d7\u00b7\u00f7\u2248\u221a\u03c0\u2070-\u2079\u00b2\u00b3\u00b9\u00bc-\u00be]"
    r"|\\[a-zA-Z]+|\\[,;!$%({)}\[\]])+)"
)
_LEADS = re.compile(r"(?:or|and|to|nor|not|than|between|t|minus|plus|times|over)", re.IGNORECASE)


def last_number(text: str) -> str | None:
    """The last number of the last line that holds a digit, with the expression that it is part of; ``None`` where there is
    none, or where it is one of two (``42 or 43``)."""
    line = next((line for line in reversed(text[-20_000:].splitlines()) if re.search(r"\d", line)), "")[-2000:]
    pieces = list(_PIECES.finditer(line))
    last = next((i for i in reversed(range(len(pieces))) if re.search(r"\d", pieces[i][0])), None)
    if last is None or pieces[last]["run"] is None:
        return None
    run, before, after = pieces[last]["run"], "", ""
    if last and pieces[last - 1].end() == pieces[last].start():
        before = pieces[last - 1][0]
    if last + 1 < len(pieces) and pieces[last].end() == pieces[last + 1].start():
        after = pieces[last + 1][0]
    if _LEADS.fullmatch(before) or (before and run[0] in "-+*/^.,\u2212\u2013"):
        return None
    # "5x" is no 5, and "5 million" neither
    if after and (not run[-1].isspace() or after.lower() in (*_SCALES, "percent")):
        run += after
    return _balanced(run.strip(" \t,;:=").rstrip("."))


def _balanced(run: str) -> str:
    """Without a bracket that was opened before the number or is closed after it."""
    while run.endswith(")") and run.count(")") > run.count("("):
        run = run[:-1].rstrip(" .,;:")
    while run.startswith("(") and run.count("(") > run.count(")"):
        run = run[1:].lstrip()
    return run


# One way of writing -------------------------------------------------------------------------------------------------

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = {
    "\u2212": "-", "\ufe63": "-", "\uff0d": "-", "\u00d7": r"\cdot ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": "/",
    "\u2044": "/", "\u2215": "/", "\u03c0": r"\pi ", "\u00b0": " degree ", "\u2248": r"\approx ", "\uff05": "%", "\uff0c": ",",
    "\uff0e": ".", "\uff04": "$", "\u066b": ".", "\u066c": ",", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2007": " ",
    "\u3000": " ", "\u00b5": "u", "\u03bc": "u",
}  # fmt: skip
_LATEX = (
    (re.compile(r"\\\$"), "\u00a4"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:left|right|displaystyle|bigl?|bigr?|!)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:times|ast)(?![A-Za-z])|\*(?!\*)"), r"\\cdot "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\^\s*(?:\{\s*)?(?:\\circ|\\degree)(?:\s*\})?|\\degree"), " degree "),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|mbox|operatorname|textrm|rm)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\s+\^"), "^"),
    (re.compile(r"\\(?:simeq|sim)(?![A-Za-z])"), r"\\approx "),
)


def _normal(text: str) -> str:
    """The text with one way of writing each sign, in ASCII where it holds a number."""
    out = []
    text = unwrapped(text)
    for i, char in enumerate(text):
        if char in _SIGNS:
            out.append(_SIGNS[char])
        elif char in "⁰¹²³⁴⁵⁶⁷⁸⁹⁻":
            raised = char.translate(_RAISED)
            out.append(raised if i and text[i - 1] in "⁰¹²³⁴⁵⁶⁷⁸⁹⁻" else f"^{raised}")
        elif (vulgar := unicodedata.decomposition(char)).startswith("<fraction>"):
            digits = "".join(chr(int(x, 16)) for x in vulgar.split()[1:])
            top, _, bottom = digits.partition("\u2044")
            out.append(rf"\frac{{{top}}}{{{bottom}}}")
        elif char == "\u221a":
            out.append(r"\sqrt ")
        else:
            out.append(str(d) if (d := unicodedata.decimal(char, None)) is not None else char)
    text = "".join(out)
    if text.startswith("\u2013"):
        text = "-" + text[1:]
    for pattern, sign in _LATEX:
        text = pattern.sub(sign, text)
    if text.count("$") % 2 == 0:
        text = text.replace("$", " ")
    return text.replace("$", "\u00a4").strip()


# Equations ----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"\\?[A-Za-z](?:[\w\s\\]|_\{\w*\})*(?:\([^()=;]*\))?")
"""Of what a value is: ``x``, ``x_1``, ``f(2)``, ``total cost``; of ``2x = 6`` and ``x^2 = 4`` nothing is known yet."""
_EQUAL = re.compile(r"(\\approx(?![A-Za-z])|=)")


def _equation(text: str) -> Value:
    """The value of the last side. The sides before are names and expressions; those that are numbers have to be equal."""
    *before, last = _EQUAL.split(text)
    value, name = _quantity(last.strip()), ""
    for side, sign in zip(before[::2], before[1::2], strict=True):
        if not side.strip():
            if sign == "=" or len(before) > 2:
                raise Unreadable
            continue
        try:
            other = _quantity(side.strip())
        except Unreadable:
            if not _NAME.fullmatch(side.strip()):
                raise
            name = name or side.strip()
            continue
        if sign == "=" and not same_number(other.number, value.number):
            raise Unreadable
    return replace(value, name=name)


# A number and what stands around it -----------------------------------------------------------------------------------

_CURRENCIES = {"\u00a4": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12}  # fmt: skip
_PERCENT = re.compile(r"\s*(?:%|(?:percent|per cent|pct)(?![A-Za-z])\.?)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-zΩ]+\.?(?:\^\{?-?[123]\}?)?(?:[/·-][A-Za-z]+(?:\^\{?-?[123]\}?)?){0,3}")
_ALIASES = {
    name: names.split()[0]
    for names in (
        "m meter metre", "cm centimeter centimetre", "mm millimeter millimetre", "km kilometer kilometre", "kg kilogram",
        "g gram gm", "mg milligram", "l liter litre", "ml milliliter millilitre", "s second sec", "ms millisecond", "min minute",
        "h hour hr", "day", "week", "month", "year yr", "dollar usd buck", "euro eur", "pound gbp", "cent", "degree deg",
        "ft foot feet", "in inch inches", "mi mile", "lb lbs", "oz ounce", "mph", "kmh km/h kph", "hz", "n newton", "j joule",
        "w watt", "v volt",
    )
    for name in names.split()
}  # fmt: skip
KNOWN_UNITS = frozenset({"", "%", "euro", "pound", "yen", "rupee", *_ALIASES.values()})
"""Units that are certainly ones: other words behind a number may be a street or a brand."""
_ATTACHED = frozenset(
    [
        "cm",
        "mm",
        "km",
        "kg",
        "mg",
        "ml",
        "ms",
        "min",
        "hr",
        "ft",
        "lb",
        "lbs",
        "oz",
        "mph",
        "kph",
        "hz",
        "sec",
        "usd",
        "eur",
        "gbp",
        "km/h",
        "m/s",
        "deg",
    ]
)
"""Units that may follow a number without a space; a single letter would be a variable."""
_NO_UNIT = frozenset(
    [
        "or",
        "and",
        "to",
        "than",
        "not",
        "no",
        "is",
        "are",
        "was",
        "were",
        "more",
        "less",
        "fewer",
        "about",
        "times",
        "plus",
        "minus",
        "over",
        "by",
        "nor",
        "but",
        "if",
        "because",
        "x",
        "y",
        "z",
        "i",
        "e",
        "k",
        "pi",
        "sqrt",
        "mod",
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
        "quarters",
        "fourth",
        "fourths",
        "fifth",
        "fifths",
        "sixth",
        "sixths",
        "seventh",
        "sevenths",
        "eighth",
        "eighths",
        "ninth",
        "ninths",
        "tenth",
        "tenths",
        "hundredth",
        "hundredths",
        "thousandth",
        "thousandths",
        "mn",
        "mio",
        "bn",
        "m.n",
        "squared",
        "cubed",
        "factorial",
        "infinity",
        "inf",
        "maybe",
        "perhaps",
        "unless",
        "except",
        "wrong",
        "incorrect",
        "false",
        "remainder",
        "modulo",
        "base",
        "pairs",
        "couple",
        "score",
        "so",
        "then",
        "ln",
        "log",
        "sin",
        "cos",
        "tan",
        "exp",
    ]
)


def _quantity(text: str) -> Value:
    """A number with currency, percent sign, scale word or unit."""
    sign, unit = "", ""
    if text[:1] in "+-":
        sign, text = text[:1], text[1:].lstrip()
    if text[:1] in _CURRENCIES:
        unit, text = _CURRENCIES[text[0]], text[1:].lstrip()
        if text[:1] == "-" and not sign:
            sign, text = "-", text[1:]
    reader = Reader(sign + text)
    number, finished = reader.sum()
    rest = reader.rest()
    attached = not rest[:1].isspace()
    if percent := _PERCENT.match(rest):
        if unit or rest[percent.end() :].strip(" .s"):
            raise Unreadable
        return Value(number, "%", finished)
    words = rest.split()
    if words and words[0].lower() in _SCALES and not attached:
        number, words = product(number, Fraction(_SCALES[words[0].lower()])), words[1:]
    if words:
        if len(words) > 4 or not all(_WORD.fullmatch(w) and w.lower().strip(".") not in _NO_UNIT for w in words):
            raise Unreadable
        if attached and words[0].lower().strip(".") not in _ATTACHED:
            raise Unreadable
        named = _unit(words)
        if unit and named != unit:
            raise Unreadable
        unit = named
    return Value(number, unit, finished)


def _unit(words: list[str]) -> str:
    plain = []
    for word in words:
        word = re.sub(r"[{}.]", "", word)
        if word.lower() in _SCALES or (len(word) == 1 and word.lower() not in _ALIASES):
            raise Unreadable
        word = word.lower()
        singular = word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
        plain.append(_ALIASES.get(word, _ALIASES.get(singular, singular)))
    return " ".join(plain)
