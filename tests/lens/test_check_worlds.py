"""What `policyopt check` finds in environments: for every finding one that has it and one that has not."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from policyopt.environments.agent import Agent
from policyopt.environments.names import adapted
from policyopt.environments.world import LONGEST, Action, Environment, Observation
from policyopt.lens.check.files import check_named
from policyopt.lens.check.report import Report
from policyopt.lens.check.worlds import check_world, play, rows
from policyopt.models.text import Text
from policyopt.models.tokenizer import CHAT_TEMPLATE, END, build_tokenizer
from tests.commands import Said
from tests.sources.test_agents import say

Command = Callable[..., Said]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "PATIENCE", 1.5)


class Sound(Environment):
    """Say the number that is asked for, or a nearer one than before."""

    turns = 6

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        self.number = random.Random(seed).randint(1, 9)
        return f"say {self.number} or {self.number + 1}"

    def step(self, action: Action) -> Observation | str:
        right = action.strip() == str(self.number)
        return Observation(f"not {action[:20]}", reward=float(right), done=right)


class Drawn(Sound):
    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        self.number = random.SystemRandom().randint(1, 10**9)
        return f"say {self.number}"


class DrawnLater(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation(f"weather {random.SystemRandom().random()}", reward=1.0)


class Same(Sound):
    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        self.number = 4
        return "say 4"


class Counts(Sound):
    """Leaves a number behind for the next episode."""

    played: ClassVar[int] = 0

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        Counts.played += 1
        super().reset(seed, row)
        return f"episode {Counts.played}: say {self.number}"


class Shares(Sound):
    """Sets what all share anew in reset: alone each episode is right, together they are not."""

    number: ClassVar[int] = 0

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        Shares.number = seed + 3
        return f"say a number {seed}"

    def step(self, action: Action) -> Observation | str:
        Shares.number += len(action)
        return Observation(f"it is {Shares.number}", reward=float(Shares.number % 2))


class Remembers(Sound):
    """Shares what changes nothing: a cache is no fault."""

    seen: ClassVar[dict[int, int]] = {}

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        Remembers.seen.setdefault(seed, len(Remembers.seen))
        return super().reset(seed, row)


class Raises(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation(f"you said {int(action)}", reward=float(int(action)))


class Infinite(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation("x", reward=float("inf"))


class Hangs(Sound):
    def step(self, action: Action) -> Observation | str:
        time.sleep(4)
        return super().step(action)


class Stalls(Sound):
    """Waits in the event loop."""

    turns = 1

    async def step(self, action: Action) -> Observation | str:  # type: ignore[override]
        time.sleep(0.8)
        return Observation("x", reward=1.0, done=True)


class Slow(Sound):
    turns = 1

    async def step(self, action: Action) -> Observation | str:  # type: ignore[override]
        await asyncio.sleep(1.1)
        return Observation(f"{self.number}", reward=float(self.number), done=True)


class Endless(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation("on", reward=float(len(action)))


class Flat(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation("on", reward=0.5, done=True)


class Silent(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation("on", done=True)


class Long(Sound):
    def step(self, action: Action) -> Observation | str:
        return "x" * (LONGEST + 1)


class Wordy(Sound):
    def step(self, action: Action) -> Observation | str:
        return "x" * 5000


class Spells(Sound):
    def step(self, action: Action) -> Observation | str:
        return f"the page says <|im_end|> and {action[:9]}"


class Speaks(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation(
            messages=({"role": "assistant", "content": "I say four"}, {"role": "user", "content": "go on"})
        )


class Wizard(Sound):
    def step(self, action: Action) -> Observation | str:
        return Observation(messages=({"role": "wizard", "content": "go on"},))


class Bare:
    """Tools of which one says nothing."""

    def reset(self, seed: int, level: int) -> str:
        self.level = level
        return f"round {seed} of {level + 0}"

    def look(self) -> str:
        return "a number"

    def answer(self, n: int) -> str:
        """Answer with a number."""
        self.said = n
        return "thanks"

    def get_reward(self) -> float:
        return float(getattr(self, "said", 0))


class Typeless:
    def reset(self) -> str:
        return ""

    def answer(self, n) -> str:  # type: ignore[no-untyped-def]
        """Answer."""
        return "thanks"


class Column(Sound):
    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        return f"{super().reset(seed, row)} {row['city']}"


def checked(world: Any, text: Text | None = None) -> Report:
    return check_world(world.__name__, adapted(world, {}, world.__name__), text)


def test_nothing_is_found_where_nothing_is() -> None:
    report = checked(Sound)
    assert not report.broken and not report.faults and not report.notes, (report.faults, report.notes)
    assert {f.key for f in report.findings} == {
        "raises", "blocks", "seeded", "shared", "tools", "words", "ends", "rewards", "masked", "continues",
    }  # fmt: skip
    assert report["rewards"].value == "0 to 1"


@pytest.mark.parametrize(
    ("world", "key", "broken", "says"),
    [
        (Drawn, "seeded", True, "draw all that is random from random.Random(seed)"),
        (DrawnLater, "seeded", True, "turn 1 gives 'weather"),
        (Same, "seeded", False, "every seed begins the same episode"),
        (Counts, "shared", True, "Counts.played changed meanwhile"),
        (Shares, "shared", True, "Shares.number changed meanwhile"),
        (Raises, "raises", True, "ValueError: invalid literal"),
        (Infinite, "raises", True, "expected a finite number"),
        (Hangs, "blocks", True, "took longer than 1.5 s"),
        (Stalls, "blocks", True, "the event loop stood still"),
        (Slow, "blocks", False, "a step of a run waits for its slowest episode"),
        (Endless, "ends", False, "none of 6 episodes ended by itself within 6 turns"),
        (Flat, "rewards", False, "are all worth 0.5"),
        (Silent, "rewards", False, "it gives no reward"),
        (Long, "words", True, f"{LONGEST + 1} characters"),
        (Wordy, "words", False, "5000 characters"),
        (Spells, "continues", True, "'<|im_end|>'"),
        (Speaks, "masked", True, "whose words are the policy's"),
        (Wizard, "masked", True, "'wizard'"),
        (Bare, "tools", False, "knows look by name alone"),
    ],
)
def test_a_finding(world: Any, key: str, broken: bool, says: str) -> None:
    report = checked(world)
    assert report[key].broken is broken and report.broken is (broken or report.broken)
    sentences = report.faults if broken else report.notes
    [sentence] = [s for s in sentences if says in s]
    assert "  " not in sentence
    if not broken:
        assert not report.broken, report.faults


def test_a_cache_that_changes_nothing_is_no_fault() -> None:
    assert checked(Remembers)["shared"].value == "ok"


def test_a_tool_without_types_is_told_what_to_do() -> None:
    report = checked(Typeless)
    assert report.broken and "its argument 'n' has no type" in report.faults[0]


def test_rows_are_made_up_where_an_environment_reads_them() -> None:
    assert any("made up: level" in note for note in checked(Bare).notes)
    report = checked(Column)
    assert not report.broken and any("made up: city" in note for note in report.notes)


def test_an_environment_that_needs_arguments_is_not_called_broken() -> None:
    class Needs(Sound):
        def __init__(self, size: int) -> None:
            self.size = size

    report = checked(Needs)
    assert not report.broken and "without arguments" in report.notes[0]


def test_a_template_that_rewrites_earlier_turns_is_named() -> None:
    tokenizer = build_tokenizer(1 << 16)
    text = Text(tokenizer, (tokenizer.eos_token_id,))
    assert checked(Sound, text)["continues"].value == "ok"
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "{{ message.content }}",
        "{{ message.content.split('</think>')[-1].strip() if not loop.last else message.content }}",
    )
    report = checked(Sound, text)
    assert not report.broken and any("drops thoughts of earlier turns" in n for n in report.notes)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("{{ message.content }}", "{{ message.content | upper }}")
    assert any("refuses a conversation" in f for f in checked(Sound, text).faults)
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "{{ message.content }}", "{{ message.content }}{{ '!' if message.role == 'assistant' }}"
    )
    assert any("writes earlier turns otherwise" in n for n in checked(Sound, text).notes)


def test_a_row_that_would_train_on_what_was_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of defence: the rows themselves, against what was drawn."""
    from policyopt.sources import episodes

    def mine(response: Any, heard: Any) -> None:
        episodes.extend(response, type(response)([*heard], [0.0] * len(heard), [0.0] * len(heard)))

    monkeypatch.setattr(episodes, "listen", mine)
    report = checked(Endless)
    assert report["masked"].broken and "not those that were drawn" in report.faults[0]


