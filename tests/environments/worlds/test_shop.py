"""The shop: what a search finds, and what a purchase is worth."""

from __future__ import annotations

import pytest

from policyopt.data.worlds import began
from policyopt.environments.worlds.shop import Shop
from tests.environments.worlds.acting import acted, said, shown, total


def stocked() -> Shop:
    world = Shop()
    began(world, 1)
    world.wanted = ("red", "wool", "hat")
    world.items = (
        ("blue", "silk", "hat"), ("red", "silk", "bag"), ("red", "wool", "coat"), ("red", "wool", "hat"), ("tan", "felt", "sock"),
        ("pink", "jute", "bag"), ("blue", "felt", "bag"), ("pink", "silk", "coat"), ("tan", "jute", "coat"),
    )  # fmt: skip
    return world


def test_a_search_ranks_by_the_words_that_match() -> None:
    assert said(stocked(), "search red wool hat").text == "4 3 1"
    assert said(stocked(), "search hat").text == "1 4"
    assert said(stocked(), "Search HAT hat hat\n").text == "1 4"
    assert said(stocked(), "search green").text == "nothing"


@pytest.mark.parametrize(("number", "share"), [(4, 1.0), (3, 2 / 3), (1, 1 / 3), (5, 0.0)])
def test_a_purchase_is_worth_the_share_of_what_was_wanted(number: int, share: float) -> None:
    found = said(stocked(), f"buy {number}")
    assert (found.reward, found.numbers["matched"], found.done, found.correct) == (share, share, True, share == 1)


def test_looking_tells_what_it_is_and_is_counted() -> None:
    found = acted(stocked(), ["search hat", "look 1", "look 4", "buy 4"])
    assert [o.text for o in found[1:3]] == ["blue silk hat", "red wool hat"]
    assert (total(found, "searches"), total(found, "looks"), total(found)) == (1, 2, 1.0)


@pytest.mark.parametrize("text", ["buy", "buy 0", "buy 10", "buy four", "sell 4", "look", "", "4", "buy 4 4"])
def test_whatever_cannot_be_costs_the_turn(text: str) -> None:
    world = stocked()
    before, found = world.state(), said(world, text)
    assert not found.done
    assert (found.reward, world.state()) == (0.0, before)
    assert found.text.startswith(("no item", "say search"))


@pytest.mark.parametrize("seed", range(30))
def test_the_wanted_is_there_once_behind_another_of_its_kind(seed: int) -> None:
    world = Shop()
    began(world, seed)
    assert len(set(world.items)) == len(world.items) == 9
    assert world.found(frozenset(world.wanted))[0] == int(world.answer())
    by_kind = world.found(frozenset(world.wanted[2:]))
    assert by_kind[0] < int(world.answer())
    assert 0 < total(shown(world, seed, 1.0)) < 1
