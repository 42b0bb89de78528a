"""Which methods a Tinker server serves, said without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policyopt.engine import check_engine
from policyopt.errors import UserError
from policyopt.methods.entropy.aepo import aepo
from policyopt.methods.ratio.dhpo import dhpo
from policyopt.methods.reward.rmt import rmt


def test_what_reads_the_entropy_of_draws_is_refused() -> None:
    """The protocol has none: a part that read it would learn from NaN, and a controller would stand still."""
    for recipe in (aepo(), rmt(), dhpo(mix="entropy")):
        with pytest.raises(UserError, match=r"'sampling entropy' \("):
            check_engine(recipe, "tinker")
    check_engine(dhpo(mix="average"), "tinker")


def test_methods_are_listed_with_what_stands_against_them(command: Callable[..., Any]) -> None:
    said = command("list", "--engine", "tinker", "clip").out
    assert "methods run on the engine tinker" in said
    assert "| `dapo` | clip | yes |  |" in said
    assert "| `dual-clip` | clip | no | critic |" in said
