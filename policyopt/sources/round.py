"""Programs that run together and share a budget."""

from __future__ import annotations

import asyncio
from typing import Any


class Round:
    """The programs that run together, for those that share a budget: what each shows, all who take part see.

    A program takes part between ``async with context.round:`` and the end of this block. Who leaves is waited for no more.
    """

    def __init__(self) -> None:
        self._members = 0
        self._shown: dict[tuple[int, ...], Any] = {}
        self._done: asyncio.Future[dict[tuple[int, ...], Any]] | None = None

    async def __aenter__(self) -> Round:
        self._members += 1
        await asyncio.sleep(0)  # all that start together are in before the first can meet
        return self

    async def __aexit__(self, *error: object) -> None:
        self._members -= 1
        self._close()

    async def meet(self, key: tuple[int, ...], shown: Any) -> dict[tuple[int, ...], Any]:
        """What everybody has shown, by the keys of their questions and in their order, once all who take part have."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        done, self._shown[key] = self._done, shown
        self._close()
        return await asyncio.shield(done)

    def _close(self) -> None:
        if self._done is not None and self._shown and len(self._shown) >= self._members:
            if not self._done.done():
                self._done.set_result(dict(sorted(self._shown.items())))
            self._shown, self._done = {}, None
