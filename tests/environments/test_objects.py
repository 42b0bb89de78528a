"""Objects with tools, as they are written for TRL's ``environment_factory``, are played unchanged."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from transformers.utils import get_json_schema

from policyopt.environments.names import adapted, maker
from policyopt.environments.objects import ObjectWorld
from policyopt.environments.tools import tool_of
from policyopt.environments.world import Environment
from policyopt.errors import UserError
from tests.environments.playing import call, example, heard, plain_text, play, turns, visit

MADE = itertools.count()


class WordGame:
    """As TRL's own pages write an environment: keywords of the row, a docstring with its arguments, state for the reward."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.done = False
        self.client = lambda word: word.upper()  # a function that is no method is no tool
        self.number = next(MADE)

    def reset(self, **kwargs: Any) -> str | None:
        self.word, self.reward, self.done = kwargs["word"], 0.0, False
        return f"Guess a word of {len(self.word)} letters."

    def guess(self, guess: str, sure: bool = False) -> str:
        """
        Make a guess.

        Args:
            guess: The guessed word.
            sure: Whether it is the last one.

        Returns:
            What is right of it.
        """
        if self.done:
            raise ValueError("Game over.")
        self.done = guess == self.word
        self.reward = 1.0 if self.done else 0.25
        return "".join("G" if a == b else "X" for a, b in zip(guess, self.word, strict=False))

    @property
    def dangerous(self) -> str:
        raise RuntimeError("a property was read")

    @cached_property
    def costly(self) -> str:
        raise RuntimeError("a property was read")

    def _help(self, letter: str) -> str:
        return self.client(letter)


class OwnReward(WordGame):
    def get_reward(self) -> float:
        return self.reward


class Async(WordGame):
    async def reset(self, **kwargs: Any) -> str | None:  # type: ignore[override]
        await asyncio.sleep(0.01)
        return super().reset(**kwargs)

    async def guess(self, guess: str, sure: bool = False) -> str:  # type: ignore[override]
        """Make a guess.

        Args:
            guess: The guessed word.
            sure: Whether it is the last one.
        """
        await asyncio.sleep(0.01)
        return super().guess(guess, sure)

    async def get_reward(self) -> float:
        await asyncio.sleep(0.01)
        return self.reward


def environment(kind: Callable[[], Any], **more: Any) -> Callable[[], Environment]:
    return adapted(kind, {}, "my_env.py:kind", **more)


ROW = example("Play.", word="crane")
WON = (call("guess", guess="trace"), call("guess", guess="crane"), "done")


@pytest.mark.parametrize("kind", [OwnReward, Async])
def test_an_environment_written_for_trl_is_played_unchanged(kind: Callable[[], Any]) -> None:
    [won, lost] = play(environment(kind), WON, ("I give up.",), row=ROW)
    assert (won.verdict.score, won.verdict.correct, won.finished) == (1.0, True, True)
    assert (lost.verdict.score, lost.verdict.correct) == (0.0, False)
    assert [(own, said) for own, said in turns(won) if own] == [(True, f"{said}<|end|>") for said in WON]
    assert heard(won) == ["XGGXG", "GGGGG"]
    assert (
        plain_text()
        .tokenizer.decode(won.context)
        .endswith("<|user|>Play.\nGuess a word of 5 letters.<|end|><|assistant|>")
    )
    assert won.verdict.parts == {"tool_calls": 2, "tool_errors": 0}


def test_only_methods_are_tools_and_no_property_is_read() -> None:
    assert [tool.name for tool in ObjectWorld(OwnReward()).tools] == ["guess"]


def test_the_model_is_told_of_a_tool_as_trl_tells_it() -> None:
    mine, theirs = tool_of(WordGame().guess).schema["function"], get_json_schema(WordGame().guess)["function"]
    assert mine["name"] == theirs["name"]
    assert theirs["description"] in mine["description"]
    assert mine["parameters"]["required"] == theirs["parameters"]["required"]
    for name, said in theirs["parameters"]["properties"].items():
        assert mine["parameters"]["properties"][name]["type"] == said["type"]
        assert said["description"] in mine["description"]


