"""One contender in a process of its own: it takes its turns when the parent says so.

Messages are lines of JSON. ``{"load": workload, "folder": ...}`` is answered by what there is to know of the model, ``{"step": 3}``
by the seconds and the peak of that step, ``{"unload": true}`` by nothing: the next workload may follow. An error is
answered by ``{"error": ...}`` and ends the process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed import memory

if TYPE_CHECKING:
    from speed.workloads import Workload

Turn = Callable[[dict[str, float] | None], "int | None"]

TRL = ("speed.peer", "trl.trainer.grpo_trainer")
IMPORTS = {"floor": ("speed.floor",), "ours": ("speed.ours",), "trl": TRL, "trl-static": TRL, "trl-continuous": TRL}
"""What every contender imports before its memory is measured; those of the name ``trl-`` are ways of :mod:`speed.peer`."""


class Channel:
    """Lines of JSON to and from the parent, whatever else is printed meanwhile."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def send(self, message: dict[str, Any]) -> None:
        """To the parent."""
        self.out.write(json.dumps(message) + "\n")
        self.out.flush()

    def receive(self) -> dict[str, Any]:
        """From the parent; empty where it is gone."""
        line = sys.stdin.readline()
        return json.loads(line) if line else {}


def make(name: str, workload: Workload, folder: str, dtype: str, scratch: Path) -> Any:
    """A contender with its model."""
    import torch

    if name == "floor":
        from speed.floor import Floor

        torch.manual_seed(0)
        return Floor(workload, folder, getattr(torch, dtype))
    if name == "ours":
        from speed.ours import Ours

        return Ours(workload, folder, dtype, scratch)
    from speed.peer import Peer

    return Peer(workload, folder, dtype, scratch, name)


def serve(name: str, channel: Channel) -> None:
    """Load and step as the parent asks, until it is gone."""
    if name not in IMPORTS:
        raise ValueError(f"there is no contender {name}; known: {', '.join(IMPORTS)}")
    for module in IMPORTS[name]:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as scratch:
        count = 0
        while asked := channel.receive():
            if "load" in asked:
                count += 1
                trained(name, channel, asked, Path(scratch) / str(count))


def trained(name: str, channel: Channel, asked: dict[str, Any], scratch: Path) -> None:
    """Carry out one workload."""
    from speed.workloads import Workload

    workload = Workload(**asked["load"])
    if workload.lora:
        importlib.import_module("peft")
    memory.trim()
    before = memory.now()
    contender = make(name, workload, asked["folder"], asked["dtype"], scratch)
    begun = {"process": before, "held": contender.held() / 2**20}
    if name == "floor":
        from speed.arithmetic import Sizes

        sizes = Sizes.of(contender.whole if workload.lora else contender.model, workload.lora)
        begun |= {"sizes": vars(sizes), "prompt": contender.prompt.shape[1]}
    channel.send(begun)

    def turn(found: dict[str, float] | None) -> int | None:
        if found is not None:
            found["peak"] = memory.peak()
            if workload.large:
                memory.trim()
            channel.send(found)
        message = channel.receive()
        memory.reset()
        return message.get("step")

    if hasattr(contender, "serve"):
        contender.serve(turn)
    else:
        found = None
        while (number := turn(found)) is not None:
            found = contender.step(number)
    if hasattr(contender, "close"):
        contender.close()


def main(name: str) -> None:
    """The whole life of the process."""
    channel = Channel()
    try:
        serve(name, channel)
    except BaseException as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        channel.send({"error": f"{type(error).__name__}: {first}"[:300]})
        raise SystemExit(1) from None
