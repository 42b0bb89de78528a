"""Between two turns of an episode: what a program may put in the place of the context, and where an episode is gone on from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from policyopt.items import Message
from policyopt.sources.response import Response


@dataclass
class Desk:
    """What lies before the policy when it has had a turn and the environment has answered."""

    wrote: str
    """What the policy wrote in the turn."""
    said: tuple[Message, ...]
    """What the environment said to it, and the policy has not read yet."""
    used: int
    """Tokens of the row so far."""
    heard: int
    """Tokens that ``said`` takes."""
    budget: int
    """The most tokens of a row."""
    number: int
    """How often the context was rewritten so far."""
    ask: Callable[[Sequence[Message], int], Awaitable[str | None]]
    """``await ask(messages, most)``: the policy reads messages behind the row and answers them in at most so many tokens, which end the row
    and are trained on; ``None``, and nothing is done, where there is no room for one token. The context has to be rewritten then."""
    carried: dict[str, str] = field(default_factory=dict)
    """What a program remembers for the episode, by names of its own."""


Rewrite = Callable[[Desk], Awaitable[Sequence[Message] | None]]
"""What the policy reads behind the question in a new context, which begins a new row; ``None``: it goes on in the one that it has;
an empty one: the episode is over, cut off."""


@dataclass(frozen=True)
class Begun:
    """A place inside of an episode that was played: it is played on from there, with what was said before as text of others.

    The environment begins alike and is told of the turns before once more. Needs one that says the same again.
    """

    response: Response
    turn: int
    """Number of the turn that is written anew."""
    back: int = 0
    """How many tokens before the place where its first call shows itself it is cut; at its beginning at most."""
    turns: int = 1
    """The most turns from there on."""


def turn_starts(response: Response) -> list[int]:
    """The index of the first token of each turn."""
    ends: list[int] = [int(end) for end in response.columns.get("turn_end", [])]  # type: ignore[union-attr]
    own = response.own or [True] * len(response.tokens)
    starts = []
    for before in [-1, *ends[:-1]]:
        starts.append(next((i for i in range(before + 1, len(own)) if own[i]), len(own)))
    return starts[: len(ends)]


def last_rows(rows: Sequence[Response]) -> list[Response]:
    """The last row of each episode, of rows in the order in which they were played."""
    return [row for row, then in zip(rows, [*rows[1:], None], strict=True) if then is None or then.turn == 0]
