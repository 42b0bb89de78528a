"""What cases call things in TDPO."""

from __future__ import annotations

from policyopt.methods.preference.tdpo import FORWARD
from policyopt.schema import member

from ._pairs import SIDES, gradient_of, keys, told

COLUMNS = {"position_kl": (member("statistic", FORWARD.key), "token")}
GIVEN = {"preference_loss": lambda given: told(given, tokens={"position_kl": "{}_position_kl"})}
KEYS = keys() | {f"dloss_d{side}_position_kl": gradient_of(side, i, FORWARD.key) for i, side in enumerate(SIDES)}
