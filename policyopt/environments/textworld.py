"""TextWorld games: ``textworld:GAME.z8``, ``textworld:FOLDER`` of such games, and ``textworld:make``, which makes some and keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from policyopt import cache
from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError, nearest

INSTALL = "pip install 'policyopt[textworld]'"
SUFFIXES = (".z8", ".ulx")
MADE: Mapping[str, int] = {"rooms": 2, "objects": 4, "quest": 2, "games": 8, "first": 1}
"""What ``textworld:make`` takes, and what it is without: sizes of a game, how many, and the seed of the first one."""
LONGEST = 200
"""Characters of a command; what is beyond is not sent to the game."""
_DRAWN = re.compile(r"^(?=.*[\\|_$])[\\$|_/>< \t]+$|^>?[ \t]*-= [^=\n]{1,80} =-\d+/\d+[ \t]*$", re.MULTILINE)
"""Lines of the name of TextWorld, drawn in letters, with which games begin, and the line of status with which answers end."""


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Callable[[], Environment]:
    """What plays the game of a file, one of the games of a folder, or one of those that are made.

    An episode's row may name its game (a column ``game``: a number from 0); without it the seed falls on one. Options: ``hints`` tells
    the policy in every turn which commands mean something; those of ``textworld:make`` are in :data:`MADE`. Raises
    :class:`~policyopt.errors.UserError` where there is no game, and for options that there are not.
    """
    try:
        import textworld  # noqa: F401
    except ImportError as error:
        raise UserError(f"--env textworld:{rest} needs the package textworld: {INSTALL}") from error
    given = dict(options)
    hints = bool(given.pop("hints", False))
    known = ["hints", *(MADE if rest == "make" else ())]
    for option in given:
        if option not in known:
            raise UserError(
                f"--env-options {option}: textworld:{rest} takes {', '.join(known)}; {nearest(option, known)}"
            )
    games = made(given) if rest == "make" else found(Path(rest))
    return lambda: Game(games, hints)


def found(path: Path) -> list[str]:
    """The games at a path."""
    games = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not games or not games[0].is_file() or games[0].suffix not in SUFFIXES:
        raise UserError(
            f"--env textworld:{path}: no game is there; expected a file {' or '.join(SUFFIXES)}, a folder with such files, or textworld:make"
        )
    return list(map(str, games))


def made(options: Mapping[str, Any]) -> list[str]:
    """Games with a quest, from seeds; made once, in some seconds each, and kept in the user's cache."""
    import textworld

    said = {**MADE, **options}
    for name, x in said.items():
        if not isinstance(x, int) or isinstance(x, bool) or x < 1:
            raise UserError(f"--env-options {name}: {x!r} is no whole number of at least 1")
    size = "-".join(f"{name}{said[name]}" for name in ("rooms", "objects", "quest"))
    games = []
    for seed in range(said["first"], said["first"] + said["games"]):
        path = cache.folder() / "textworld" / f"{textworld.__version__}-{size}" / f"{seed}.z8"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            asked = textworld.GameOptions()
            asked.seeds, asked.path = seed, str(path)
            asked.nb_rooms, asked.nb_objects, asked.quest_length = said["rooms"], said["objects"], said["quest"]
            textworld.make(asked)
        games.append(str(path))
    return games


class Game(Environment):
    """A game of TextWorld for one episode.

    A turn is one command: its last line that is not empty. What the game answers is read next. A turn is worth what it moves the
    score by, over the highest score that there is, so that a game that is won is worth 1. Where the policy is and what it carries
    are the state. The game itself draws nothing by chance.
    """

    turns = 24
    instant: ClassVar[bool] = True

    def __init__(self, games: Sequence[str], hints: bool = False) -> None:
        self.games, self.hints, self.score = games, hints, 0.0

    def reset(self, seed: int, row: Mapping[str, Any]) -> Observation:
        """See :class:`~policyopt.environments.world.Environment`."""
        import textworld

        chosen = row.get("game", seed)
        if not isinstance(chosen, int) or ("game" in row and not 0 <= chosen < len(self.games)):
            raise ValueError(f"the column 'game' of the row is {chosen!r}, expected a number below {len(self.games)}")
        wanted = {
            "won", "lost", "score", "max_score", "description", "inventory", "admissible_commands"
        } - (set() if self.hints else {"admissible_commands"})  # fmt: skip
        infos = textworld.EnvInfos(**dict.fromkeys(wanted, True))
        self.game = textworld.start(self.games[chosen % len(self.games)], infos)
        return self._seen(self.game.reset())

    def step(self, action: Action) -> Observation:
        """See :class:`~policyopt.environments.world.Environment`."""
        lines = [line.strip() for line in action.splitlines() if line.strip()]
        if not lines:
            return Observation("Write a command.", state=self.state, reward=0.0)
        seen, _, done = self.game.step(lines[-1][:LONGEST])
        return self._seen(seen, bool(done))

    def finish(self) -> Observation:
        """An episode without a turn has earned nothing."""
        return Observation(reward=0.0)

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        if hasattr(self, "game"):
            self.game.close()

    def _seen(self, seen: Any, done: bool = False) -> Observation:
        text = "\n".join(line.rstrip() for line in _DRAWN.sub("", seen.feedback or "").splitlines())
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        if self.hints:
            text += f"\nYou can: {', '.join(seen.admissible_commands)}."
        score = (seen.score or 0) / max(seen.max_score or 1, 1)
        moved, self.score = score - self.score, score
        self.state = f"{seen.description}\n{seen.inventory}"
        over = done or bool(seen.won) or bool(seen.lost)
        return Observation(text, reward=moved, done=over, correct=bool(seen.won) if over else None, state=self.state)
