"""What the cases of online-dpo call things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyopt.items import Verdict
from policyopt.judging.comparing import compared
from policyopt.lens.case import Run


def _ended(given: Mapping[str, Any]) -> dict[str, Any]:
    """Cases say who has an end token."""
    told = {name: x for name, x in given.items() if name != "has_eos"}
    return told | ({"truncated": [1 - e for e in given["has_eos"]]} if "has_eos" in given else {})


def _asked_twice(given: Mapping[str, Any]) -> dict[str, Any]:
    """A judge that was asked about two responses in both orders, prompt by prompt."""
    orders = zip(given["p_first_order_ab"], given["p_first_order_ba"], strict=True)
    said = [[Verdict(p, False, False, "") for p in both] for both in orders]
    wins = [compared("pair", ["a", "b"], verdicts).verdicts[0].parts["wins"] for verdicts in said]
    return {"p_a_preferred": wins, "chosen_is_a": [int(p > 0.5) for p in wins]}


def side(better: bool) -> Callable[[Run], list[int]]:
    """The row of the better, or of the worse response of each pair."""

    def found(run: Run) -> list[int]:
        rows: list[int] = run.part("surrogate").choose(run.credited)[0 if better else 1].tolist()
        return rows

    return found


GIVEN = {"loss": _ended}
CASES = {"other": _asked_twice}
PARAMS = {"loss": lambda name: {"loss": {"slic": "hinge"}.get(name, name)}}
KEYS = {"score": lambda run: run.shaped.reward, "chosen": side(True), "rejected": side(False)}