def test_episodes_share_nothing() -> None:
    made: list[WordGame] = []

    class Remembering(OwnReward):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    first, second = play(environment(Remembering), WON, (call("guess", guess="zzzzz"),), row=ROW)
    assert len({id(m) for m in made}) == 2
    assert (first.verdict.score, second.verdict.score) == (1.0, 0.25)
    assert (first.context, first.columns["turn_state"][0]) == (second.context, second.columns["turn_state"][0])


def test_a_tool_that_raises_is_read_by_the_policy() -> None:
    [played] = play(environment(OwnReward), (*WON[:2], call("guess", guess="again"), "sorry"), row=ROW)
    assert heard(played)[2] == "error: Game over."
    assert played.verdict.score == 1.0, "the episode goes on, and is worth what it was"
    assert played.verdict.parts["tool_errors"] == 1


def test_calls_that_cannot_be_carried_out() -> None:
    lines = (
        call("gues", guess="crane"),
        call("guess", word="crane"),
        '{"name": "guess", "arguments": {"guess": "cr',
        call("guess", guess=["c"]),
        call("reset", word="aaaaa"),
        call("_help", letter="a"),
        "end",
    )
    [played] = play(environment(OwnReward), lines, row=ROW)
    said = heard(played)
    assert said[0] == "error: no tool is called 'gues'; nearest: guess"
    assert said[1].startswith("error: guess: Field required") and "word: Extra inputs" in said[1]
    assert said[2].startswith("error: this call is no JSON")
    assert said[3].startswith("error: guess: Input should be a valid string")
    assert said[4].startswith("error: no tool is called 'reset'") and said[5].startswith(
        "error: no tool is called '_help'"
    )
    assert played.verdict.score == 0.0
    assert played.verdict.parts == {"tool_calls": 6, "tool_errors": 6}


def test_calls_of_one_turn_are_carried_out_in_their_order() -> None:
    both = "\n".join([call("guess", guess="crane"), call("guess", guess="crane")])
    [played] = play(environment(OwnReward), (both, "end"), row=ROW)
    assert heard(played) == ["GGGGG|error: Game over."]


class Blocking(OwnReward):
    release = threading.Event()

    def guess(self, guess: str) -> str:
        """Waits for ever for one word."""
        if guess == "wait":
            self.release.wait(60)
        return super().guess(guess)


class BlockingAsync(Async):
    async def guess(self, guess: str) -> str:  # type: ignore[override]
        """Waits for ever for one word."""
        if guess == "wait":
            await asyncio.sleep(60)
        return await super().guess(guess)


@pytest.mark.parametrize("kind", [Blocking, BlockingAsync])
def test_a_tool_that_blocks_is_given_up_and_the_others_go_on(kind: Callable[[], Any]) -> None:
    begun = time.monotonic()
    stuck, won = play(environment(kind), (call("guess", guess="wait"), "end"), WON, row=ROW, timeout=0.5)
    Blocking.release.set()
    assert time.monotonic() - begun < 20
    assert stuck.verdict.failed and not stuck.verdict.rewarded
    assert f"{kind.__name__}.guess took longer than 0.5 s" in stuck.verdict.reason
    assert won.verdict.score == 1.0


def test_each_call_of_a_turn_has_the_whole_time() -> None:
    class Slow:
        def nap(self) -> str:
            """Sleeps."""
            time.sleep(0.3)
            return "awake"

        async def doze(self) -> str:
            """Sleeps."""
            await asyncio.sleep(0.3)
            return "awake"

        def impatient(self) -> str:
            """Has a limit of its own."""
            raise TimeoutError("the site did not answer")

    turn = "\n".join([call("nap"), call("doze"), call("nap"), call("doze"), call("impatient")])
    [played] = play(environment(Slow), (turn, "end"), judged=True, timeout=0.8)
    assert heard(played) == ["awake|awake|awake|awake|error: the site did not answer"]


# Rewards ---------------------------------------------------------------------------------------------------------------


def from_environments(environments: list[Any], **kwargs: Any) -> list[float | None]:
    return [np.float32(env.reward) for env in environments]


def by_columns(prompts: list[Any], completions: list[Any], word: list[str], extra: float = 0.5) -> list[float | None]:
    [talk] = completions
    assert prompts == [[{"role": "user", "content": "Play."}]] and word == ["crane"]
    assert [m["role"] for m in talk] == ["assistant", "tool", "assistant", "tool", "assistant"]
    return [extra * sum("GGGGG" in m["content"] for m in talk)]


