"""Decoding steps of fixed shapes: their inputs and outputs lie where they lay before, so that a CUDA device can go through one again
without being told its operations, as a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policyopt.errors import first_line

STEPS = 64
"""Shapes that are kept; those that were used least lately go."""


@dataclass(frozen=True)
class Seats:
    """Which rows attend to which blocks: those of one block side by side, as many places for each."""

    blocks: int
    row: Tensor
    """[C * n] the row in each place; any row where there are fewer."""
    place: Tensor
    """[B] the place of each row; any place for rows that have a copy."""
    absent: Tensor | None
    """[B, 1, 1] the rows that have a copy; ``None`` where there are none."""
    mask: Tensor | None
    """[C, 1, 1, P] minus infinity behind the end of each block; ``None`` where all are of one length."""
    length: int
    """P, of the longest block."""


@dataclass(frozen=True)
class Inputs:
    """What a step reads beside weights, keys and values: one token for each of B rows."""

    token: Tensor
    """[B]"""
    at: Tensor
    """[B] where it goes among the row's own keys."""
    where: Tensor
    """[B] where it stands in the row's text."""
    end: int
    """How many of their own keys the rows look at; what lies behind ``at`` is hidden."""
    level: bool
    """All of ``at`` are the last of these."""
    seats: Seats | None
    """Of the rows that attend to blocks besides; ``None`` where none does."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in order."""
        s = self.seats
        beside = () if s is None else (s.row, s.place, s.absent, s.mask)
        return [x for x in (self.token, self.at, self.where, *beside) if x is not None]

    @property
    def shape(self) -> tuple[object, ...]:
        """What a step is made for."""
        return (self.end, self.level, *(x.shape for x in self.tensors))


Run = Callable[[Inputs], Tensor]
"""The hidden states [B, H] of the tokens, whose keys and values are written down."""


class Step:
    """A step of one shape, again and again: each time the rows are one token further."""

    def __init__(self, steps: Steps, inputs: Inputs) -> None:
        self.inputs, self._steps = inputs, steps
        self._hidden: Tensor | None = None
        self._replay: Callable[[], None] | None = None

    def __call__(self, token: Tensor) -> Tensor:
        """Pass tokens [N] for the first N rows. Returns their hidden states [N, H], which hold until the next call."""
        self.inputs.token[: len(token)] = token
        if self._replay is not None:
            self._replay()
        elif self._hidden is None or (found := self._steps.recorded(self._once)) is None:
            self._hidden = self._once()  # at first always: what is made only once is not to be recorded
        else:
            self._replay, self._hidden = found
            self._replay()
        assert self._hidden is not None
        return self._hidden[: len(token)]

    def _once(self) -> Tensor:
        hidden = self._steps.run(self.inputs)
        self.inputs.at.add_(1)
        self.inputs.where.add_(1)
        return hidden


class Steps:
    """Steps by their shapes, each made once.

    On CUDA a step is recorded as a graph when it comes a second time. A graph reads weights, keys and values where they lay
    when it was recorded; ``stamp`` says where, and all are made anew when it is another one. Without
    ``graphs``, and where none can be made, the same operations run one by one; ``note`` says why none can.
    """

    def __init__(self, run: Run, device: torch.device, graphs: bool = True) -> None:
        self.run, self.note = run, ""
        self._records = graphs and device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._records else None
        self._made: dict[tuple[object, ...], Step] = {}
        self._stamp: tuple[int, ...] = ()

    def filled(self, inputs: Inputs, stamp: tuple[int, ...]) -> Step:
        """The step for inputs of such a shape, with these inputs."""
        if stamp != self._stamp:
            self._made.clear()
            self._stamp = stamp
        shape = inputs.shape
        step = self._made.pop(shape, None)
        if step is None:
            step = Step(self, inputs)
        for mine, new in zip(step.inputs.tensors, inputs.tensors, strict=True):
            mine.copy_(new)
        self._made[shape] = step
        if len(self._made) > STEPS:
            del self._made[next(iter(self._made))]
        return step

    def recorded(self, once: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor] | None:
        """What runs a function again, and where its result will lie; ``None`` where the device does not record it."""
        if not self._records:
            return None
        try:
            return record(once, self._pool)
        except Exception as error:  # whatever of a model, a driver or a version does not go into a graph
            self._records = False
            self.note = f"no CUDA graph of a decoding step can be made ({first_line(error, 200)}): it draws more slowly"
            return None


def record(once: Callable[[], Tensor], pool: object) -> tuple[Callable[[], None], Tensor]:
    """A function as a CUDA graph, which is recorded and not yet run."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):  # type: ignore[arg-type]
        out = once()
    return graph.replay, out


def rounded(number: int, least: int = 1) -> int:
    """The next of few sizes, four for each doubling, and multiples of the least."""
    step = max(least, 1 << max(0, (number - 1).bit_length() - 3))
    return -(-number // step) * step
