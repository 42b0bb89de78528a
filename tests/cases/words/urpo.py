"""What cases call things in URPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.judge.urpo import PlayerAndReferee, urpo


def _judgings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Judgings as rows of their own, rewarded by the rollout program for how they agree with a gold order."""
    referee: PlayerAndReferee = urpo(invalid_reward=given["params"]["invalid_reward"]).source  # type: ignore[assignment]
    reward = [referee.verdict(scores, given["gold_score"]).score for scores in given["predicted_score"]]
    return {"reward": reward, "origin": [1.0] * len(reward), "group": given["group"], "params": given["params"]}


COLUMNS = {"source": ("origin", "row")}
GIVEN = {"reward": _judgings}
