"""What an environment is: it is reset for an episode, told what the policy did, and says what the policy reads next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from policyopt.environments.calls import Call
from policyopt.environments.outside import Outside
from policyopt.environments.tools import Tool
from policyopt.items import Message

LONGEST = 20_000
"""Characters of an observation; what is beyond is cut, and the policy is told so."""


@dataclass(frozen=True)
class Observation:
    """What an environment says after it was reset, and after each action."""

    text: str = ""
    """What the policy reads next, as a message of the user."""
    messages: tuple[Message, ...] = ()
    """The same as several messages, such as the results of tools; takes the place of ``text``."""
    reward: float | None = None
    """What the action before it was worth; ``None`` where nothing is said of it."""
    spans: tuple[tuple[int, int, float], ...] = ()
    """What spans of the action were worth beside that: (begin, end, reward) in characters; the reward falls on the last token that
    begins before the end."""
    done: bool = False
    """The episode is over."""
    correct: bool | None = None
    """Whether the goal was reached; ``None`` where that is not known (yet)."""
    state: str | None = None
    """What the policy stands before: actions that are taken in the same state of the same task can be compared. ``None``: the
    text itself."""
    duration: float | None = None
    """How long the action took, in the world's own time."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What else was counted in this turn, by name; the log has the sums over the episode, and so have parts that read
    ``component[NAME]``."""
    reason: str = ""
    """Why it was worth that, in a few words."""

    def told(self) -> tuple[Message, ...]:
        """What the policy reads, as messages; what is too long is cut."""
        said = self.messages or (({"role": "user", "content": self.text},) if self.text else ())
        return tuple({**m, "content": cut(m["content"])} for m in said)


def cut(text: str) -> str:
    """A text as far as a policy gets to read it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n[{len(text) - LONGEST} more characters are left out]"


class Action(str):
    """What the policy wrote in a turn, as text, with the calls of tools that were found in it."""

    calls: tuple[Call, ...]
    faults: tuple[str, ...]
    """What is wrong with calls that could not be read, in words for the policy."""

    def __new__(cls, text: str, calls: Sequence[Call] = (), faults: Sequence[str] = ()) -> Action:
        """A text with what was found in it."""
        made = super().__new__(cls, text)
        made.calls, made.faults = tuple(calls), tuple(faults)
        return made


class Environment:
    """A world for one episode. Subclass it, or bring an object of another kind (:mod:`policyopt.environments.names`).

    A new one is made for every episode, so that nothing is shared between episodes unless its class does so. Its methods may be
    ``async``; others run in a thread of the episode's own, where a call that takes too long is given up, unless ``instant`` says
    that they never wait for anything.
    """

    instant: ClassVar[bool] = False
    """It never waits for anything: it is called in the event loop itself."""
    announced: ClassVar[bool] = True
    """The model is told of its tools; without that it has to know them."""
    tools: Sequence[Tool] = ()
    """What the policy may call; the model's chat template tells it about them."""
    turns: int = 16
    """The most turns of an episode, unless the run says otherwise."""
    outside: Outside = Outside(instant=True)
    """Calls what may wait or fail, ``await self.outside(function, ...)``, within the time that a run gives it."""

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        """Begin an episode. The same seed begins the same one.

        ``row`` is what the task's row brings beside its prompt, by the names of its columns. What is returned is read by the
        policy behind the prompt.
        """
        raise NotImplementedError

    def step(self, action: Action) -> Observation | str:
        """Carry out what the policy wrote."""
        raise NotImplementedError

    def finish(self) -> Observation | float | None:
        """Asked once when an episode has ended, however it did: what is left to say of it, such as a reward for the end state.
        Nobody reads its text."""
        return None

    def close(self) -> None:
        """Let go of what the episode held."""


def observed(said: Any) -> Observation:
    """What an environment returned, as an observation.

    Raises ``TypeError`` for what is none, and ``ValueError`` for a reward or a number that is not finite.
    """
    if said is None or isinstance(said, str):
        return Observation(said or "")
    if isinstance(said, bool | int | float):
        said = Observation(reward=float(said))
    if not isinstance(said, Observation):
        raise TypeError(f"the environment returned {type(said).__name__}, expected an Observation or a text")
    for name, x in (
        ("reward", said.reward),
        ("duration", said.duration),
        *said.numbers.items(),
        *(("spans", x) for _, _, x in said.spans),
    ):
        if x is not None and not math.isfinite(x):
            raise ValueError(f"{name} is {x}, expected a finite number")
    return said
