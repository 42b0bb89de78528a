"""Environments of Gymnasium, the real ones: their actions by number and word, what is seen as text, seeds, rewards."""

from __future__ import annotations

import enum
import sys
from typing import Any
from unittest import mock

import pytest

from policyopt.environments.gymnasium import uncoloured
from policyopt.environments.names import adapted, maker
from policyopt.environments.world import Environment
from policyopt.errors import UserError
from tests.environments.playing import example, heard, plain_text, play, visit

gymnasium: Any = pytest.importorskip("gymnasium", reason="needs gymnasium (pip install 'policyopt[gymnasium]')")


def made(name: str, **options: Any) -> Environment:
    return maker(f"gymnasium:{name}", options, lambda _: None)()


def test_a_frozen_lake_is_crossed() -> None:
    way = ["I will go down.", "not up, not left: down", "2", "Action: 1", "down, then RIGHT", "right"]
    said = visit(made("FrozenLake-v1", is_slippery=False), *way, seed=1)
    assert said[0].text == "<red>S</red>FFF\nFHFH\nFFFH\nHFFG\nWrite one action: left, down, right, up."
    assert said[1].text == "  (Down)\nSFFF\n<red>F</red>HFH\nFFFH\nHFFG"
    assert [o.state for o in said[:-1]] == ["0", "4", "8", "9", "13", "14", "15"]
    assert [o.reward for o in said] == [None, 0, 0, 0, 0, 0, 1, 0] and [o.done for o in said[1:-1]] == [False] * 5 + [
        True
    ]


def test_a_whole_episode() -> None:
    make = maker("gymnasium:FrozenLake-v1", {"is_slippery": "False"}, lambda _: None)
    won, drowned, silent = play(make, ("down", "down", "right", "down", "right", "right"), ("down", "right"), ("what?", "well", "hm"), turns=6)  # fmt: skip
    assert [r.verdict.score for r in (won, drowned, silent)] == [1.0, 0.0, 0.0]
    assert won.verdict.correct and won.finished and drowned.finished and not silent.finished
    assert won.columns["turn_reward"] == [0, 0, 0, 0, 0, 1]
    assert heard(silent)[0] == "There is no action in this. Write one action: left, down, right, up."
    assert len(set(silent.columns["turn_state"])) == 1, "nothing has happened in the world"
    assert silent.verdict.parts["invalid_actions"] == 6 and won.verdict.parts["invalid_actions"] == 0
    assert plain_text().tokenizer.decode(won.context).startswith("<|user|>go\n<red>S</red>FFF")


def test_an_episode_that_never_acts_has_earned_nothing() -> None:
    [row] = play(lambda: made("FrozenLake-v1"), ("a speech that is far too long",), turn_tokens=5)
    assert row.verdict.score == 0.0


@pytest.mark.parametrize("name", ["Taxi-v4", "Blackjack-v1", "CliffWalking-v1"])
def test_the_seed_says_how_it_begins(name: str) -> None:
    def begins(seed: int) -> str:
        return visit(made(name), seed=seed)[0].text

    assert begins(3) == begins(3)
    if name != "CliffWalking-v1":
        assert len({begins(i) for i in range(8)}) > 1


def test_the_actions_of_taxi() -> None:
    said = visit(made("Taxi-v4"), "pickup", "go north", "south", "5")
    assert said[0].text.endswith("Write one action: south, north, east, west, pickup, dropoff.")
    assert "<blue>" in said[0].text and "<magenta>" in said[0].text and "<yellow>" in said[0].text
    assert [o.reward for o in said[1:5]] == [-10, -1, -1, -10]
    assert made("Taxi-v4").instant and not adapted(space(action=gymnasium.spaces.Discrete(2)), {}, "my.py:b")().instant
    assert made("Taxi-v4").turns == 200 and made("FrozenLake-v1").turns == 100


def test_actions_are_named_by_an_option() -> None:
    said = visit(made("CartPole-v1", actions="push left,push right"), "I push right", "push left!", "1")
    assert said[0].text.endswith("Write one action: push left, push right.")
    assert [o.reward for o in said[1:4]] == [1.0] * 3
    velocity = [float(o.text.strip("[]").split(",")[1]) for o in said[1:4]]
    assert velocity[0] > velocity[1] < velocity[2]
    with pytest.raises(UserError, match="has 2 actions, and 3 are named"):
        made("CartPole-v1", actions="a,b,c")


