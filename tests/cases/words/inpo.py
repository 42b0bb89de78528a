"""What the cases of inpo call things."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from policyopt.methods.games.inpo import tournament

from ._pairs import KEYS as KEYS
from ._pairs import told


def _met(given: Mapping[str, Any]) -> dict[str, Any]:
    """A tournament of which all answers are known."""

    async def duel(i: int, j: int) -> float:
        p: float = given["pref"][i][j]
        return p

    return asdict(asyncio.run(tournament(len(given["pref"]), duel)))


GIVEN = {"preference_loss": lambda given: told(given, tokens={"old_logp": "last_{}_logp"})}
CASES = {"sampler": _met}
