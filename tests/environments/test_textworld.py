"""Games of TextWorld, the real ones: made from seeds, played by commands, worth what the score moves by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyopt.environments.names import maker
from policyopt.environments.world import Environment
from policyopt.errors import UserError
from tests.environments.playing import visit

textworld: Any = pytest.importorskip("textworld", reason="needs textworld (pip install 'policyopt[textworld]')")
SIZE = {"rooms": 1, "objects": 2, "quest": 1, "games": 1}


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small game."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLICYOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        maker("textworld:make", SIZE, lambda _: None)
        from policyopt import cache

        return next((cache.folder() / "textworld").glob("*/"))


def made(where: str, **options: Any) -> Environment:
    return maker(f"textworld:{where}", options, lambda _: None)()


def test_a_game_is_won_by_its_walkthrough_and_the_turns_add_up_to_1(games: Path) -> None:
    [path] = games.glob("*.z8")
    way = textworld.Game.load(str(path.with_suffix(".json"))).metadata["walkthrough"]
    said = visit(made(str(games)), "look", "I think.\n\n" + way[0], *way[1:])
    assert "-= " in said[0].text and "$$" not in said[0].text and "=-0/" not in said[0].text
    assert said[1].reward == 0 and not said[1].done
    won = said[len(way) + 1]
    assert won.done and won.correct and sum(o.reward or 0 for o in said) == pytest.approx(1)


def test_hints_name_commands_and_the_state_is_where_one_is_and_what_one_has(games: Path) -> None:
    plain, told = made(str(games)), made(str(games), hints=True)
    assert "You can: " in visit(told, "look")[1].text and "You can: " not in visit(plain, "look")[1].text
    a, b = visit(made(str(games)), "look", "dance", "")[:3:2]
    assert a.state == b.state, "a command that means nothing changes nothing"


def test_a_row_names_its_game(games: Path) -> None:
    with pytest.raises(ValueError, match="expected a number below 1"):
        made(str(games)).reset(0, {"game": 1})
    assert made(str(games)).reset(7, {"game": 0}).text == made(str(games)).reset(3, {}).text  # type: ignore[union-attr]


def test_what_is_no_game_is_refused_before_a_run(tmp_path: Path, games: Path) -> None:
    with pytest.raises(UserError, match=r"no game is there; expected a file \.z8 or \.ulx"):
        made(str(tmp_path))
    with pytest.raises(UserError, match="takes hints; nearest: hints"):
        made(str(games), hint=True)
    with pytest.raises(UserError, match="rooms: 0 is no whole number of at least 1"):
        made("make", rooms=0)
