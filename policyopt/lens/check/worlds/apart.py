"""Whether episodes keep out of each other's way: two that take turns have to say what each says alone."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from policyopt.environments.objects import ObjectWorld
from policyopt.environments.world import Environment
from policyopt.lens.check.worlds.play import Actor, Played
from policyopt.lens.check.worlds.said import parted, seeded, shown
from policyopt.lens.check.worlds.tell import Told


def shared(played: Played) -> Told:
    """Whether two episodes that take turns give what each gives alone."""
    key, name = "shared", "episodes share nothing"
    before = holdings(played.sample)
    traces = asyncio.run(_both(played))
    changed = sorted(n for n, x in holdings(played.sample).items() if before.get(n) != x)
    named = f" ({', '.join(changed)} changed meanwhile)" if changed else ""
    if seeded(played).broken:
        if changed:
            return Told(
                key, name, f"an episode leaves something behind for the next one{named}: keep what belongs to an episode in self, and set "
                "it in reset", broken=True,
            )  # fmt: skip
        return Told(key, name, value="not known: the same seed gives other episodes")
    for alone, mixed in zip(played.traces, traces):
        if (turn := parted(alone, mixed)) is not None:
            return Told(
                key, name, f"beside another episode turn {turn} gives {shown(mixed, turn)}, alone {shown(alone, turn)}{named}: episodes "
                "run at the same time, so keep what belongs to one in self, and set it in reset", broken=True,
            )  # fmt: skip
    return Told(key, name)


async def _both(played: Played) -> list[Any]:
    from policyopt.lens.check.worlds.play import together

    return await together([Actor(played.make, seed) for seed in range(2)])


def holdings(made: Environment) -> dict[str, str]:
    """What the classes of an environment and their files hold that all episodes share, by name, as text."""
    inner: Any = made.object if isinstance(made, ObjectWorld) else made
    found: dict[str, str] = {}
    for cls in type(inner).__mro__:
        if cls.__module__.split(".")[0] in ("builtins", "policyopt", "abc"):
            continue
        found |= {f"{cls.__name__}.{n}": _text(x) for n, x in vars(cls).items() if _plain(n, x)}
        module = sys.modules.get(cls.__module__)
        found |= {n: _text(x) for n, x in vars(module).items() if _plain(n, x)} if module is not None else {}
    for tool in made.tools if inner is made else ():
        module = sys.modules.get(getattr(tool.call, "__module__", ""))
        if module is not None and not module.__name__.startswith("policyopt."):
            found |= {n: _text(x) for n, x in vars(module).items() if _plain(n, x)}
    return found


def _plain(name: str, x: Any) -> bool:
    return not name.startswith("__") and isinstance(x, int | float | str | list | dict | set | tuple | bytearray)


def _text(x: Any) -> str:
    try:
        return repr(x)[:100_000]
    except Exception:  # of somebody else's
        return ""
