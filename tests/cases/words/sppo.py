"""What the cases of sppo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._pairs import KEYS as PAIRS
from ._pairs import SIDES, told
from .online_dpo import side


def _won(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs with their win rates as advantages; the reference is the policy that wrote them."""
    batch = told(given, tokens={"old_logp": "ref_{}_logp"})
    return batch | {"advantage": [x for name in SIDES for x in given[f"{name}_win"]]}


def _scored(given: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of the responses to one prompt, without their tokens."""
    n = len(given["score"])
    return {"reward": given["score"], "group": [0] * n, "mask": [[1.0]] * n, "params": given["params"]}


GIVEN = {"preference_loss": _won, "reward": _scored}
PARAMS = {"samples": "group_size", "variant": lambda name: {"wins": {"soft": "rate", "single": "pair"}.get(name, name)}}
KEYS = PAIRS | {
    "win_rate": lambda run: run.shaped.reward,
    "chosen": lambda run: side(True)(run)[0],
    "rejected": lambda run: side(False)(run)[0],
}
