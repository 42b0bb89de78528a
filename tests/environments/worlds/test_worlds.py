"""What all worlds of the library have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyopt.data import load_task
from policyopt.data.worlds import began, seed_in
from policyopt.environments.names import maker
from policyopt.environments.world import observed
from policyopt.environments.worlds import WORLDS
from policyopt.errors import UserError
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.models.warmstart import _join
from policyopt.sources.episodes import Player
from policyopt.sources.program import Question, Response
from tests.environments.worlds.acting import acted, said, shown, total

EACH = pytest.mark.parametrize("name", WORLDS)
TOKENIZER = build_tokenizer()
TEXT = Text(TOKENIZER, (TOKENIZER.eos_token_id,))


NASTY = [
    "", "N", "look 0", "buy 999999999999", "search", "click 1", "click 9999 9999", "7 7 0 0", "a", "#### 5", "N" * 300,
    '{"name":"calc","arguments":{"e":"' + "9*" * 40 + '"}}', '{"name":"search","arguments":{"q":7}}',
    '{"name":"search","arguments":{"q":""}}', '{"name":"nothing"', "\ud800", "²", "٣", "N٣", "look ²",
]  # fmt: skip


class Says:
    """A policy that says given texts, turn by turn."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    async def generate(self, tokens: Sequence[int], *, key: tuple[int, ...], **_: Any) -> list[Response]:
        ids = [*TEXT.encode(self.texts[key[-1]]), TEXT.eos[0]]
        return [Response(ids, [0.0] * len(ids), [0.0] * len(ids), "eos", versions=[0] * len(ids))]


@EACH
def test_an_episode_follows_from_its_seed(name: str) -> None:
    first, again, other = WORLDS[name](), WORLDS[name](), WORLDS[name]()
    episode = shown(first, 7, 0.5)
    assert [(o.told(), o.reward, o.state, o.numbers) for o in episode] == [
        (o.told(), o.reward, o.state, o.numbers) for o in shown(again, 7, 0.5)
    ]
    assert first.question() == again.question()
    questions = {began(other, seed).question() for seed in range(50)}
    assert len(questions) > 40


@EACH
def test_who_takes_the_time_succeeds_and_who_is_in_a_hurry_does_not(name: str) -> None:
    least = 0.7 if name == "bandit" else 1.0
    calm = [shown(WORLDS[name](), seed, 0.0)[-1] for seed in range(100)]
    assert sum(o.correct is True for o in calm) >= 100 * least
    if name != "calculator":  # there somebody in a hurry has no second turn: `hasty`
        hurried = [shown(WORLDS[name](), seed, 1.0)[-1] for seed in range(100)]
        assert sum(o.correct is True for o in hurried) <= 45


@EACH
def test_lessons_are_the_tokens_that_an_episode_has(name: str) -> None:
    task = load_task(name, heldout=4)
    for index in range(6):
        example, lesson = task.train[index], task.lessons[index]
        texts = [lesson.reply, *(reply for _, reply in lesson.then)]
        assert task.environment is not None
        player = Player(maker(task.environment.name, task.environment.options, lambda _: None), TEXT)
        question = Question(TEXT.prompt(example.prompt), task.max_tokens, (0,))
        [response] = asyncio.run(player.play(example, question, Says(texts), n=1, temperature=1.0, key=(0,)))
        ids, taught = _join("lesson", lesson, TOKENIZER, 1024)
        start = len(question.tokens)
        assert ids == [*question.tokens, *response.tokens]
        assert taught[:start] == [False] * start
        assert taught[start:] == (response.own or [True] * len(response.tokens))
        assert len(response.columns["turn_end"]) == len(texts)


@EACH
def test_the_longest_lesson_fits_into_the_budget(name: str) -> None:
    task = load_task(name, heldout=4)
    for index in range(200):
        ids, taught = _join("lesson", task.lessons[index], TOKENIZER, 1024)
        assert len(ids) - taught.index(True) <= task.max_tokens


@EACH
def test_held_out_questions_are_many_and_others(name: str) -> None:
    task = load_task(name, heldout=256)
    held = {e.prompt[0]["content"] for e in task.heldout}
    assert len(held) == 256
    assert not held & {task.train[i].prompt[0]["content"] for i in range(500)}
    assert all(isinstance(seed_in(e.meta), int) for e in task.heldout)


@EACH
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text(max_size=60) | st.sampled_from(NASTY),
        min_size=1,
        max_size=6,
    ),
    seed=st.integers(0, 2**31),
)
def test_no_text_breaks_a_world(name: str, texts: list[str], seed: int) -> None:
    world = began(WORLDS[name](), seed)
    for one in acted(world, texts):
        observed(one)  # what it counts is finite
        assert one.done or one.told()  # who goes on reads something
        assert one.reward is None or -1 <= one.reward <= 1
        assert isinstance(world.state(), str)


@EACH
def test_nonsense_earns_nothing(name: str) -> None:
    world = began(WORLDS[name](), 3)
    observations = acted(world, ["?!"] * world.turns)
    assert total(observations) == 0
    assert not any(o.correct for o in observations)


def test_rules_are_told_where_they_are_asked_for() -> None:
    for name, world in WORLDS.items():
        opening: Any = world(explain=True).reset(3, {})
        assert opening.text == world.rules
        assert len(world.rules) > 50, name
        silent: Any = world().reset(3, {})
        assert silent.text == ""


def test_what_stands_behind_the_colon_is_a_number_of_one_option() -> None:
    assert load_task("bandit:5", heldout=2).environment == load_task("bandit:5", heldout=2).environment
    assert "abcde" in load_task("bandit:5", heldout=2).train[0].prompt[0]["content"]
    with pytest.raises(UserError, match="maze takes nothing behind a colon"):
        load_task("maze:3", heldout=2)
    with pytest.raises(UserError, match=r"1 arms, expected 2 to 26"):
        load_task("bandit:1", heldout=2)
    with pytest.raises(UserError, match=r"1 facts, expected 2 to 26"):
        load_task("history:1", heldout=2)


def test_states_are_equal_where_one_stands_before_the_same() -> None:
    one, two = (began(WORLDS["shop"](), 4) for _ in range(2))
    said(one, "search red")
    said(two, "look 2")
    said(two, "search red")
    assert one.state() != two.state()
    said(one, "look 2")
    assert one.state() == two.state()


def test_options_are_those_of_questions_and_lessons_too() -> None:
    task = load_task("bandit:2", heldout=2, env_options={"pulls": 4, "history": "raw"})
    assert task.train[0].prompt[0]["content"].endswith("ab, 4 pulls")
    assert len(task.lessons[0].then) == 3
    assert task.environment is not None
    assert task.environment.options == {"arms": 2, "pulls": 4, "history": "raw"}
    with pytest.raises(UserError, match="--env-options pull: bandit is made without it; nearest: pulls"):
        load_task("bandit", heldout=2, env_options={"pull": 4})
    with pytest.raises(UserError, match="bandit cannot be made with"):
        load_task("bandit", heldout=2, env_options={"pulls": "many"})
