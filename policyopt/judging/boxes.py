"""Actions on a screen: what a response does, and how far it is what was asked for. Points and boxes are in pixels, boxes are
(x1, y1, x2, y2) with all four sides part of them. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

LONGEST = 20_000
"""Characters of a response that are read; a longer one does nothing."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]

_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_KIND = re.compile(r"['\"]action['\"]\s*:\s*['\"](\w{1,40})['\"]")
_NUMBER = r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*"
_POINT = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}[\])]")
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")


def action_of(response: str) -> tuple[str, Point, bool]:
    """What a response does: the kind of its action, its point, and whether it is a thought and an answer and nothing else.

    The answer is ``[{'action': 'click', 'coordinate': [x, y]}]``; what is not found is ``""`` and (0, 0).
    """
    if len(response) > LONGEST:
        return "", (0.0, 0.0), False
    whole = _THOUGHT.fullmatch(response) is not None
    answers = _ANSWER.findall(response)
    answer = answers[-1] if answers else response
    kind, point = _KIND.search(answer), _POINT.search(answer)
    return (
        kind[1] if kind else "",
        (float(point[1]), float(point[2])) if point else (0.0, 0.0),
        whole,
    )


def box_of(response: str) -> Box | None:
    """The last box (x1, y1, x2, y2) that a response names; ``None`` where there is none."""
    found = _BOX.findall(response) if len(response) <= LONGEST else []
    return (float(found[-1][0]), float(found[-1][1]), float(found[-1][2]), float(found[-1][3])) if found else None


def inside(point: Sequence[float], box: Sequence[float]) -> bool:
    """Whether a point lies in a box, its sides included."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def done_right(
    kind: str, point: Sequence[float], true_kind: str, box: Sequence[float], scale: Sequence[float] = (1.0, 1.0)
) -> tuple[float, float]:
    r"""Whether an action is of the right kind, and whether it is done in the right place.

    .. math:: R_T = 1[\hat a = a],\qquad R_C = R_T \cdot 1[\lfloor s\hat p\rfloor \in b]\text{ for a click, } R_T \text{ for anything else}

    ``scale`` s takes the picture that the policy sees to the one that the box is in; the point is cut to whole pixels there,
    towards 0. Source: UI-R1, arXiv:2503.21620, and the authors' code (lll6gg/UI-R1).
    """
    if kind != true_kind:
        return 0.0, 0.0
    if true_kind != "click":
        return 1.0, 1.0
    there = (int(point[0] * scale[0]), int(point[1] * scale[1]))
    return 1.0, float(inside(there, box))


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, by area; 0 where one of them has none."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    return both / (sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - both)


def agreement(a: Sequence[float], b: Sequence[float], width: float, height: float) -> float:
    r"""How near the four sides of two boxes are: :math:`4/\sum_k d_k^{-1}` with :math:`d_k = 1 - |a_k - b_k|/\{W, H\}`.

    The harmonic mean, so that one side far off counts most; 0 where a side is off by the whole picture. It is above 0 for boxes
    that do not touch. Source: GUI-G1, arXiv:2505.15810, and the authors' code (Yuqi-Zhou/GUI-G1). Our reading: the harmonic
    mean of four.
    """
    near = [1 - abs(x - y) / side for x, y, side in zip(a, b, (width, height, width, height), strict=True)]
    return 4 / sum(1 / d for d in near) if min(near) > 0 else 0.0


def found_box(given: Sequence[float] | None, box: Sequence[float], width: float, height: float) -> dict[str, float]:
    """``hit`` (the centre of the box that was given lies in the right one), ``iou`` (:func:`overlap`) and ``size``
    (:func:`agreement`); all 0 without a box."""
    if given is None:
        return {"hit": 0.0, "iou": 0.0, "size": 0.0}
    centre = ((given[0] + given[2]) / 2, (given[1] + given[3]) / 2)
    return {
        "hit": float(inside(centre, box)),
        "iou": overlap(given, box),
        "size": agreement(given, box, width, height),
    }


def judge_action(
    prompt: str, response: str, answer: str, box: Sequence[float] = (0, 0, 0, 0), scale: Sequence[float] = (1, 1)
) -> dict[str, Any]:
    """A judge of actions, ``--judge policyopt.judging.boxes:judge_action``: the row's answer is the kind of the right action,
    its columns ``box`` and ``scale`` say where it has to be done. Parts ``kind`` and ``place``; the score is their sum and a
    point for the form."""
    kind, point, formatted = action_of(response)
    right, place = done_right(kind, point, answer, box, scale)
    return {
        "score": right + place + formatted,
        "correct": bool(place),
        "formatted": formatted,
        "reason": f"{kind or 'no action'} at {point[0]:g}, {point[1]:g}, expected {answer[:40]}",
        "parts": {"kind": right, "place": place},
    }


def judge_box(
    prompt: str, response: str, answer: str, box: Sequence[float], width: float, height: float
) -> dict[str, Any]:
    """A judge of boxes, ``--judge policyopt.judging.boxes:judge_box``: the row's columns are the right ``box`` and the
    ``width`` and ``height`` of the picture. Parts as :func:`found_box` has them, and ``area``, the share of the picture that
    the right box takes; the score is ``hit``."""
    given = box_of(response)
    found = found_box(given, box, width, height)
    area = (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
    return {
        "score": found["hit"],
        "correct": found["hit"] > 0,
        "formatted": given is not None,
        "reason": "no box" if given is None else f"an overlap of {found['iou']:.2f}",
        "parts": {**found, "area": area},
    }
