"""The library's own worlds: small, told in text, exact by seed, and played in microseconds."""

from __future__ import annotations

from collections.abc import Mapping

from policyopt.environments.worlds.bandit import Bandit
from policyopt.environments.worlds.calculator import Calculator
from policyopt.environments.worlds.history import History
from policyopt.environments.worlds.injected import InjectedMaze
from policyopt.environments.worlds.maze import Maze
from policyopt.environments.worlds.retrieval import Retrieval
from policyopt.environments.worlds.screen import Screen
from policyopt.environments.worlds.shop import Shop
from policyopt.environments.worlds.told import Told

WORLDS: Mapping[str, type[Told]] = {
    "calculator": Calculator,
    "maze": Maze,
    "injected-maze": InjectedMaze,
    "shop": Shop,
    "bandit": Bandit,
    "screen": Screen,
    "history": History,
    "retrieval": Retrieval,
}
"""The worlds by name."""
