"""Gymnasium environments: ``gymnasium:ID``, and objects that have ``action_space``, ``reset`` and ``step``.

What is observed is told in text: a text as it is, else what ``render`` says in the mode ``ansi``, or ``pprint_grid``, else the values. Of what the policy
wrote the last thing counts that is an action."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyopt.environments.tools import written
from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError, first_line
from policyopt.files import Malformed, parse_json

INSTALL = "pip install 'policyopt[gymnasium]'"
WORDS: Mapping[str, Sequence[str]] = {
    "FrozenLake": ("left", "down", "right", "up"),
    "FrozenLake8x8": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "CliffWalkingSlippery": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pickup", "dropoff"),
    "Blackjack": ("stick", "hit"),
}
"""What the actions of Gymnasium's own environments mean, as their pages say; the environments themselves do not say it."""
_COLOURS = ("gray", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_ESCAPE = re.compile(r"\x1b\[([\d;]{0,32})m")
_LISTS = re.compile(r"\[[^][]{0,4096}\]")
_LAST = 4096
"""Characters at the end of what the policy wrote in which an action is looked for."""


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Callable[[], Environment]:
    """What makes a registered environment (``ID`` or ``package.module:ID``), by ``gymnasium.make(ID, **options)``, told in
    text where it can be; ``actions`` among the options names its actions, separated by commas.

    Raises :class:`~policyopt.errors.UserError` for an id that is none, and for options that it is not made with.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise UserError(f"--env gymnasium:{rest} needs the package gymnasium: {INSTALL}") from error
    given = dict(options)
    words = given.pop("actions", None)
    words = words.split(",") if isinstance(words, str) else words
    try:
        modes = gymnasium.make(rest, **given).metadata.get("render_modes", ())
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        raise UserError(f"--env gymnasium:{rest}: {first_line(error)}") from error
    if "ansi" in modes:
        given.setdefault("render_mode", "ansi")
    return lambda: GymWorld(gymnasium.make(rest, **given), words)


class GymWorld(Environment):
    """A Gymnasium environment for one episode.

    A turn is one action of a ``Discrete`` space (its number, or its word), a ``Text`` space (the whole turn), or a space of arrays
    (a JSON list). A turn without one costs a turn and changes nothing. The reward of an episode is its return, the sum of the
    rewards of its steps.
    """

    def __init__(self, made: Any, words: Sequence[str] | None = None) -> None:
        self.made, self.space = made, made.action_space
        if hasattr(made, "num_envs"):
            raise UserError(f"{type(made).__name__} is many environments at once: name one that is a single one")
        self.kind = type(self.space).__name__
        if self.kind not in ("Discrete", "Text", "MultiDiscrete", "MultiBinary", "Box"):
            raise UserError(
                f"{type(made).__name__} takes actions of the space {self.kind}, which cannot be written in a turn: expected Discrete, "
                "Text, MultiDiscrete, MultiBinary or Box; a gymnasium.ActionWrapper can make one of these of it"
            )
        self.actions = self._named(list(words) if words else meanings(made)) if self.kind == "Discrete" else {}
        spec = getattr(made, "spec", None)
        self.turns = int(getattr(spec, "max_episode_steps", None) or Environment.turns)
        own = str(getattr(spec, "entry_point", "")).startswith("gymnasium.envs.")
        self.instant = own  # type: ignore[misc]  # Gymnasium's own never wait for anything

    def _named(self, words: Sequence[str]) -> dict[str, int]:
        n, start = int(self.space.n), int(self.space.start)
        if words and len(words) != n:
            raise UserError(
                f"--env-options actions: {type(self.made).__name__} has {n} actions, and {len(words)} are named"
            )
        numbers = {str(i): i for i in range(start, start + n)}
        return numbers | {word.strip().lower(): start + i for i, word in enumerate(words)}

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:
        """See :class:`~policyopt.environments.world.Environment`. A mapping ``options`` in the row goes to the environment's own
        ``reset``."""
        options = row.get("options")
        seen, _ = self.made.reset(seed=seed, options=dict(options) if isinstance(options, Mapping) else None)
        text = "\n".join(filter(None, [self._seen(seen), self._asked()]))
        return Observation(text, state=self.state)

    def step(self, action: Action) -> Observation:
        """See :class:`~policyopt.environments.world.Environment`."""
        chosen = self._chosen(action)
        if chosen is None:
            text = f"There is no action in this. {self._asked()}".strip()
            return Observation(text, state=self.state, numbers={"invalid_actions": 1.0})
        seen, reward, terminated, truncated, info = self.made.step(chosen)
        success = info.get("is_success", info.get("success")) if isinstance(info, Mapping) else None
        return Observation(
            self._seen(seen),
            reward=float(reward),
            done=bool(terminated or truncated),
            correct=None if success is None else bool(success),
            state=self.state,
            numbers={"invalid_actions": 0.0},
        )

    def finish(self) -> Observation | float | None:
        """Nothing more: an episode without a step has a return of 0."""
        return Observation(reward=0.0)

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        self.made.close()

    def _seen(self, seen: Any) -> str:
        """What is observed, as text; its values are the state."""
        self.state = _value(seen)
        if isinstance(seen, str):
            return seen
        inner = getattr(self.made, "unwrapped", self.made)
        if callable(drawn := getattr(inner, "pprint_grid", None)):  # MiniGrid draws itself in letters
            self.state = f"{getattr(inner, 'mission', '')}\n{drawn()}".strip()
            return self.state
        if getattr(self.made, "render_mode", None) == "ansi" and isinstance(drawn := self.made.render(), str):
            return uncoloured(drawn).strip("\n")
        return self.state

    def _asked(self) -> str:
        """What to write, in words for the policy."""
        if self.kind == "Text":
            return ""
        if self.kind != "Discrete":
            return f"Write your action as a JSON list, one of the space {self.space}."
        words = [name for name in self.actions if not name.lstrip("-").isdecimal()]
        return "Write one action: " + ", ".join(words or self.actions) + "."

    def _chosen(self, action: Action) -> Any:
        """The action that a turn ends with, as the environment takes it; ``None`` where there is none."""
        if self.kind == "Text":
            text = action.strip()
            return text if self.space.contains(text) else None
        said = action[-_LAST:]
        if self.kind == "Discrete":
            longest = sorted(map(re.escape, self.actions), key=len, reverse=True)
            found = re.findall(rf"(?<![\w.-])(?:{'|'.join(longest)})(?![\w-]|\.\d)", said.lower())
            return self.actions[found[-1]] if found else None
        lists = _LISTS.findall(said)
        try:
            import numpy

            values = numpy.asarray(parse_json(lists[-1]), dtype=self.space.dtype).reshape(self.space.shape)
        except (IndexError, Malformed, TypeError, ValueError, OverflowError):
            return None
        return values if self.space.contains(values) else None


def meanings(made: Any) -> list[str]:
    """What the actions of an environment are called, where it says so (``get_action_meanings``, an enumeration ``actions``), or its
    page does; else nothing."""
    inner = getattr(made, "unwrapped", made)
    if callable(say := getattr(inner, "get_action_meanings", None)):
        return [str(word) for word in say()]
    named = getattr(inner, "actions", None)
    if isinstance(named, type) and issubclass(named, enum.Enum):
        return [member.name for member in named][: int(made.action_space.n)]
    spec = getattr(made, "spec", None)
    return list(WORDS.get(getattr(spec, "name", ""), ())) if getattr(spec, "namespace", "") is None else []


def uncoloured(text: str) -> str:
    """A text without the escapes of a terminal: what stands out by its colour is put between ``<red>`` and ``</red>``."""

    found: list[str] = []
    open_ones: list[str] = []
    end = 0
    for match in _ESCAPE.finditer(text):
        found.append(text[end : match.start()])
        end = match.end()
        codes = [int(c) for c in match[1].split(";") if c]
        if not any(codes):
            found += [f"</{colour}>" for colour in open_ones[-1:] if colour]
            del open_ones[-1:]
            continue
        open_ones.append(next((_COLOURS[c % 10] for c in codes if 30 <= c < 50 and c % 10 < 8), ""))
        found += [f"<{colour}>" for colour in open_ones[-1:] if colour]
    return "".join([*found, text[end:]])


def _value(seen: Any) -> str:
    """An observation that is no text, as text."""
    if isinstance(seen, Mapping):
        return "\n".join(f"{name}: {_value(x)}" for name, x in seen.items())
    if isinstance(seen, tuple):
        return f"({', '.join(map(_value, seen))})"
    return written(seen.tolist() if hasattr(seen, "tolist") else seen)
