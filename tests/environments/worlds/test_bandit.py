"""The bandit: exact regret, and UCB."""

from __future__ import annotations

import math

import pytest

from policyopt.data.worlds import began
from policyopt.environments.worlds.bandit import Bandit, best, ucb
from policyopt.errors import UserError
from tests.environments.worlds.acting import acted, said, shown, total


def fixed(**options: object) -> Bandit:
    """Three arms of which b is the best; a pays on its second pull, b always, c never."""
    world = Bandit(pulls=4, **options)  # type: ignore[arg-type]
    began(world, 1)
    world.best, world.means = 1, [0.25, 0.75, 0.25]
    world.table = [[0.0, 1.0, 0.0, 0.0], [1.0] * 4, [0.0] * 4]
    return world


def test_regret_and_shares_are_those_of_the_formulas() -> None:
    found = acted(fixed(), ["a", "B", "b ", "c"])
    assert [o.numbers["regret"] for o in found] == [0.5, 0.0, 0.0, 0.5]
    assert [o.reward for o in found] == [0.0, 0.25, 0.25, 0.0]
    assert found[-1].done and found[-1].correct
    assert (total(found, "min_frac"), total(found, "opt_frac")) == (3 * 1 / 4, 2 / 4)
    assert not any("min_frac" in o.numbers for o in found[:-1])  # sums over the episode are what it ends with


def test_a_turn_without_a_pull_loses_the_best_mean() -> None:
    found = acted(fixed(), ["d", "b", "ab", "b"])
    assert [o.numbers["regret"] for o in found] == [0.75, 0.0, 0.75, 0.0]
    assert (total(found, "min_frac"), total(found, "opt_frac")) == (0.0, 2 / 4)
    assert found[0].text.startswith("no arm")


def test_as_often_as_the_best_is_not_found() -> None:
    assert acted(fixed(), ["a", "b", "a", "b"])[-1].correct is False


def test_what_is_told_of_the_arms() -> None:
    assert said(fixed(), "b").text == "1 a0/0 b1/1 c0/0"
    assert said(fixed(history="raw"), "b").text == "1"
    world = fixed(history="guide")
    acted(world, ["a", "a"])
    bonus = 50 * math.sqrt(math.log(3) / 2)
    assert said(world, "b").text == f"1 a50+{bonus:.0f} b100+{50 * math.sqrt(math.log(3)):.0f} c?"


def test_the_guide_is_ucb() -> None:
    assert ucb([2, 0, 1], [1.0, 0.0, 1.0]) == [
        0.5 + 0.5 * math.sqrt(math.log(3) / 2),
        math.inf,
        1 + 0.5 * math.sqrt(math.log(3)),
    ]
    assert best([1.0, 3.0, 3.0]) == 1


def test_pulls_of_an_arm_pay_the_same_in_every_episode_of_a_seed() -> None:
    one, two = (began(Bandit(), 9) for _ in range(2))
    first = [o.reward for o in acted(one, "aaabbbccc")]
    second = [o.reward for o in acted(two, "cbacbacba")]
    assert sorted(zip("aaabbbccc", first, strict=True)) == sorted(zip("cbacbacba", second, strict=True))


def test_means_are_apart_by_the_gap_and_pay_as_often() -> None:
    worlds = [Bandit(gap=0.2) for _ in range(400)]
    for seed, world in enumerate(worlds):
        began(world, seed)
        assert sorted(world.means) == pytest.approx([0.4, 0.4, 0.6])
    paid = [x for world in worlds for x in world.table[world.best]]
    assert sum(paid) / len(paid) == pytest.approx(0.6, abs=0.03)
    assert {world.best for world in worlds} == {0, 1, 2}


def test_states_are_what_is_known_of_the_arms() -> None:
    one, two = fixed(), fixed()
    acted(one, ["a", "b"])
    acted(two, ["b", "a"])
    assert one.state() == two.state()
    said(one, "b")
    assert one.state() != two.state()


def test_ucb_has_less_regret_than_staying() -> None:
    calm = [total(shown(Bandit(pulls=30), seed, 0.0), "regret") for seed in range(60)]
    hurried = [total(shown(Bandit(pulls=30), seed, 1.0), "regret") for seed in range(60)]
    assert sum(calm) < 0.5 * sum(hurried)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"arms": 27}, "27 arms"), ({"pulls": 0}, "pulls 0"), ({"gap": 0.0}, "gap 0"), ({"history": "all"}, "'all'")],
)
def test_what_cannot_be_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Bandit(**options)  # type: ignore[arg-type]