async def absent(environments: list[Any], **kwargs: Any) -> list[float | None]:
    return [None for _ in environments]


def test_reward_functions_of_trl_read_environments_and_columns() -> None:
    [played] = play(environment(WordGame, rewards=[from_environments, by_columns, absent]), WON, row=ROW)
    assert played.verdict.score == 1.5
    [played] = play(environment(OwnReward, rewards=[from_environments]), WON, row=ROW)
    assert played.verdict.score == 2.0, "beside what the environment says itself"
    [played] = play(environment(WordGame, rewards=[absent]), WON, row=ROW)
    assert not played.verdict.rewarded and not played.verdict.failed


def test_without_a_reward_the_judge_is_asked() -> None:
    [played] = play(environment(WordGame), WON, row=ROW, judged=True)
    assert played.verdict is None
    [played] = play(environment(WordGame), WON, row=ROW)
    assert played.verdict.reason == "the environment gave no reward in this episode"


def test_a_reward_function_cannot_have_the_ids() -> None:
    def ids(environments: list[Any], completion_ids: list[list[int]]) -> list[float]:
        return []

    with pytest.raises(UserError, match="ids asks for completion_ids, which an environment does not see"):
        environment(WordGame, rewards=[ids])()


def test_reward_functions_by_name() -> None:
    found = {"a.py:Game": WordGame, "a.py:one": from_environments, "a.py:two": absent}
    make = maker("a.py:Game", {"reward_funcs": "a.py:one,a.py:two"}, found.__getitem__)
    assert visit(make(), word="crane")[-1].reward == 0.0


# What else may stand under a name -----------------------------------------------------------------------------------------


class Dice:
    """Another environment."""

    def reset(self, **kwargs: Any) -> None:
        assert "environment" not in kwargs

    def roll(self, sides: int) -> int:
        """Rolls."""
        return sides

    def get_reward(self) -> float:
        return 0.75


def test_a_row_names_its_environment_of_several() -> None:
    make = adapted({"words": OwnReward, "dice": Dice}, {}, "my_env.py:ALL")
    [played] = play(make, WON, row=example("Play.", word="crane", environment="words"))
    assert played.verdict.score == 1.0
    [played] = play(make, (call("guess", guess="crane"), call("roll", sides=6), ""), row=example(environment="dice"))
    assert heard(played) == ["error: no tool is called 'guess'; nearest: roll", "6"]
    assert played.verdict.score == 0.75
    with pytest.raises(UserError, match=r"'environment' of a row says 'cards', .*nearest: words"):
        play(make, WON, row=example(environment="cards"))


def add(a: int, b: int = 1) -> int:
    """The sum."""
    return a + b


def test_functions_are_tools_without_a_world() -> None:
    [played] = play(adapted([add], {}, "my.py:TOOLS"), (call("add", a=2), "3"), judged=True)
    assert heard(played) == ["3"] and played.verdict is None and played.finished


def test_options_of_a_class() -> None:
    class Sized:
        def __init__(self, size: int, loud: bool = True) -> None:
            self.size, self.loud = size, loud

        def look(self) -> str:
            """Looks."""
            return f"{self.size} {self.loud}"

    make = maker("a.py:Sized", {"size": 3, "loud": "False"}, lambda _: Sized)
    [played] = play(make, (call("look"), "end"), judged=True)
    assert heard(played) == ["3 False"]
    with pytest.raises(UserError, match=r"--env-options sise: a.py:Sized is made without it; nearest: size"):
        maker("a.py:Sized", {"sise": 3}, lambda _: Sized)


class Files:
    def close(self, path: str) -> str:
        """Close a file."""
        return f"closed {path}"


def test_a_close_with_arguments_is_a_tool_and_one_without_ends_the_episode() -> None:
    [played] = play(environment(Files), (call("close", path="a"), "end"), judged=True)
    assert heard(played) == ["closed a"]
    ended = []

    class Ends(OwnReward):
        def close(self) -> None:
            ended.append(self)

    play(environment(Ends), WON, row=ROW)
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (type("Empty", (), {"reset": lambda self: None}), "Empty has no public method beside reset"),
        (type("Untyped", (), {"act": lambda self, x: x}), "its argument 'x' has no type"),
    ],
)
def test_objects_that_are_refused(kind: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        environment(kind)()
