"""Several environments in one run: each row of the task names its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError, nearest


class Routed(Environment):
    """The environment that a row names in its column ``environment``, with its tools alone.

    Raises :class:`~policyopt.errors.UserError` for a row that names none of them.
    """

    def __init__(self, makes: Mapping[str, Callable[[], Environment]]) -> None:
        self.makes = makes
        self.inner: Environment | None = None

    async def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        rest = dict(row)
        name = rest.pop("environment", None)
        if name not in self.makes:
            raise UserError(
                f"the column 'environment' of a row says {name!r}, which is no environment of this run; {nearest(name, self.makes)}"
            )
        inner = self.inner = self.makes[name]()
        inner.outside = self.outside
        said: Observation | str | None = await self.outside(inner.reset, seed, rest)
        self.tools, self.turns, self.announced = inner.tools, inner.turns, inner.announced  # type: ignore[misc]
        return said

    async def step(self, action: Action) -> Observation | str:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        assert self.inner is not None
        said: Observation | str = await self.outside(self.inner.step, action)
        return said

    async def finish(self) -> Observation | float | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        return None if self.inner is None else await self.outside(self.inner.finish)

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        if self.inner is not None:
            self.inner.close()
