"""The screen: where an action went."""

from __future__ import annotations

import pytest

from policyopt.data.worlds import began
from policyopt.environments.worlds.screen import HEIGHT, WIDTH, Box, Screen, read
from policyopt.errors import UserError
from tests.environments.worlds.acting import said


def shown_box(verb: str) -> Screen:
    world = Screen()
    began(world, 1)
    world.boxes = {"A": Box(1, 1, 3, 2), "B": Box(5, 0, 7, 0), "C": Box(4, 3, 5, 4)}
    world.label, world.verb = "A", verb
    return world


def test_the_question_is_the_screen() -> None:
    assert shown_box("click").question() == (
        " 01234567\n0.....BBB\n1.AAA....\n2.AAA....\n3....CC..\n4....CC..\nclick A"
    )


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("click 1 1", 1.0),
        ("click 3 2", 1.0),
        ("click 4 2", 0.0),
        ("click 0 1", 0.0),
        ("click 2 3", 0.0),
        ("CLICK 2, 2", 1.0),
    ],
)
def test_a_click_is_worth_one_inside_the_box(text: str, reward: float) -> None:
    found = said(shown_box("click"), text)
    assert (found.reward, found.correct, found.done) == (reward, reward == 1, True)
    assert (found.numbers["kind"], found.numbers["hit"], found.numbers["place"]) == (1.0, reward, reward)


def test_a_box_is_worth_its_overlap() -> None:
    exact = said(shown_box("box"), "1 1 3 2")
    assert (exact.reward, exact.numbers["iou"], exact.numbers["size"], exact.numbers["hit"]) == (1.0, 1.0, 1.0, 1.0)
    part = said(shown_box("box"), "box 2 1 4 2")
    assert part.reward == part.numbers["iou"] == 4 / 8
    assert part.correct is True
    one = 1 - 1 / WIDTH
    assert part.numbers["size"] == pytest.approx(4 / (2 / one + 2))
    away = said(shown_box("box"), "5 0 7 0")
    assert (away.reward, away.numbers["hit"]) == (0.0, 0.0)
    assert away.numbers["size"] > 0


def test_the_wrong_kind_earns_nothing_and_is_told_apart() -> None:
    found = said(shown_box("click"), "1 1 3 2")
    assert (found.reward, found.numbers["kind"], found.numbers["hit"], found.numbers["place"]) == (0.0, 0.0, 1.0, 0.0)
    found = said(shown_box("box"), "click 2 1")
    assert (found.reward, found.numbers["is_click"], found.numbers["iou"]) == (0.0, 1.0, 1 / 6)


@pytest.mark.parametrize(
    "text", ["", "click", "click 1", "click -1 1", "1 1 3", "click 1 1 3 2", "click 1.5 1", "click A"]
)
def test_what_cannot_be_read_is_nowhere(text: str) -> None:
    found = said(shown_box("click"), text)
    assert found.reward == 0
    assert {found.numbers[n] for n in ("parsed", "kind", "hit", "place", "iou", "size", "x1", "y2")} == {0.0}


def test_the_target_stands_beside_what_was_written() -> None:
    n = said(shown_box("box"), "2 1 4 2").numbers
    assert [n[k] for k in ("x1", "y1", "x2", "y2")] == [2, 1, 4, 2]
    assert [n[f"target_{k}"] for k in ("x1", "y1", "x2", "y2")] == [1, 1, 3, 2]
    assert n["area"] == 6 / (WIDTH * HEIGHT)


def test_a_box_turned_round_covers_nothing() -> None:
    n = said(shown_box("box"), "3 2 1 1").numbers
    assert n["iou"] == 0


@pytest.mark.parametrize("seed", range(30))
def test_boxes_lie_on_the_screen_apart(seed: int) -> None:
    world = Screen()
    began(world, seed)
    cells = [(x, y) for b in world.boxes.values() for x in range(b.x1, b.x2 + 1) for y in range(b.y1, b.y2 + 1)]
    assert len(cells) == len(set(cells)) == sum(b.area for b in world.boxes.values())
    assert all(0 <= x < WIDTH and 0 <= y < HEIGHT for x, y in cells)


def test_what_is_asked_for_can_be_chosen() -> None:
    verbs = {began(Screen(), seed).question().splitlines()[-1].split()[0] for seed in range(30)}
    assert verbs == {"click", "box"}
    assert {began(Screen("box"), seed).question().splitlines()[-1].split()[0] for seed in range(9)} == {"box"}
    with pytest.raises(UserError, match="'drag'"):
        Screen("drag")  # type: ignore[arg-type]


def test_reading() -> None:
    assert read("click 3 4") == ("click", Box(3, 4, 3, 4))
    assert read(" 1 2 3 4\n") == ("box", Box(1, 2, 3, 4))
    assert read("99999 1") is None
