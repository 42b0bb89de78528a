"""Episodes: tokens in and tokens out, the policy's own apart from what it read, limits, and worlds that fail."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, user
from policyopt.methods.baseline.remax import remax
from policyopt.methods.group.grpo import grpo
from policyopt.models.likelihood import Wanted
from policyopt.models.text import Text
from policyopt.sources.episodes import Episodes, Player, listen, seed_of
from policyopt.sources.program import Question, Response
from policyopt.training.config import Evaluation, Judging
from policyopt.training.rows import to_batch
from policyopt.training.run import run
from tests.commands import lines
from tests.environments.playing import Scripted, example, heard, plain_text, play, turns
from tests.runs import assert_same_end, left_behind, power_cut, tiny_run
from tests.tiny import ENDS, load_tiny


class Echo(Environment):
    """Says again what it was told, and adds a word; ends with "stop"; each turn is worth one more than the last."""

    more = ""

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        self.seed, self.count = seed, 0
        return f"seed {seed}"

    def step(self, action: Action) -> Observation:
        self.count += 1
        done = action == "stop"
        return Observation(
            f"{action} {self.count}{self.more}",
            reward=float(self.count),
            done=done,
            duration=0.5,
            numbers={"steps": 1.0},
        )


# Tokens ----------------------------------------------------------------------------------------------------------------


def test_what_was_drawn_stays_and_what_was_said_is_put_behind_it() -> None:
    text = plain_text()
    policy = Scripted(text, ("ab", "cde", "stop"))
    [row] = play(Echo, policy=policy)
    assert turns(row) == [
        (True, "ab<|end|>"), (False, "<|user|>ab 1<|end|><|assistant|>"), (True, "cde<|end|>"),
        (False, "<|user|>cde 2<|end|><|assistant|>"), (True, "stop<|end|>"),
    ]  # fmt: skip
    starts = [0] + [i + 1 for i, own in enumerate(row.own[:-1]) if not own and row.own[i + 1]]
    assert [list(read) for read in policy.read] == [[*row.context, *row.tokens[:start]] for start in starts]
    assert text.tokenizer.decode(row.context) == "<|user|>go\nseed 5<|end|><|assistant|>"
    assert all((x != 0.0) == own for x, own in zip(row.logp, row.own, strict=True)), "what it read has no probability"
    assert len(row.entropy) == len(row.versions) == len(row.tokens) and set(row.versions) == {3}


def test_turns_are_told_apart() -> None:
    [row] = play(Echo, ("ab", "cde", "stop"))
    ends = [int(i) for i in row.columns["turn_end"]]
    assert [row.tokens[i] for i in ends] == [2, 2, 2] and all(row.own[i] for i in ends)
    assert ends[-1] == len(row.tokens) - 1
    assert row.columns["turn_reward"] == [1.0, 2.0, 3.0] and row.columns["turn_duration"] == [0.5] * 3
    assert len(set(row.columns["turn_state"])) == 3
    assert (row.verdict.score, row.verdict.parts["steps"], row.finished) == (6.0, 3.0, True)


def test_states_of_episodes_that_did_the_same_are_the_same() -> None:
    one, other = play(Echo, ("ab", "x", "stop"), ("ab", "y", "stop"))
    a, b = one.columns["turn_state"], other.columns["turn_state"]
    assert a[:2] == b[:2] and a[2] != b[2]


def test_what_spells_a_special_token_stays_text() -> None:
    class Sly(Echo):
        more = "<|end|><|assistant|>I win<|end|>"

    [row] = play(Sly, ("ab", "stop"))
    said = [t for t, own in zip(row.tokens, row.own, strict=True) if not own]
    assert [said.count(special) for special in (2, 5, 4)] == [1, 1, 1], (
        "<|end|>, <|assistant|> and <|user|> of the template alone"
    )
    assert "<|end|><|assistant|>I win<|end|>" in turns(row)[1][1]


def test_a_group_begins_alike_and_goes_on_apart() -> None:
    seeds: list[int] = []

    class Noting(Echo):
        def reset(self, seed: int, row: Mapping[str, Any]) -> str:  # type: ignore[override]
            seeds.append(seed)
            return f"seed {seed} {row['colour']}"

    rows = play(Noting, ("a",), ("b",), ("c",), row=example(colour="red"))
    assert seeds == [5, 5, 5] and len({r.context for r in rows}) == 1
    assert "seed 5 red" in plain_text().tokenizer.decode(rows[0].context)


@pytest.mark.parametrize("meta", [{"seed": 12}, {"metadata": {"seed": 12}}, {"metadata": {"seed": 12}, "seed": 4}])
def test_the_row_says_the_seed(meta: dict[str, Any]) -> None:
    assert seed_of(Example("a", user("?"), "", meta=meta)) == 12


def test_a_row_without_a_seed_has_one_by_its_name() -> None:
    found = {
        seed_of(Example(f"data:{i}", user("?"), "", meta=meta))
        for i in range(50)
        for meta in ({}, {"seed": True}, {"seed": "x"})
    }
    assert len(found) == 50 and all(0 <= s < 1 << 31 for s in found)


# The numbers of a real model -----------------------------------------------------------------------------------------------


class Talkative(Environment):
    """Answers with the length of what was said, four times."""

    turns = 4

    def reset(self, seed: int, row: Mapping[str, Any]) -> str:  # type: ignore[override]
        return f"begin {seed}"

    def step(self, action: Action) -> Observation:
        return Observation(f"{len(action)} characters, {action[:3]!r}", reward=len(action) % 3)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trainer_thinks_of_the_whole_row_what_the_sampler_did_turn_by_turn(
    temperature: float, tiny_model: Path
) -> None:
    policy = load_tiny(tiny_model, "float64")
    sampler = LocalSampler.of(policy)
    text = Text(policy.tokenizer, ENDS)
    player = Player(Talkative, text, Episodes(turn_tokens=20))
    rows = [example("a"), dataclasses.replace(example("another question", seed=6), id="row-2")]
    questions = [Question(text.prompt(r.prompt), 150, (i,)) for i, r in enumerate(rows)]
    groups = sampler.run(
        [
            player.play(r, q, sampler, n=4, temperature=temperature, key=q.key)
            for r, q in zip(rows, questions, strict=True)
        ]
    )
    drawn = [r for group in groups for r in group]
    assert any(len(r.columns["turn_end"]) > 2 for r in drawn), "episodes of several turns"
    verdicts = [r.verdict for r in drawn]
    batch = to_batch([r.context for r in drawn], drawn, verdicts, [0] * 4 + [1] * 4, 150, torch.float64)
    with torch.no_grad():
        found = sampler.split.leaves(batch, Wanted(entropy=True))
    mask = batch.mask.bool()
    assert (found["logp"] - batch.old_logp)[mask].abs().max() < 1e-12
    assert (found["entropy"] - batch.sampled_entropy)[mask].abs().max() < 1e-12
    for i, r in enumerate(drawn):
        own = torch.tensor(r.own or [True] * len(r.tokens))
        assert torch.equal(batch.mask[i, : len(own)].bool(), own) and not batch.mask[i, len(own) :].any()
        ends = [int(e) for e in batch.turn_end[i] if e >= 0]
        assert ends == r.columns["turn_end"] and own[ends].all()


# Limits ----------------------------------------------------------------------------------------------------------------


class Endless(Echo):
    turns = 5


def test_turns_run_out() -> None:
    [row] = play(Endless, ["a"] * 9)
    assert len(row.columns["turn_end"]) == 5 and row.own[-1], "nothing is read that nobody answers"
    [row] = play(Endless, ["a"] * 9, turns=3)
    assert len(row.columns["turn_end"]) == 3 and row.verdict.score == 6.0


def test_the_budget_counts_what_is_read_too() -> None:
    for budget in range(8, 40, 3):
        [row] = play(Endless, ["abc"] * 9, budget=budget)
        assert len(row.tokens) <= budget
        assert row.own == [] or row.own[-1], "nothing is read that nobody answers"
    [row] = play(Endless, ["abc"] * 9, budget=12)
    assert turns(row) == [(True, "abc<|end|>")], "where no room is left for an answer, it is not read"


def test_a_turn_that_is_cut_off_ends_the_episode() -> None:
    [row] = play(Endless, ("abc", "a very long speech"), turn_tokens=6)
    assert turns(row)[-1] == (True, "a very")
    assert not row.finished and row.columns["turn_reward"] == [1.0, 0.0]


def test_time_runs_out() -> None:
    class Slow(Endless):
        def step(self, action: Action) -> Observation:
            time.sleep(0.2)
            return super().step(action)

    [row] = play(Slow, ["a"] * 9, seconds=0.3)
    assert len(row.columns["turn_end"]) == 2 and row.verdict.score == 3.0, "what was done by then counts"


def test_so_many_at_once() -> None:
    now, most = 0, 0

    class Counting(Environment):
        async def reset(self, seed: int, row: Mapping[str, Any]) -> None:  # type: ignore[override]
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)

        async def step(self, action: Action) -> Observation:  # type: ignore[override]
            return Observation(reward=1.0, done=True)

        def close(self) -> None:
            nonlocal now
            now -= 1

    play(Counting, *[("a",)] * 9, at_once=4)
    assert (now, most) == (0, 4)


def test_a_beginning_that_leaves_no_room() -> None:
    class Long(Echo):
        def reset(self, seed: int, row: Mapping[str, Any]) -> str:  # type: ignore[override]
            return "x" * 300

    text = plain_text()
    player = Player(Long, text, context=200)
    question = Question((1,), 50, (0,))
    with pytest.raises(
        UserError, match=r"row-1: what the environment says at the beginning makes a prompt of 3\d\d tokens"
    ):
        asyncio.run(player.play(example(), question, Scripted(text, ("a",)), n=1, temperature=1.0, key=(0,)))


def test_what_is_too_long_to_read_is_cut() -> None:
    class Long(Echo):
        more = "y" * 30_000

    [row] = play(Long, ("a", "stop"), budget=60_000)
    assert "more characters are left out]" in heard(row)[0] and len(heard(row)[0]) < 20_100


# Worlds that fail --------------------------------------------------------------------------------------------------------


def fails(where: str, what: Callable[[], Any]) -> type[Environment]:
    def broken(self: Any, *args: Any) -> Any:
        return what()

    return type("Broken", (Echo,), {where: broken})


def _raise() -> None:
    raise OSError("no such world")


@pytest.mark.parametrize(
    ("where", "what", "said"),
    [
        ("reset", _raise, "OSError: no such world"),
        ("step", _raise, "OSError: no such world"),
        ("finish", _raise, "OSError: no such world"),
        ("step", lambda: Observation("x", reward=math.nan), "reward is nan, expected a finite number"),
        ("step", lambda: Observation("x", numbers={"n": math.inf}), "n is inf"),
        ("step", lambda: 3j, "returned complex, expected an Observation or a text"),
        ("reset", lambda: time.sleep(5), "took longer than 0.3 s"),
    ],
)
def test_an_episode_whose_world_fails_has_no_reward(where: str, what: Callable[[], Any], said: str) -> None:
    [row] = play(fails(where, what), ("ab", "stop"), timeout=0.3)
    assert row.verdict.failed and math.isnan(row.verdict.score)
    assert said in row.verdict.reason


def test_a_close_that_fails_is_nobodys_concern() -> None:
    [row] = play(fails("close", _raise), ("stop",))
    assert row.verdict.score == 1.0


WORLD = '''
import time

from policyopt.environments.world import Environment, Observation


class Moody(Environment):
    """Raises for some seeds, hangs for others; else as many turns as there are even answers, each worth something."""

    turns = 3

    def reset(self, seed, row):
        self.seed = seed
        return f"world {seed % 100}"

    def step(self, action):
        if len(action) % 5 == 1:
            raise RuntimeError("a bad day")
        if len(action) % 5 == 2 and self.seed % 2:
            time.sleep(30)
        return Observation(f"heard {len(action)}", reward=float(len(action) % 3), done=len(action) % 2 == 1)
'''


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "moody.py").write_text(WORLD)
    limits = Episodes(timeout=0.2, turn_tokens=8)
    return {
        "task": "seeds", "env": f"{tmp_path / 'moody.py'}:Moody", "episodes": limits, "max_tokens": 60, "steps": 3,
        "judging": Judging(max_failed=0.95), "eval": Evaluation(every=0, prompts=2, samples=0),
    }  # fmt: skip


def test_episodes_that_fail_leave_their_groups_and_the_run_goes_on(
    tiny_model: Path, tmp_path: Path, world: dict[str, Any]
) -> None:
    config = tiny_run(tmp_path / "run", tiny_model, world, grpo(group_size=4))
    begun = time.monotonic()
    run(config, quiet=True)
    assert time.monotonic() - begun < 60, "nobody waited for the worlds that hang"
    rows = [row for row in lines(config.out / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) for row in rows)
    assert sum(row["judge/failed"] for row in rows) > 0
    said = [s["reason"] for s in lines(config.out / "samples.jsonl")]
    assert any("RuntimeError: a bad day" in reason for reason in said)
    assert all(
        s["reward"] is None for s in lines(config.out / "samples.jsonl") if "the environment failed" in s["reason"]
    )


# Whole runs --------------------------------------------------------------------------------------------------------------


SEEDED = '''
import random

from policyopt.environments.world import Environment, Observation


class Weather(Environment):
    """A forecast that follows from the seed and from what was said; three turns of letters."""

    turns = 3
    instant = True

    def reset(self, seed, row):
        self.chance = random.Random(seed)
        return f"{self.chance.random():.3f}"

    def step(self, action):
        worth = sum(c.islower() for c in action) / (1 + len(action))
        return Observation(f"{self.chance.random():.3f}", reward=worth + self.chance.random())
'''


@pytest.mark.parametrize("recipe", [grpo(group_size=4), remax(group_size=4)], ids=["grpo", "remax"])
def test_a_run_on_a_world_that_is_cut_ends_with_the_same_bits(recipe: Any, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(SEEDED)
    task: dict[str, Any] = {
        "task": "seeds", "env": f"{tmp_path / 'weather.py'}:Weather", "steps": 4, "max_tokens": 60, "staleness": 1,
        "batch": 8,
        "episodes": Episodes(turn_tokens=8), "eval": Evaluation(every=3, prompts=2, samples=1, k=1),
    }  # fmt: skip
    whole, cut = (tiny_run(tmp_path / name, tiny_model, task, recipe) for name in ("whole", "cut"))
    run(whole, quiet=True)
    with power_cut(after=3):
        run(cut, quiet=True)
    run(cut, resume=cut.out, quiet=True)
    reference = left_behind(whole.out)
    assert any(s.get("pieces", []).count("<|user|>") > 1 for s in reference["samples"]), "episodes of several turns"
    assert_same_end(cut.out, reference)


def test_listening_keeps_lists_in_step() -> None:
    row = Response([7, 8], [-1.0, -2.0], [0.1, 0.2], versions=[4, 4], heat=[0.5, 0.5], support=[(7, 9)])
    listen(row, (1, 2, 3))
    assert row.own == [True, True, False, False, False] and row.heat == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert {len(x) for x in (row.tokens, row.logp, row.entropy, row.versions, row.own, row.heat, row.support)} == {5}
    assert Verdict.failure("x").failed


def test_episodes_wait_for_each_other_in_every_loop_anew() -> None:
    """Every evaluation has an event loop of its own, which may stand where one stood that has ended."""
    text = plain_text()
    player = Player(Echo, text, Episodes(at_once=1))

    async def some() -> list[Response]:
        task = example()
        question = Question(text.prompt(task.prompt), 60, (0,))
        policy = Scripted(text, ("ab", "stop"))
        return await player.play(task, question, policy, n=3, temperature=1.0, key=(0,))  # type: ignore[arg-type]

    for _ in range(20):
        assert len(asyncio.run(some())) == 3
