"""What an environment does, found out by playing it: nothing is trained, and what it does wrong is said in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from policyopt.environments.agent import Agent
from policyopt.environments.names import Make
from policyopt.errors import UserError, first_line
from policyopt.lens.check.report import Report
from policyopt.lens.check.worlds import agents, apart, play, rows, said
from policyopt.lens.check.worlds.tell import Told, reported
from policyopt.models.text import Text

__all__ = ["check_world"]

MEASURES: tuple[Callable[[play.Played], Told], ...] = (
    said.raises,
    said.blocks,
    said.seeded,
    apart.shared,
    said.tools,
    said.words,
    said.ends,
    said.rewards,
)
"""What is asked of what was played; each says what it found."""


def check_world(name: str, make: Make, text: Text | None = None) -> Report:
    """Play some episodes of an environment with made-up actions, and say what is wrong with it. ``text`` are the words of the model that
    it is for; unset: those of the embedded one.

    Everything that is said of it follows from fixed seeds. Calls that take longer than :data:`~policyopt.lens.check.worlds.play.PATIENCE`
    seconds are given up.
    """
    try:
        made = make()
    except UserError as error:
        return Report(name, faults=(f"{name}: {error}",))
    except TypeError as error:
        return Report(name, notes=(f"not checked: it cannot be made without arguments ({error})",))
    except Exception as error:  # somebody else's program
        return Report(name, faults=(f"{name} cannot be made: {type(error).__name__}: {first_line(error)}",))
    made.close()
    if isinstance(made, Agent):
        return agents.check_agent(name, cast(Callable[[], Agent], make), text or rows.embedded())
    played = play.played(make)
    if play.hangs(played.traces):
        return reported(name, [said.blocks(played)], ("it was not played to the end, so nothing else is known of it",))
    told = [measure(played) for measure in MEASURES]
    told += [rows.masked(played, text or rows.embedded()), rows.continues(played, text or rows.embedded())]
    notes: tuple[str, ...] = ()
    if played.filled:
        notes += (f"what rows bring was made up: {', '.join(sorted(played.filled))}",)
    return reported(name, told, notes)
