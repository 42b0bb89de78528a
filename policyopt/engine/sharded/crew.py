"""The trainer ranks as the driver sees them: whoever starts them (torchrun, Ray) gives a crew."""

from __future__ import annotations

from typing import Any, Protocol

from policyopt.errors import UserError

ALIKE = (UserError, KeyError, ValueError, OSError)
"""Errors that every rank comes to by the same arguments, or that all ranks tell each other, so that nobody waits for anybody."""


class Crew(Protocol):
    """Processes that each hold a :class:`~policyopt.engine.sharded.rank.Rank`, members of one process group of
    :mod:`torch.distributed`, whose default backend takes tensors on the CPU and on the device of the models."""

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...

    def call(self, name: str, *args: Any) -> list[Any]:
        """Call a method of every :class:`~policyopt.engine.sharded.rank.Rank` at the same time, with the same arguments, and
        return what each gave, by rank. Arguments and results are pickled by :mod:`cloudpickle`; tensors are on the CPU.

        An error that all ranks come to alike (:data:`ALIKE`) is raised here as it is. One that a rank comes to alone ends
        that rank, since the others may be waiting for it, and is raised as a :class:`~policyopt.errors.UserError` that says
        which rank, why, and how to go on; no call is answered after it.
        """
        ...

    def close(self) -> None:
        """Send the ranks home. Nothing is called afterwards; closing twice does nothing."""
        ...
