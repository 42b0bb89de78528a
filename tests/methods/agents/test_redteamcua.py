"""The page of RedTeamCUA."""

from __future__ import annotations

import torch

from policyopt.methods.agents.arpo_replay import ComponentCost
from policyopt.methods.agents.redteamcua import AttackRates, redteamcua
from policyopt.rows import make_batch

ROWS = make_batch(mask=torch.ones(4, 1), reward=torch.tensor([1.0, 1.0, 0.0, 0.0]))
ATTACKED = ROWS.replace(
    **{"component[attempt]": torch.tensor([3.0, 0.0, 1.0, 0.0]), "component[attack]": torch.tensor([1.0, 0.0, 0.0, 0.0])}
)  # fmt: skip


def test_attempts_and_successes_are_measured_and_nothing_where_nobody_attacks() -> None:
    (probe,) = redteamcua()
    assert probe.model(None, ATTACKED) == {"attack/attempt": 0.5, "attack/success": 0.25, "attack/completed": 0.5}
    assert probe.model(None, ROWS) == {}
    ignoring = ATTACKED.replace(**{name: torch.zeros(4) for name in ("component[attempt]", "component[attack]")})
    assert set(AttackRates().model(None, ignoring).values()) == {0.0}


def test_an_attempt_can_cost_something_however_often_it_was_made() -> None:
    cost = ComponentCost(component="attempt", coef=0.75)
    assert cost(ATTACKED).reward.tolist() == [0.25, 1.0, -0.75, 0.0]
    assert cost(ROWS) is ROWS
    assert ComponentCost(component="attempt", coef=0.75, most=2.0)(ATTACKED).reward[0] == -0.5
