r"""Numbers as people and models write them, read as values: exactly, or not at all.

``1,234.5``, ``-3``, ``1e-5``, ``3/4``, ``1 1/2``, ``\frac{1}{2}``, ``10\sqrt{2}``, ``2^{10}``, ``3 \times 10^8``, ``\$18.50``,
``50%``, ``5 cm``, ``x = 5``. What can be read in two ways is not read: ``1,5`` (a list, or a decimal comma), ``1.234,5``,
``3, 5``, ``3-5``, ``3:4``, ``2024-01-05``, ``007``.
"""

from __future__ import annotations

import decimal
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from policyopt.judging.answers import unwrapped

LONGEST = 1000
"""Characters of a number; what is longer is not read."""
_BITS = 40_000
"""Size of numerator and denominator, and of what a power may become."""
_DEEP = 24
_EXACT = decimal.Context(prec=60, Emax=10**6, Emin=-(10**6))
_CLOSE = Decimal("1e-45")

Number = Fraction | Decimal
"""Exact where it is rational, else to 60 digits."""


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


class _Unreadable(Exception):
    """No number, or more than one."""


def read_value(text: str) -> Value | None:
    """The value that a text is; ``None`` where it is none, or could be several. Of equations the last side counts."""
    if len(text) > LONGEST:
        return None
    try:
        with decimal.localcontext(_EXACT):
            return _equation(_normal(text))
    except (_Unreadable, decimal.DecimalException, ArithmeticError, ValueError, RecursionError):
        return None


def same_number(a: Number, b: Number, tolerance: float = 0.0) -> bool:
    """Whether two numbers are equal, up to ``tolerance`` (relative or absolute)."""
    if tolerance:
        x, y = _float(a), _float(b)
        return math.isfinite(x) and math.isfinite(y) and math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    with decimal.localcontext(_EXACT):
        x, y = _decimal(a), _decimal(b)
        return abs(x - y) <= _CLOSE * max(abs(x), abs(y))


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
        signless = abs(_float(bare.number)) > 1 and same_number(bare.number, other.number, tolerance)
        return signless or same_number(bare.number, share, tolerance)
    units = {wanted.unit, given.unit} - {""}
    return len(units) < 2 and same_number(wanted.number, given.number, tolerance)


def _float(x: Number) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf


def _decimal(x: Number) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator) if isinstance(x, Fraction) else x


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
        text = text.replace("$", "")
    return text.replace("$", "\u00a4").strip()


# Equations ----------------------------------------------------------------------------------------------------------

_EQUAL = re.compile(r"(\\approx(?![A-Za-z])|=)")