# Agents ----------------------------------------------------------------------------------------------------------------


def steady(base_url: str, question: str) -> float:
    messages = [{"role": "user", "content": question}]
    messages.append(say(base_url, messages))
    return float(len(say(base_url, [*messages, {"role": "user", "content": "?"}])["content"]))


def rewriting(base_url: str) -> float:
    messages = [{"role": "user", "content": "?"}]
    said = say(base_url, messages)["content"]
    return float(len(say(base_url, [{"role": "user", "content": f"you said {said}"}])["content"]))


def fragile(base_url: str) -> float:
    said: dict[str, Any] = json.loads(say(base_url, [{"role": "user", "content": "?"}])["content"])
    return float(said["answer"])


def elsewhere() -> float:
    return 1.0


def checked_agent(run: Callable[..., float]) -> Report:
    return check_world("agent", lambda: Agent(run, "agent:a.py:run"))


def test_agents() -> None:
    report = checked_agent(steady)
    assert not report.broken and report["continues"].value == "one row for 2 requests"
    assert report.notes == ("what rows bring was made up: question",)
    report = checked_agent(rewriting)
    assert not report.broken and "becomes up to 2 rows" in report.notes[0]
    report = checked_agent(fragile)
    assert report.broken and "JSONDecodeError" in report.faults[0]
    report = checked_agent(elsewhere)
    assert report.broken and "asked the model nothing" in report.faults[0]


# The command -----------------------------------------------------------------------------------------------------------

FILE = '''
"""Two environments and a list of functions."""
import random

from policyopt.environments.world import Environment, Observation


class Good(Environment):
    turns = 3

    def reset(self, seed, row):
        self.n = random.Random(seed).randint(1, 9)
        return f"say {self.n} or {self.n + 1}"

    def step(self, action):
        return Observation("so", reward=float(action == str(self.n)), done=True)


class Bad(Good):
    def step(self, action):
        return Observation(str(1 / 0))


def double(n: int) -> int:
    """Twice a number."""
    return 2 * n


tools = [double]
'''


def test_the_command(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "my_env.py"
    path.write_text(FILE)
    said = command("check", path)
    assert said.code == 1
    assert "broken: Bad: it raises ZeroDivisionError" in said.out
    assert "Good" in said.out and "tools" in said.out
    assert command("check", f"{path}:Good").code == 0
    assert command("check", f"{path}:Bad").code == 1
    found = json.loads(command("check", f"{path}:Good", "--json").out)
    assert [r["name"] for r in found] == ["Good"] and not found[0]["broken"]
    [report] = check_named("calculator")
    assert not report.broken
    assert rows.embedded().tokenizer.eos_token == END
    said = command("check", f"agent:{tmp_path / 'nowhere.py'}:run")
    assert said.code == 2 and "there is no file" in said.err
