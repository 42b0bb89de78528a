"""Where the time and the memory of a run went, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.console
from rich import box
from rich.table import Table

PROFILE = "profile.json"
"""What a profiled run leaves in its folder."""

SHOWN = 0.002
"""Share of the whole from which on a piece of work has a line."""


@dataclass
class Work:
    """A piece of work with all that is part of it."""

    path: tuple[str, ...]
    seconds: float = 0.0
    flops: float = 0.0
    floor: float = 0.0
    counted: float = 0.0
    """Seconds of what has a floor: products of matrices."""


def works(spans: Sequence[Mapping[str, Any]]) -> list[Work]:
    """Pieces of work before their parts, the largest first; what they do beside their parts is a part "(rest)"."""
    found: dict[tuple[str, ...], Work] = {}
    inner = {tuple(row["path"][:-1]) for row in spans}
    for row in spans:
        path = tuple(row["path"])
        full = (*path, "(rest)") if path in inner else path
        for end in range(1, len(full) + 1):
            work = found.setdefault(full[:end], Work(full[:end]))
            work.seconds += row["seconds"]
            work.flops += row["flops"]
            work.floor += row["floor"]
            work.counted += row["seconds"] if row["flops"] else 0.0

    def below(path: tuple[str, ...]) -> Iterator[Work]:
        parts = [w for p, w in found.items() if p[:-1] == path]
        for work in sorted(parts, key=lambda w: (w.path[-1] == "(rest)", -w.seconds)):
            yield work
            yield from below(work.path)

    return list(below(()))


def profile_tables(folder: Path, out: rich.console.Console | None = None) -> None:
    """Print the profile that lies in the folder of a run."""
    found, out = json.loads((folder / PROFILE).read_text()), out or rich.console.Console(highlight=False)
    out.print(time_table(found))
    out.print(token_table(found["tokens"], found["steps"]))
    out.print(memory_table(found["memory"]))


def time_table(found: Mapping[str, Any]) -> Table:
    """Pieces of work of a step, then those outside of steps: seconds, share, and how they compare with their products alone."""
    steps, every = found["steps"], works(found["spans"])
    table = Table(box=box.SIMPLE_HEAD, title=f"Time, mean of {steps} steps", title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("seconds", "share", "GFLOP", "GFLOP/s", "floor", "x floor"):
        table.add_column(column, justify="right")
    whole = {w.path[0]: w.seconds for w in every if len(w.path) == 1}
    for work in every:
        share, times = work.seconds / max(whole[work.path[0]], 1e-12), steps if work.path[0] == "step" else 1
        if share * whole[work.path[0]] < SHOWN * sum(whole.values()):
            continue
        products = ["", "", "", ""]
        if work.floor:
            products = [
                f"{work.flops / times / 1e9:.3g}", f"{work.flops / work.counted / 1e9:.3g}", f"{work.floor / times:.4f}",
                f"{work.seconds / work.floor:.1f}",
            ]  # fmt: skip
        name = "  " * (len(work.path) - 1) + work.path[-1]
        table.add_row(name, f"{work.seconds / times:.4f}", f"{share:.0%}" if len(work.path) > 1 else "", *products)
    table.caption = (
        f"{found['device']}, {found['dtype']}, {found['threads']} threads. The floor is what the products of matrices alone "
        "take here; what is not in steps is of the whole run."
    )
    return table


def token_table(tokens: Mapping[str, Mapping[str, float]], steps: int) -> Table:
    """Tokens that passed the policy against those that had to: what rows begin with in common is one."""
    table = Table(box=box.SIMPLE_HEAD, title="Tokens of a step", title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("needed", "computed", "ratio"):
        table.add_column(column, justify="right")
    for name, row in tokens.items():
        if row["needed"] and row["computed"]:
            ratio = f"{row['computed'] / row['needed']:.2f}"
            table.add_row(name, f"{row['needed'] / steps:,.0f}", f"{row['computed'] / steps:,.0f}", ratio)
    return table


def memory_table(memory: Mapping[str, int]) -> Table:
    """The peak, and what it is made of."""
    table = Table(box=box.SIMPLE_HEAD, title="Memory at the peak", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("MiB", justify="right")
    for name, n in memory.items():
        table.add_row("activations and the rest" if name == "rest" else name, f"{n / 2**20:,.0f}")
    return table
