"""The page of Ruler."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from policyopt.errors import UserError
from policyopt.methods.length.ruler import TARGETS, ForcedLength, flexible, label, matches, precise, ruler, words
from tests.methods.shared_judges import Echo, asked, ids_of, run


def test_a_precise_match_is_a_flexible_one() -> None:
    for name, t in TARGETS.items():
        assert t.flexible[0] <= t.precise[0] < t.precise[1] <= t.flexible[1]
        found = matches([name] * 1000, range(1000))
        assert found["PM"] <= found["FM"]
        assert all(a <= b for a, b in zip(found["pm"], found["fm"], strict=True))


def test_a_number_on_a_bound_belongs_below_it() -> None:
    assert words("one, two_2 - it's") == 4
    twenty = "word " * 20
    assert (precise(twenty, "10"), precise(twenty, "30"), flexible("word " * 65, "80")) == (1, 0, 1)
    assert (precise("w " * 800, ">800"), precise("w " * 801, ">800")) == (0, 1)
    assert [label(n) for n in (5, 6, 15, 16, 145, 801)] == [None, "10", "10", None, "150", ">800"]
    with pytest.raises(UserError, match="no target is called '90'"):
        precise("a", "90")


def test_examples_begin_with_their_length() -> None:
    rows = [{"prompt": "p", "completion": "w " * n, "id": n} for n in (10, 17, 12, 30)]
    found = ruler(rows, most=1)
    assert [(r["id"], r["completion"].partition(" w")[0]) for r in found] == [(10, "[MLT:10]"), (30, "[MLT:30]")]
    with pytest.raises(UserError, match="row 0 has no completion"):
        ruler([{"prompt": "p"}])


def test_a_length_is_forced_before_the_answer() -> None:
    how: dict[str, Any] = {}

    class Watched(Echo):
        async def generate(self, tokens: Any, **asks: Any) -> Any:
            how.update(asks)
            return await super().generate(tokens, **asks)

    question, context = asked()
    run(ForcedLength(size=1, target=">800"), (dataclasses.replace(question), context), Watched("x"))
    assert how["forced"] == ids_of("[MLT:>800] ")
    with pytest.raises(ValueError, match="it is one of 10, 30"):
        ForcedLength(target="90")
