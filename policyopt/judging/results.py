"""What a judge's function returns, read as a verdict."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Mapping
from dataclasses import replace

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


def read_preference(result: object) -> Verdict:
    """What a function returned that compares two responses: the probability, as score, that the first is better. A dict may say
    more of the first: ``correct``, ``formatted`` and ``reason``. Raises :class:`BadResult` for what is no probability."""
    found = read_result(result)
    if found.parts:
        raise BadResult(f"returned parts {sorted(found.parts)}, which are of no use in a comparison of two responses")
    if found.applies:
        _probability(found.score)
    said = result if isinstance(result, Mapping) else {}
    return replace(found, correct=bool(said.get("correct", False)))


def read_preferences(result: object, n: int) -> Verdict:
    """What a function returned that compares ``n`` responses with one another: a table of n rows of n probabilities, entry
    (i, j) that response i is better than j; where i is j it is not read, and ``None`` says nothing. A dict has it as ``score``
    and may say, with a list of n entries each, which responses are ``correct`` and ``formatted``, and as ``reward`` what each is
    worth where that is not its win rate.

    The table comes row after row as the part ``score``, NaN for what is not said. Raises :class:`BadResult` for anything
    else.
    """
    if result is None:
        return Verdict.absent()
    said = result if isinstance(result, Mapping) else {"score": result}
    if "score" not in said or set(said) - {"score", "reward", "correct", "formatted"}:
        raise BadResult(
            f"returned a dict with keys {sorted(map(str, said))}, "
            "expected score and, where wanted, reward, correct, formatted"
        )
    rows = _listed(said["score"], n, f"a table of {n} rows")
    table = [_listed(row, n, f"{n} probabilities in each row") for row in rows]
    entries = [0.5 if i == j else _entry(x) for i, row in enumerate(table) for j, x in enumerate(row)]
    more = {k: [finite(x) for x in _listed(x, n, f"{k} as a list of {n}")] for k, x in said.items() if k != "score"}
    return Verdict(0.5, False, False, "", parts={"score": entries, **more})


def _listed(value: object, n: int, expected: str) -> list[object]:
    """A list of ``n``, an array or a tensor too."""
    tolist = getattr(value, "tolist", None)
    value = tolist() if callable(tolist) else value
    if not isinstance(value, list | tuple) or len(value) != n:
        raise BadResult(f"returned {reprlib.repr(value)}, expected {expected}, for the {n} responses that it compares")
    return list(value)


def _entry(value: object) -> float:
    return math.nan if value is None else _probability(finite(value))


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise BadResult(
            f"returned {p:g}, expected the probability, from 0 to 1, that the response shown first is better"
        )
    return p


def _part(value: object) -> float | list[float]:
    """A number, NaN for ``None``, or a list of numbers for a column that takes one."""
    if isinstance(value, list | tuple):
        return [finite(x) for x in value]
    return math.nan if value is None else finite(value)


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
