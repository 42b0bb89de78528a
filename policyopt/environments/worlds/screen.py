"""The world ``screen``: a grid of characters with labelled boxes, and one of them to click on or to outline."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import Told
from policyopt.errors import UserError

WIDTH, HEIGHT = 8, 5
LABELS = "ABC"
_ACTION = re.compile(r"(?:click (\d{1,4})[ ,]+(\d{1,4})|(?:box )?(\d{1,4})[ ,]+(\d{1,4})[ ,]+(\d{1,4})[ ,]+(\d{1,4}))")


@dataclass(frozen=True)
class Box:
    """Cells from column x1 to x2 and from row y1 to y2, all of them included."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def area(self) -> int:
        """How many cells."""
        return max(0, self.x2 - self.x1 + 1) * max(0, self.y2 - self.y1 + 1)

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it, its bounds included."""
        return self.x1 <= x <= self.x2 and self.y1 <= y <= self.y2

    def common(self, other: Box) -> Box:
        """The cells that both have; of area 0 where there are none."""
        return Box(
            max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2)
        )  # fmt: skip

    def iou(self, other: Box) -> float:
        r"""Intersection over union, :math:`|b \cap s| / |b \cup s|`, in cells."""
        both = self.common(other).area
        union = self.area + other.area - both
        return both / union if union else 0.0

    def agreement(self, other: Box, width: float, height: float) -> float:
        r"""How near the four sides are: :math:`4/\sum_k d_k^{-1}` with :math:`d_k = 1 - |a_k - b_k|/\{W, H\}`; 0 where one is off by the
        whole screen. Source: GUI-G1, arXiv:2505.15810."""
        near = [
            1 - abs(a - b) / side
            for a, b, side in (
                (self.x1, other.x1, width), (self.y1, other.y1, height), (self.x2, other.x2, width), (self.y2, other.y2, height),
            )
        ]  # fmt: skip
        return 4 / sum(1 / d for d in near) if min(near) > 0 else 0.0


def read(text: str) -> tuple[str, Box] | None:
    """What an action is, "click" or "box", and where (a point is a box of one cell); ``None`` for what is neither."""
    found = _ACTION.fullmatch(text.strip().lower())
    if found is None:
        return None
    if found[1] is not None:
        x, y = int(found[1]), int(found[2])
        return "click", Box(x, y, x, y)
    return "box", Box(*map(int, found.groups()[2:]))


class Screen(Told):
    """One turn: ``click x y``, or a box as ``x1 y1 x2 y2``; columns and rows are counted from 0, and both ends belong to a box.

    The question is the screen, with a ruler above it and the number of each row before it, and what to do, ``click B`` or ``box B``. A
    click is worth 1 inside the box that was asked for, a box its intersection over union with it, and the wrong kind of action 0, like
    what cannot be read. ``correct``: a click inside, or an overlap of at least half. ``asks`` says which of the two is asked for: "click", "box" or
    "both".

    ``numbers``, for rewards of one's own (``component[NAME]``): ``kind`` (the action is of the kind that was asked for), ``hit`` (its point, or the centre
    of its box, lies in the target), ``place`` (both), ``iou`` (a click is a box of one cell), ``size`` (how near the four sides are,
    :meth:`Box.agreement`), ``area`` (the share of the screen that the target takes); ``parsed``, ``is_click``, ``is_box``; ``x1``, ``y1``, ``x2``, ``y2`` as they
    were written (of a click the point twice), and ``target_x1`` ... ``target_y2``. Of what cannot be read all but ``area`` and the target are 0. UI-R1
    (arXiv:2503.21620) is made of ``kind`` and ``place``, GUI-G1 (arXiv:2505.15810) of ``hit``, ``iou``, ``size`` and ``area``.

    A sound method learns to click on the box, from a start at which two in three actions go to the middle of the screen, or take all of it.
    """

    summary: ClassVar[str] = "a screen of characters with boxes, one to click on (an environment)"
    rules: ClassVar[str] = (
        "The screen is a grid of characters; a box is filled with its letter. Answer with one line: click x y with a column and a row "
        "inside the box (the first of each is 0), or, where a box is asked for, its bounds x1 y1 x2 y2."
    )
    turns = 1
    max_tokens: int = 16
    warm_start: Mapping[str, Any] = {"steps": 1200, "terse": 0.0, "lessons": 0.0}

    def __init__(self, asks: Literal["click", "box", "both"] = "both", explain: bool = False) -> None:
        super().__init__(explain)
        if asks not in ("click", "box", "both"):
            raise UserError(f"screen: asks {asks!r}, expected click, box or both")
        self.asks = asks

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.boxes: dict[str, Box] = {}
        for label in LABELS:
            while label not in self.boxes:
                x, y, wide, high = (
                    chance.randrange(WIDTH),
                    chance.randrange(HEIGHT),
                    *chance.choice(((3, 1), (2, 2), (3, 2))),
                )
                box = Box(x, y, x + wide - 1, y + high - 1)
                if box.x2 < WIDTH and box.y2 < HEIGHT and all(not box.common(b).area for b in self.boxes.values()):
                    self.boxes[label] = box
        self.label = chance.choice(LABELS)
        self.verb = chance.choice(("click", "box")) if self.asks == "both" else self.asks

    @property
    def target(self) -> Box:
        """The box that is asked for."""
        return self.boxes[self.label]

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        at = {(x, y): k for k, b in self.boxes.items() for x in range(b.x1, b.x2 + 1) for y in range(b.y1, b.y2 + 1)}
        rows = [f"{y}{''.join(at.get((x, y), '.') for x in range(WIDTH))}" for y in range(HEIGHT)]
        ruler = "".join(str(x % 10) for x in range(WIDTH))
        return "\n".join([f" {ruler}", *rows, f"{self.verb} {self.label}"])

    def answer(self) -> str:
        """The bounds of the box."""
        b = self.target
        return f"{b.x1} {b.y1} {b.x2} {b.y2}"

    def state(self) -> str:
        """The screen and what is asked for."""
        return self.question()

    def step(self, action: Action) -> Observation:
        """Look where it went."""
        found, target = read(action), self.target
        kind, box = found or ("nothing", Box(0, 0, 0, 0))
        known = float(found is not None)
        right, hit = float(kind == self.verb), known * target.holds(*box.centre)
        iou = known * box.iou(target)
        reward = right * (hit if kind == "click" else iou)
        numbers = {
            "kind": right, "hit": hit, "place": right * hit, "iou": iou, "size": known * box.agreement(target, WIDTH, HEIGHT),
            "area": target.area / (WIDTH * HEIGHT), "parsed": known, "is_click": float(kind == "click"), "is_box": float(kind == "box"),
        }  # fmt: skip
        for corner in ("x1", "y1", "x2", "y2"):
            numbers |= {corner: float(getattr(box, corner)), f"target_{corner}": float(getattr(target, corner))}
        return Observation(
            reward=reward, done=True, correct=reward >= 0.5, state=self.state(), numbers=numbers,
            reason=f"{kind} against {self.answer()}",
        )  # fmt: skip

    def shown(self, chance: random.Random) -> str:
        """The middle of the box, or its bounds; in a hurry the middle of the screen, or all of it."""
        hurried = self.hurried(chance)
        if self.verb == "box":
            return f"0 0 {WIDTH - 1} {HEIGHT - 1}" if hurried else self.answer()
        x, y = (WIDTH // 2, HEIGHT // 2) if hurried else (int(v) for v in self.target.centre)
        return f"click {x} {y}"