def _equation(text: str) -> Value:
    """The value of the last side. The sides before are names and expressions; those that are numbers have to be equal."""
    *before, last = _EQUAL.split(text)
    value, name = _quantity(last.strip()), ""
    for side, sign in zip(before[::2], before[1::2], strict=True):
        if not side.strip():
            if sign == "=" or len(before) > 2:
                raise _Unreadable
            continue
        try:
            other = _quantity(side.strip())
        except _Unreadable:
            if re.search(r"[,;]|\b(?:or|and)\b|[<>≤≥≠!]|\\(?:le|ge|ne|lt|gt)", side) or not re.search(r"[A-Za-z]", side):
                raise
            name = name or side.strip()
            continue
        if sign == "=" and not same_number(other.number, value.number):
            raise _Unreadable
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
_ATTACHED = frozenset("cm mm km kg mg ml ms min hr ft lb lbs oz mph kph hz sec usd eur gbp km/h m/s deg".split())
"""Units that may follow a number without a space; a single letter would be a variable."""
_NO_UNIT = frozenset(
    "or and to than not no is are was were more less fewer about times plus minus over by nor but if because x y z i e k pi sqrt mod half "
    "halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths "
    "hundredth hundredths thousandth thousandths mn mio bn m.n squared cubed factorial infinity inf maybe perhaps unless except wrong "
    "incorrect false remainder modulo base pairs couple score so then ln log sin cos tan exp".split()
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
    reader = _Reader(sign + text)
    number, finished = reader.sum()
    rest = reader.rest()
    attached = not rest[:1].isspace()
    if percent := _PERCENT.match(rest):
        if unit or rest[percent.end() :].strip(" .s"):
            raise _Unreadable
        return Value(number, "%", finished)
    words = rest.split()
    if words and words[0].lower() in _SCALES and not attached:
        number, words = _product(number, Fraction(_SCALES[words[0].lower()])), words[1:]
    if words:
        if len(words) > 4 or not all(_WORD.fullmatch(w) and w.lower().strip(".") not in _NO_UNIT for w in words):
            raise _Unreadable
        if attached and words[0].lower().strip(".") not in _ATTACHED:
            raise _Unreadable
        named = _unit(words)
        if unit and named != unit:
            raise _Unreadable
        unit = named
    return Value(number, unit, finished)


def _unit(words: list[str]) -> str:
    plain = []
    for word in words:
        word = re.sub(r"[{}.]", "", word)
        if word.lower() in _SCALES or (len(word) == 1 and word.lower() not in _ALIASES):
            raise _Unreadable
        word = word.lower()
        singular = word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word
        plain.append(_ALIASES.get(word, _ALIASES.get(singular, singular)))
    return " ".join(plain)


# Arithmetic -----------------------------------------------------------------------------------------------------------

_NUMERAL = re.compile(
    r"(?:(?P<grouped>\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ '_]\d{3})+(?!\s*/))|(?P<whole>\d+))(?P<part>\.\d+)?(?P<power>[eE][-+]?\d{1,3})?"
    r"|(?P<only>\.\d+)",
    re.ASCII,
)
_SPACE = re.compile(r"\s*")
_TIMES = re.compile(r"\s*\\cdot(?![A-Za-z])\s*")
_OVER = re.compile(r"\s*/\s*")
_ADD = re.compile(r"\s*([-+])\s*")
_POWER = re.compile(r"\s*\^\s*")
_MIXED = re.compile(r"\s+(?=\d+\s*/\s*\d)|\s*(?=\\frac)")
_NEXT = re.compile(r"\s*(?=\\sqrt|\\pi(?![A-Za-z])|pi(?![A-Za-z])|sqrt\b)")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


@dataclass(frozen=True)
class _Part:
    """A piece of an expression: its number, whether it is worked out, and whether a numeral stands there."""

    number: Number
    finished: bool = True
    numeral: bool = False
    ten: bool = False
    """A power of ten."""


class _Reader:
    """A number by recursive descent, each character once. Raises ``_Unreadable``."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def rest(self) -> str:
        return self.text[self.at :]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def skip(self, token: str) -> bool:
        at = self.at + len(_SPACE.match(self.text, self.at)[0])  # type: ignore[index]
        if not self.text.startswith(token, at):
            return False
        self.at = at + len(token)
        return True

    def need(self, token: str) -> None:
        if not self.skip(token):
            raise _Unreadable

    def sum(self) -> tuple[Number, bool]:
        """Terms, and whether the sum is worked out: at most one of them is rational."""
        self.depth += 1
        if self.depth > _DEEP:
            raise _Unreadable
        negative = (sign := self.take(_ADD)) is not None and sign[1] == "-"
        first = self.product()
        total, finished = -first.number if negative else first.number, first.finished
        rational = int(isinstance(total, Fraction))
        while sign := self.take(_ADD):
            term = self.product()
            rational += isinstance(term.number, Fraction)
            total = _sum(total, -term.number if sign[1] == "-" else term.number)
            finished = finished and term.finished and rational < 2
        self.depth -= 1
        return total, finished

    def product(self) -> _Part:
        left = self.power()
        if left.numeral and isinstance(left.number, Fraction) and left.number.denominator == 1 and self.take(_MIXED):
            part = self.fraction(self.power())
            if not part.finished or not 0 < _float(part.number) < 1:
                raise _Unreadable
            return _Part(_sum(left.number, part.number))
        left = self.fraction(left)
        while True:
            if self.take(_TIMES):
                right = self.fraction(self.power())
            elif self.take(_NEXT):
                right = self.fraction(self.power())
            else:
                return left
            rational = isinstance(left.number, Fraction) and isinstance(right.number, Fraction)
            finished = left.finished and right.finished and (not rational or (left.numeral and right.ten))
            left = _Part(_product(left.number, right.number), finished)

    def fraction(self, top: _Part) -> _Part:
        if not self.take(_OVER):
            return top
        bottom = self.power()
        if self.take(_OVER) or not bottom.number:
            raise _Unreadable
        return _Part(_quotient(top.number, bottom.number), top.finished and bottom.finished)

    def power(self) -> _Part:
        base = self.atom()
        if not self.take(_POWER):
            return base
        if self.skip("{"):
            exponent = self.inside("}")
        elif self.skip("("):
            exponent = self.inside(")")
        else:
            negative = self.skip("-")
            exponent = self.atom()
            exponent = replace(exponent, number=-exponent.number) if negative else exponent
        if self.take(_POWER):
            raise _Unreadable
        ten = base.numeral and base.number == 10
        return _Part(_raised(base.number, exponent.number), base.finished and exponent.finished, ten=ten)

    def inside(self, closing: str) -> _Part:
        number, finished = self.sum()
        self.need(closing)
        return _Part(number, finished)

    def argument(self) -> _Part:
        r"""In braces, or one digit: ``\frac{1}{2}`` and ``\frac12``."""
        if self.skip("{"):
            return self.inside("}")
        self.take(_SPACE)
        if self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
            return _Part(Fraction(int(self.text[self.at - 1])))
        raise _Unreadable

    def atom(self) -> _Part:
        if self.skip("("):
            return self.inside(")")
        if self.skip(r"\frac"):
            top, bottom = self.argument(), self.argument()
            return _Part(_quotient(top.number, bottom.number), top.finished and bottom.finished)
        if self.skip(r"\sqrt") or self.skip("sqrt"):
            return self.root()
        if self.skip(r"\pi") or self.skip("pi"):
            return _Part(_PI)
        return self.numeral()

    def root(self) -> _Part:
        degree = Fraction(2)
        if self.skip("["):
            degree = Fraction(self.inside("]").number)
        if self.skip("("):
            inside = self.inside(")")
        elif re.match(r"\s*\d", self.rest()):
            inside = self.numeral()
        else:
            inside = self.argument()
        if not degree or inside.number < 0:
            raise _Unreadable
        return _Part(_raised(inside.number, 1 / degree), inside.finished)

    def numeral(self) -> _Part:
        self.take(_SPACE)
        found = self.take(_NUMERAL)
        if found is None:
            raise _Unreadable
        # What goes on with digits, commas or points could be a list, a date, or a comma for the decimal point
        if re.match(r"[,.']?\d|[.,]\s*\d|\.(?!\s|$)|_", self.rest()):
            raise _Unreadable
        whole = found["grouped"] or found["whole"] or ""
        if len(whole) > 1 and whole[0] == "0":
            raise _Unreadable
        digits = re.sub(r"[^\d]", "", whole) + (found["part"] or found["only"] or "")
        return _Part(Fraction(digits + (found["power"] or "")), numeral=True)


def _checked(x: Fraction) -> Fraction:
    if max(x.numerator.bit_length(), x.denominator.bit_length()) > _BITS:
        raise _Unreadable
    return x


def _pair(a: Number, b: Number) -> Iterator[Decimal]:
    yield from (_decimal(a), _decimal(b))


def _sum(a: Number, b: Number) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a + b)
    x, y = _pair(a, b)
    return x + y


def _product(a: Number, b: Number) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a * b)
    x, y = _pair(a, b)
    return x * y


def _quotient(a: Number, b: Number) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a / b)
    x, y = _pair(a, b)
    return x / y


def _raised(base: Number, exponent: Number) -> Number:
    """A power; a root of a rational number is rational where it comes out even."""
    if isinstance(exponent, Decimal) or not base:
        raise _Unreadable
    if exponent.denominator == 1:
        n = exponent.numerator
        if isinstance(base, Decimal):
            return base**n if abs(n) < 1000 else _unreadable()
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        return base**n if bits * abs(n) <= _BITS else _unreadable()
    if base < 0 or max(abs(exponent.numerator), exponent.denominator) > 100:
        raise _Unreadable
    root = _decimal(base) ** (Decimal(exponent.numerator) / Decimal(exponent.denominator))
    if isinstance(base, Fraction) and root < 10**12:
        near = Fraction(round(root * base.denominator), base.denominator)
        if near > 0 and abs(exponent.numerator) == 1 and near**exponent.denominator == base**exponent.numerator:
            return near
    return root


def _unreadable() -> Number:
    raise _Unreadable
