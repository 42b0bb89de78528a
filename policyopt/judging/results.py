"""What a judge's function returns, read as a verdict."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping

from policyopt.items import Verdict

MOST_PARTS = 64
"""Numbers that a verdict may hold beside its score."""


class BadResult(Exception):
    """A judge's function returned something that is no verdict."""


def finite(value: object) -> float:
    """A number or bool (NumPy's and torch's scalars too) as a finite float."""
    item = getattr(value, "item", None)
    if callable(item):
        value = item()
    if not isinstance(value, numbers.Real):
        raise BadResult(f"returned {reprlib.repr(value)}, expected a number, a bool, a dict with a score, or None")
    score = float(value)
    if not math.isfinite(score):
        raise BadResult(f"returned the score {score}, expected a finite number")
    return score


def read_result(result: object) -> Verdict:
    """What a judge's function returned, as a verdict; ``None``, or a score of None, says that it does not apply to the row.

    Raises :class:`BadResult` for what is no verdict.
    """
    if result is None:
        return Verdict.absent()
    if not isinstance(result, Mapping):
        score = finite(result)
        return Verdict(score, score >= 1, False, f"score {score:g}")
    unknown = set(result) - {"score", "correct", "formatted", "reason", "parts"}
    if "score" not in result or unknown:
        raise BadResult(
            f"returned a dict with keys {sorted(map(str, result))}, "
            "expected score and, where wanted, correct, formatted, reason, parts"
        )
    if result["score"] is None:
        return Verdict.absent(str(result["reason"])) if "reason" in result else Verdict.absent()
    score, parts = finite(result["score"]), result.get("parts", {})
    if not isinstance(parts, Mapping) or len(parts) > MOST_PARTS:
        raise BadResult(f"returned parts {reprlib.repr(parts)}, expected at most {MOST_PARTS} numbers by name")
    return Verdict(
        score,
        bool(result.get("correct", score >= 1)),
        bool(result.get("formatted", False)),
        str(result.get("reason", f"score {score:g}")),
        parts={str(name): _part(x) for name, x in parts.items()},
    )


def _part(value: object) -> float | list[float]:
    """A number, or a list of numbers for a column that takes one."""
    return [finite(x) for x in value] if isinstance(value, list | tuple) else finite(value)


def read_verl(result: object) -> Verdict:
    """As :func:`read_result`, but a dict may say more, as verl's do: ``acc`` says what is right, other numbers are parts."""
    if not isinstance(result, Mapping):
        return read_result(result)
    known = {name: result[name] for name in ("score", "correct", "formatted", "reason", "parts") if name in result}
    numbers_too = {str(k): v for k, v in result.items() if k not in known and _is_number(v)}
    right = {"correct": bool(result["acc"])} if "acc" in result and "correct" not in known else {}
    return read_result({**known, **right, "parts": {**numbers_too, **known.get("parts", {})}})


def _is_number(value: object) -> bool:
    try:
        finite(value)
    except BadResult:
        return False
    return True
