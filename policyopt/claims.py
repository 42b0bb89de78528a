"""What a method says that it does better than another one, as data that can be put to the test in miniature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from policyopt.files import Malformed, parse_json

RECORD = Path(__file__).with_name("claims.json")
"""What came of the claims of the library, as ``policyopt replicate --record`` wrote it."""

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Effect:
    r"""How a metric of a method differs from that of the one that it is held against: :math:`s\,(m - m_0) \ge` ``least`` with
    :math:`s = 1` where it shall be ``higher`` and :math:`-1` where it shall be ``lower``.

    A ``least`` below 0 says that it may be worse by so much and no more: ``Effect("accuracy", "higher", -0.05)`` is "at
    equal accuracy, give or take five points".
    """

    metric: str
    """A metric of ``policyopt compare``, or any of the log, which counts as its mean over the last quarter of the steps."""
    direction: Direction
    least: float
    """The least effect that supports the claim, in units of the metric (0.05 is five points of a share)."""

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise ValueError(f"direction is {self.direction!r}: it is one of {', '.join(get_args(Direction))}")


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and the smallest experiment that could show it; or why none here could.

    The method and the one ``against`` which it is held are trained on ``testbed``, with the same prompts, seeds and budget. The
    claim is supported where all effects are, and not supported where one is not.
    """

    says: str
    """What the paper claims, in a sentence of ours."""
    testbed: str = ""
    """A testbed or a task."""
    effects: tuple[Effect, ...] = ()
    against: str | None = None
    """The method to beat; unset: the one that it is written as the difference from, or grpo."""
    both: Mapping[str, Any] = field(default_factory=dict)
    """Options of both runs, as ``policyopt train`` takes them: ``{"staleness": 4, "optim.lr": 3e-4}``."""
    ours: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method's own runs, its hyper-parameters among them: ``{"group-size": 16}``."""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the runs that it is held against."""
    beyond: str = ""
    """Why it cannot be shown here, in the place of a testbed and effects."""

    def __post_init__(self) -> None:
        if bool(self.beyond) == bool(self.testbed and self.effects):
            raise ValueError("a claim has a testbed and effects, or says why it cannot be shown here (beyond)")


def recorded(path: Path = RECORD) -> dict[str, dict[str, Any]]:
    """What came of claims, by method, as it was recorded in a file; empty where nothing was."""
    try:
        found = parse_json(path.read_text("utf-8"))
    except (OSError, Malformed):
        return {}
    return found if isinstance(found, dict) else {}


def came_of(name: str) -> str:
    """What came of the claim of a method, in a few words."""
    row = recorded().get(name)
    if row is None:
        return "not put to the test yet"
    where = f" on {row['testbed']} against {row['against']}, {row['seeds']} seeds" if row.get("testbed") else ""
    return f"{row['verdict']}{where}"
