"""How judges are written: one by its name, or several as ``NAME=JUDGE:WEIGHT``.

``number`` alone is one judge. ``correct=number:1.0`` and ``brief=my.py:brevity:0.2`` are two of several: their scores are
summed up by weight, and each is logged under its name. Without ``NAME=`` a judge is called what it is (``number``,
``brevity``), without a weight it weighs 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from policyopt.carried import Carried
from policyopt.errors import UserError
from policyopt.items import JudgeSpec
from policyopt.judging.given import is_given, name_of

_NAMED = re.compile(r"([A-Za-z]\w*)=(.+)", re.DOTALL)
_WEIGHT = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)

Written = str | tuple[str, ...]
"""One judge by its name, or several, each as ``NAME=JUDGE:WEIGHT``."""


class Entry(NamedTuple):
    """One of several judges."""

    name: str
    judge: str
    weight: float


def written(judge: Any) -> Written | None:
    """A judge as configurations hold it: its name, or several as ``NAME=JUDGE:WEIGHT``, files from the root.

    ``judge`` is a name, a path, a callable, several of these in a list, or a mapping of names to these (``"my.py:f:0.2"``,
    a callable, or a pair of either and a weight). Raises ``ValueError`` for anything else.
    """
    if judge is None or (isinstance(judge, (list, tuple, Mapping)) and not judge):
        return None
    if isinstance(judge, Mapping):
        entries = [_from_pair(str(name), given) for name, given in judge.items()]
    else:
        words = [_word(one) for one in (judge if isinstance(judge, (list, tuple)) else [judge])]
        if len(words) == 1 and not _is_entry(words[0]):
            return _entry(words[0]).judge
        entries = list(map(_entry, words))
    return tuple(_line(entry) for entry in _apart(entries))


def read(judge: Written) -> tuple[Entry, ...]:
    """The judges of what :func:`written` returned, where these are several."""
    return () if isinstance(judge, str) else tuple(map(_entry, judge))


def _word(given: Any) -> str:
    if callable(given) and not isinstance(given, str):
        return name_of(given)
    if isinstance(given, str | Path):
        return given if isinstance(given, Carried) else str(given)
    raise ValueError(f"expected a judge by name, a function, or several of them, not {given!r}")


def _is_entry(word: str) -> bool:
    return not is_given(word) and bool(_NAMED.fullmatch(word) or _WEIGHT.fullmatch(word))


def _from_pair(name: str, given: Any) -> Entry:
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ValueError(f"expected names of letters, digits and _ for judges, not {name!r}")
    pair = isinstance(given, (list, tuple))
    if pair and (len(given) != 2 or isinstance(given[1], bool) or not isinstance(given[1], int | float)):
        raise ValueError(f"{name}: expected a judge, or a pair of a judge and its weight, not {given!r}")
    word = _word(given[0] if pair else given)
    found = Entry(name, word, 1.0) if is_given(word) else _entry(f"{name}={word}")
    if pair and not math.isfinite(given[1]):
        raise ValueError(f"{name}: expected a finite weight, not {given[1]}")
    return found._replace(weight=float(given[1])) if pair else found


def _entry(word: str) -> Entry:
    """What a word says; a callable that it carries goes with the judge's name."""
    held = getattr(word, "value", None)
    named = _NAMED.fullmatch(word)
    rest = named[2] if named else str(word)
    weighed = _WEIGHT.fullmatch(rest)
    judge, weight = (weighed[1], float(weighed[2])) if weighed else (rest, 1.0)
    called = judge.rpartition(":")[2] if held is None else getattr(held, "__name__", type(held).__name__)
    name = named[1] if named else re.sub(r"\W+", "_", called).strip("_")
    return Entry(name, from_anywhere(judge) if held is None else Carried(judge, held), weight)


def _apart(entries: Iterable[Entry]) -> list[Entry]:
    """The judges, none of which has the name of another."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise ValueError(
                f"two judges are called {entry.name!r}: name them, as in first={entry.judge}:{entry.weight:g}"
            )
        taken = tuple(e.judge for e in found.values())
        if isinstance(entry.judge, Carried) and entry.judge in taken and entry.judge.value is not None:
            entry = entry._replace(judge=name_of(entry.judge.value, taken))
        found[entry.name] = entry
    return list(found.values())


def _line(entry: Entry) -> str:
    line = f"{entry.name}={entry.judge}:{entry.weight!r}"
    return Carried(line, entry.judge.value) if isinstance(entry.judge, Carried) else line


def from_anywhere(judge: str) -> str:
    """A judge's name with its file from the root, so that a run goes on from another directory too."""
    home, colon, function = judge.rpartition(":")
    if colon and home.endswith(".py") and Path(home).exists():
        return f"{Path(home).absolute()}:{function}"
    return judge


def spec_of(
    judge: Any, options: Mapping[str, Any] | None, typed: Callable[[str, Mapping[str, Any]], dict[str, Any]]
) -> JudgeSpec:
    """The judge that is meant by what :func:`written` reads, with its options, which ``typed`` reads.

    Options of several judges are written ``NAME.option``. Raises :class:`~policyopt.errors.UserError` for an option of no
    judge, and where ``judge`` is none.
    """
    options = dict(options or {})
    try:
        found = written(judge)
    except ValueError as error:
        raise UserError(f"judge: {error}") from None
    if found is None:
        raise UserError(f"judge options {', '.join(options)} are set, but no judge: choose one")
    if isinstance(found, str):
        return JudgeSpec(found, typed(found, options))
    own: dict[str, dict[str, Any]] = {entry.name: {} for entry in read(found)}
    for option, value in options.items():
        name, dot, inner = option.partition(".")
        if not dot or name not in own:
            raise UserError(
                f"judge option {option!r}: there are several judges ({', '.join(own)}), say which one is meant, as in "
                f"{next(iter(own))}.{inner or option}=..."
            )
        own[name][inner] = value
    judges = {
        e.name: {"judge": e.judge, "options": typed(e.judge, own[e.name]), "weight": e.weight} for e in read(found)
    }
    return JudgeSpec("weighted", {"judges": judges})
