"""Several judges as one: their scores are summed up by weight, and each is said under its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from policyopt.items import Example, Verdict
from policyopt.judging.calls import Found, Item, fills
from policyopt.judging.kinds import Judge
from policyopt.judging.results import BadResult


def weighted_judge(judges: Mapping[str, Mapping[str, Any]], make: Callable[[str, Mapping[str, Any]], Judge]) -> Judge:
    r"""Several judges as one, :math:`R = \sum_k w_k c_k` over those that apply to the row.

    ``judges`` has ``judge``, ``options`` and ``weight`` of each by its name, ``make`` makes one. What judge k says is part
    k of the verdict: NaN where it does not apply. The whole does not apply where none does, and it has failed where one
    has, since a sum without it would be on another scale. ``correct`` and ``formatted`` are those of the judge named
    "correct", or of the first.
    """
    made = {name: make(one["judge"], one.get("options") or {}) for name, one in judges.items()}
    weights = {name: float(one.get("weight", 1.0)) for name, one in judges.items()}
    lead = "correct" if "correct" in made else next(iter(made))

    def judge(example: Example, response: str) -> Verdict:
        return summed({name: _of(name, one, example, response) for name, one in made.items()}, weights, lead)

    together = {name: one for name, one in made.items() if hasattr(one, "many")}

    def many(items: Sequence[Item], limit: float) -> Iterator[Found]:
        # Those that work on many at once come first and whole: their clocks do not run while another judge works
        done = {name: list(one.many(items, limit)) for name, one in together.items()}
        for i, item in enumerate(items):
            try:
                asked = {name: (_raised, done[name][i]) if name in done else (one, *item) for name, one in made.items()}
                yield summed({name: _of(name, *ask) for name, ask in asked.items()}, weights, lead)
            except (Exception, SystemExit) as error:
                yield error

    columns = [c for one in made.values() for c in getattr(one, "columns", ())]
    fills(judge, *dict.fromkeys(columns), *(f"component[{name}]" for name in made))
    if together:
        judge.many, judge.together = many, True  # type: ignore[attr-defined]
    judge.patience = max(getattr(one, "patience", 0.0) for one in made.values())  # type: ignore[attr-defined]
    return judge


def summed(verdicts: Mapping[str, Verdict], weights: Mapping[str, float], lead: str) -> Verdict:
    """What several judges say as one verdict; the one called ``lead`` says what is correct."""
    costs: dict[str, float] = {}
    for v in verdicts.values():
        for name, x in v.costs.items():
            costs[name] = costs.get(name, 0.0) + x
    for name, v in verdicts.items():
        if v.failed:
            return replace(v, reason=f"{name}: {v.reason}", costs=costs)
    counted = {name: v for name, v in verdicts.items() if v.applies}
    said = {name: v.score if name in counted else math.nan for name, v in verdicts.items()}
    inner = {part: x for v in verdicts.values() for part, x in v.parts.items()}
    if twice := sorted(inner.keys() & said.keys()):
        raise BadResult(f"gave a part {twice[0]!r}, which is the name of one of several judges: rename one of them")
    first = verdicts[lead]
    return Verdict(
        sum(weights[name] * v.score for name, v in counted.items()) if counted else math.nan,
        first.correct,
        first.formatted,
        "; ".join(f"{name}: {v.reason}" for name, v in verdicts.items()),
        parts=inner | said,
        applies=bool(counted),
        costs=costs,
    )


def _of(name: str, judge: Callable[..., Verdict], *item: Any) -> Verdict:
    """What one of several judges says; a result that is none is said to be its."""
    try:
        return judge(*item)
    except BadResult as error:
        raise BadResult(f"{name} {error}") from None


def _raised(found: Found) -> Verdict:
    """A verdict; what stands in the place of one is raised."""
    if isinstance(found, BaseException):
        raise found
    return found
