r"""Numbers written as expressions, worked out exactly by recursive descent, within limits of size and depth.

Only what has one reading is read: numerals, fractions, mixed numbers, roots, powers, π, and sums and products of them.
"""

from __future__ import annotations

import decimal
import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

_BITS = 40_000
"""Size of numerator and denominator, and of what a power may become."""
_DEEP = 24
EXACT = decimal.Context(prec=60, Emax=10**6, Emin=-(10**6))
"""What irrational numbers are worked out in."""
_CLOSE = Decimal("1e-45")

Number = Fraction | Decimal
"""Exact where it is rational, else to 60 digits."""


class Unreadable(Exception):
    """No number, or more than one."""


def same_number(a: Number, b: Number, tolerance: float = 0.0) -> bool:
    """Whether two numbers are equal, up to ``tolerance`` (relative or absolute)."""
    if tolerance:
        x, y = to_float(a), to_float(b)
        return math.isfinite(x) and math.isfinite(y) and math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    with decimal.localcontext(EXACT):
        one, other = _decimal(a), _decimal(b)
        return abs(one - other) <= _CLOSE * max(abs(one), abs(other))


def to_float(x: Number) -> float:
    """The nearest float; infinity beyond the largest."""
    try:
        return float(x)
    except OverflowError:
        return math.inf


def _decimal(x: Number) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator) if isinstance(x, Fraction) else x


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


class Reader:
    """A number by recursive descent, each character once. Raises ``Unreadable``."""

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
            raise Unreadable

    def sum(self) -> tuple[Number, bool]:
        """Terms, and whether the sum is worked out: at most one of them is rational."""
        self.depth += 1
        if self.depth > _DEEP:
            raise Unreadable
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
            if not part.finished or not 0 < to_float(part.number) < 1:
                raise Unreadable
            return _Part(_sum(left.number, part.number))
        left = self.fraction(left)
        while True:
            if self.take(_TIMES) or self.take(_NEXT):
                right = self.fraction(self.power())
            else:
                return left
            rational = isinstance(left.number, Fraction) and isinstance(right.number, Fraction)
            finished = left.finished and right.finished and (not rational or (left.numeral and right.ten))
            left = _Part(product(left.number, right.number), finished)

    def fraction(self, top: _Part) -> _Part:
        if not self.take(_OVER):
            return top
        bottom = self.power()
        if self.take(_OVER) or not bottom.number:
            raise Unreadable
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
            raise Unreadable
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
        raise Unreadable

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
            raise Unreadable
        return _Part(_raised(inside.number, 1 / degree), inside.finished)

    def numeral(self) -> _Part:
        self.take(_SPACE)
        found = self.take(_NUMERAL)
        if found is None:
            raise Unreadable
        # What goes on with digits, commas or points could be a list, a date, or a comma for the decimal point
        if re.match(r"[,.']?\d|[.,]\s*\d|\.(?!\s|$)|_", self.rest()):
            raise Unreadable
        whole = found["grouped"] or found["whole"] or ""
        if len(whole) > 1 and whole[0] == "0":
            raise Unreadable
        digits = re.sub(r"[^\d]", "", whole) + (found["part"] or found["only"] or "")
        return _Part(Fraction(digits + (found["power"] or "")), numeral=True)


def _checked(x: Fraction) -> Fraction:
    if max(x.numerator.bit_length(), x.denominator.bit_length()) > _BITS:
        raise Unreadable
    return x


def _sum(a: Number, b: Number) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a + b)
    return _decimal(a) + _decimal(b)


def product(a: Number, b: Number) -> Number:
    """Exact where both are rational."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a * b)
    return _decimal(a) * _decimal(b)


def _quotient(a: Number, b: Number) -> Number:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _checked(a / b)
    return _decimal(a) / _decimal(b)


def _raised(base: Number, exponent: Number) -> Number:
    """A power; a root of a rational number is rational where it comes out even."""
    if isinstance(exponent, Decimal) or not base:
        raise Unreadable
    if exponent.denominator == 1:
        n = exponent.numerator
        if isinstance(base, Decimal):
            return base**n if abs(n) < 1000 else _unreadable()
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        return base**n if bits * abs(n) <= _BITS else _unreadable()
    if base < 0 or max(abs(exponent.numerator), exponent.denominator) > 100:
        raise Unreadable
    root = _decimal(base) ** (Decimal(exponent.numerator) / Decimal(exponent.denominator))
    if isinstance(base, Fraction) and root < 10**12:
        near = Fraction(round(root * base.denominator), base.denominator)
        if near > 0 and abs(exponent.numerator) == 1 and near**exponent.denominator == base**exponent.numerator:
            return near
    return root


def _unreadable() -> Number:
    raise Unreadable
