"""Names for pieces of work, so that it can be said where time goes; nothing is measured until somebody asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator, contextmanager

Path = tuple[str, ...]
"""The names of a piece of work and of those that it is part of, from outside in."""

_meter: Meter | None = None


class Meter:
    """Adds up what counters say, piece of work by piece of work: each has what passed while it was the innermost.

    ``read`` gives counters by name, which never fall, such as seconds; ``found`` holds by how much each rose in a piece of work,
    ``times`` how often it began.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self.read, self.path, self.last = read, Path(), read()
        self.found: defaultdict[Path, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.times: Counter[Path] = Counter()

    def move(self, path: Path) -> None:
        """What passed until now belongs to the present path; what follows, to another one."""
        now, sums = self.read(), self.found[self.path]
        for name, x in now.items():
            sums[name] += x - self.last[name]
        self.path, self.last = path, now


class span(ContextDecorator):
    """A named piece of work: ``with span("draw"): ...``, or ``@span("draw")`` over a function that is no coroutine."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        if _meter is not None:
            _meter.move(path := (*_meter.path, self.name))
            _meter.times[path] += 1

    def __exit__(self, *_: object) -> None:
        if _meter is not None:
            _meter.move(_meter.path[:-1])


@contextmanager
def measured(meter: Meter) -> Iterator[Meter]:
    """Let a meter follow the pieces of work until the end of a block."""
    global _meter
    before, _meter = _meter, meter
    try:
        yield meter
    finally:
        meter.move(())
        _meter = before
