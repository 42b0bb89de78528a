"""Services that the metrics of a run are sent to beside its own files: wandb, trackio, or one of the user's own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from policyopt.errors import UserError, first_line, nearest
from policyopt.files import read_json, write_whole
from policyopt.qualified import is_own, lookup, need_file, split

if TYPE_CHECKING:
    from policyopt.training.config import TrainConfig


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run."""

    project: str
    name: str
    id: str
    """Letters and digits that no other run has, and that stay when the run is resumed."""
    config: Mapping[str, Any]
    """What ``config.yaml`` holds."""
    folder: Path


class Tracker(Protocol):
    """Takes the metrics of a run. It is made from a :class:`TrackedRun`; one whose ``id`` it knows is continued.

    It may raise whatever it likes: the run says so once and goes on without it.
    """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step; each step comes once, in order."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """End: with what ``summary.json`` holds, or with nothing where the run has not reached its end."""


class Wandb:
    """Weights & Biases. Its own environment says how: ``WANDB_API_KEY``, ``WANDB_ENTITY``, ``WANDB_MODE=offline``."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._run = wandb.init(
            project=run.project, name=run.name, id=run.id, resume="allow", config=dict(run.config), dir=run.folder,
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self.place = f"offline, wandb sync {Path(self._run.dir).parent}" if self._run.offline else self._run.url

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(numbers(summary))
        self._run.finish()


class Trackio:
    """trackio. It keeps runs on this machine (``TRACKIO_DIR``), or in a space (``TRACKIO_SPACE_ID``); ``trackio show`` opens
    them. Runs go by name there, so that a piece of the run's id is part of it."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):  # a greeting of several lines
            self._run = trackio.init(
                project=run.project, name=f"{run.name}-{run.id[:6]}", config=dict(run.config), resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        self._finish = trackio.finish
        self.place = f"trackio show --project {run.project}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {"wandb": Wandb, "trackio": Trackio}
"""By name; each is an extra of the package under the same name."""


def need_trackers(names: Iterable[str]) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a name that is no tracker, and for one whose package is missing."""
    for name in names:
        if is_own(name) and split(name)[1]:
            need_file(name)
        elif name not in TRACKERS:
            raise UserError(
                f"--track {name}: no tracker is called so; {nearest(name, TRACKERS)}; one of your own is my.py:NAME"
            )
        elif importlib.util.find_spec(name) is None:
            raise UserError(
                f"--track {name}: the package {name} is not installed: pip install 'policyopt[{name}]', or leave --track away"
            )


class Trackers:
    """The trackers of a run. None of them can end it: one that fails is told of once and left out from then on."""

    def __init__(self, names: Iterable[str], run: TrackedRun, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._live: dict[str, Tracker] = {}
        self.sent = -1
        """The last step that they have seen; earlier ones, which a resumed run takes again, are not sent."""
        self.summary: Mapping[str, Any] = {}
        """What they are told at the end."""
        for name in names:
            make: Callable[[TrackedRun], Tracker] = lookup(name) if is_own(name) else TRACKERS[name]
            self._try(name, self._start, name, make, run)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Send the metrics of a step, those that are numbers."""
        if step <= self.sent:
            return
        self.sent = step
        for name, tracker in list(self._live.items()):
            self._try(name, tracker.log, step, numbers(values))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._live.items()):
            self._try(name, tracker.finish, self.summary)

    def _start(self, name: str, make: Callable[[TrackedRun], Tracker], run: TrackedRun) -> None:
        self._live[name] = tracker = make(run)
        if place := getattr(tracker, "place", None):
            self._tell(f"{name}: {place}")

    def _try(self, name: str, act: Callable[..., None], *values: Any) -> None:
        try:
            act(*values)
        except (Exception, SystemExit) as error:
            self._live.pop(name, None)
            self._tell(f"{name} failed ({first_line(error)}): the run goes on without it; its files hold everything")


@contextlib.contextmanager
def tracked(config: TrainConfig, folder: Path, tell: Callable[[str], None]) -> Iterator[Trackers]:
    """The trackers that a configuration names, none where it names none; a resumed run continues theirs."""
    run = TrackedRun(
        config.tracking.project, config.tracking.name or folder.resolve().name,
        tracked_id(folder) if config.track else "", config.to_dict(), folder,
    )  # fmt: skip
    with Trackers(config.track, run, tell) as trackers:
        yield trackers


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a mapping and in the mappings in it, which go by ``outer/inner``."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": x for inner, x in numbers(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def tracked_id(folder: Path) -> str:
    """The id of the run in a folder, which goes with the folder; made where there is none yet."""
    path = folder / "tracking.json"
    with contextlib.suppress(UserError, KeyError, TypeError):
        found = read_json(path, 1 << 12)["id"]
        if isinstance(found, str) and found.isalnum():
            return found
    made = secrets.token_hex(8)
    write_whole(path, json.dumps({"id": made}))
    return made
