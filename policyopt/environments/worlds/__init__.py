"""The library's own worlds: small, told in text, exact by seed, and played in microseconds."""

from __future__ import annotations

from collections.abc import Mapping

from policyopt.environments.worlds.calculator import Calculator
from policyopt.environments.worlds.told import Told

WORLDS: Mapping[str, type[Told]] = {"calculator": Calculator}
"""The worlds by name."""