def space(**more: Any) -> Any:
    """An environment with the given spaces that says back what it was told."""

    class Back(gymnasium.Env):
        action_space = more["action"]

        def __init__(self) -> None:
            self.began: Any = None

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return {"seed": seed, "options": options}, {}

        def step(self, action: Any) -> Any:
            return f"{action!r}", 0.5, False, str(action) == "stop", {"is_success": str(action) == "stop"}

    for name, value in more.items():
        if name != "action":
            setattr(Back, name, value)
    return Back


def test_a_text_space_takes_the_whole_turn() -> None:
    text = gymnasium.spaces.Text(12, charset="abcdefghijklmnopqrstuvwxyz ")
    back = space(action=text)
    [row] = play(adapted(back, {}, "my.py:Back"), ("turn left", "LOUD", "stop"), row=example(options={"a": 1}))
    assert heard(row) == ["'turn left'", "There is no action in this."]
    assert row.finished and row.verdict.score == 1.0 and row.verdict.correct is True
    assert "seed: 5\noptions: a: 1" in plain_text().tokenizer.decode(row.context)


def test_spaces_of_arrays_take_a_list() -> None:
    back = space(action=gymnasium.spaces.MultiDiscrete([3, 3]))()
    said = visit(
        adapted(lambda: back, {}, "my.py:b")(), "first [0, 1], no: [2,1]", "[9, 9]", "[1", "[1, 1, 1]", "[1e400, 0]"
    )
    assert said[1].text == "array([2, 1])"
    assert all(o.text.startswith("There is no action in this. Write your action as a JSON list") for o in said[2:6])
    box = space(action=gymnasium.spaces.Box(-1, 1, (2,)))()
    said = visit(adapted(lambda: box, {}, "my.py:b")(), "[0.5, -1]", "[0.5, -2]")
    assert "0.5, -1." in said[1].text and said[2].text.startswith("There is no action")


class Way(enum.IntEnum):
    stay = 4
    go = 5


def test_an_environment_says_what_its_actions_are_called() -> None:
    discrete = gymnasium.spaces.Discrete(2, start=4)
    for more in ({"get_action_meanings": lambda self: ["stay", "go"]}, {"actions": Way}):
        said = visit(adapted(space(action=discrete, **more), {}, "my.py:b")(), "go", "4", "1", "-4", "4.5", "no-go")
        assert said[0].text.endswith("Write one action: stay, go.")
        assert [o.text for o in said[1:3]] == ["5", "4"]
        assert [o.numbers["invalid_actions"] for o in said[1:7]] == [0, 0, 1, 1, 1, 1]


def test_colours_of_a_terminal_become_words() -> None:
    assert uncoloured("\x1b[35m\x1b[43mY\x1b[0m\x1b[0m\x1b[0m") == "<magenta><yellow>Y</yellow></magenta>"
    assert uncoloured("a\x1b[41mS\x1b[0mb\x1b[34;1mX\x1b[0m\x1b[1mY\x1b[0m") == "a<red>S</red>b<blue>X</blue>Y"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("FrozenLak-v1", {}, r"--env gymnasium:FrozenLak-v1: .*doesn't exist. Did you mean: `FrozenLake`"),
        ("Taxi-v4", {"speed": 2}, r"--env gymnasium:Taxi-v4: .*unexpected keyword argument 'speed'"),
        ("no_such_module:Env-v0", {}, "no_such_module"),
    ],
)
def test_what_cannot_be_made(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made(name, **options)


def test_spaces_that_cannot_be_written() -> None:
    both = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})
    with pytest.raises(UserError, match="takes actions of the space Dict, which cannot be written"):
        adapted(space(action=both), {}, "my.py:b")()
    with pytest.raises(UserError, match="is many environments at once"):
        adapted(lambda: gymnasium.make_vec("CartPole-v1", num_envs=2), {}, "my.py:b")()


def test_without_the_package() -> None:
    with mock.patch.dict(sys.modules, {"gymnasium": None}):
        with pytest.raises(
            UserError, match=r"--env gymnasium:Taxi-v4 needs the package gymnasium: .*policyopt\[gymnasium\]"
        ):
            made("Taxi-v4")


def test_minigrid_draws_itself_in_letters() -> None:
    pytest.importorskip("minigrid", reason="needs minigrid (pip install 'policyopt[minigrid]')")
    said = visit(
        made("minigrid:MiniGrid-Empty-5x5-v0"), "forward", "forward", "right", "forward, and forward", "forward"
    )
    assert said[0].text.startswith("get to the green goal square\nWGWGWGWGWG\nWG>>")
    assert "Write one action: left, right, forward, pickup, drop, toggle, done." in said[0].text
    assert len({o.state for o in said[:5]}) == 5, "each step leads somewhere else"
    assert said[-2].done and (said[-2].reward or 0) > 0.9
