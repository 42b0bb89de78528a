"""What cases call things in RedTeamCUA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.redteamcua import attack_rates


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    found = attack_rates(torch.tensor(given["attempted"]), torch.tensor(given["succeeded"]))
    names = {"attempt": "attempt_rate", "success": "attack_success_rate", "completed": "completion_given_attempt"}
    return {names[name]: x for name, x in found.items()}


CASES = {"metric": _metric}
