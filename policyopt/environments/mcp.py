"""Tools of a Model Context Protocol server: ``mcp:URL``, or ``mcp:COMMAND ...`` for one that is started for each episode and talks over
its standard input and output."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from policyopt.environments.elsewhere import Held, elsewhere, innermost, now
from policyopt.environments.objects import ToolWorld
from policyopt.environments.tools import Tool, written
from policyopt.environments.world import Environment, Observation
from policyopt.errors import UserError, first_line

INSTALL = "pip install 'policyopt[mcp]'"
_PATIENCE = 60.0
"""Seconds that a server may take to say which tools it has, before a run."""


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Callable[[], Environment]:
    """What makes an episode with the tools of a server: a session of its own on the server of a URL, a process of its own of a
    command. Options of a command are variables of its environment.

    Raises :class:`~policyopt.errors.UserError` for a server that cannot be reached, or has no tools.
    """
    try:
        from mcp import Client, StdioServerParameters
    except ImportError as error:
        raise UserError(f"--env mcp:{rest} needs the package mcp (2.0 or later): {INSTALL}") from error
    words = shlex.split(rest)
    if not words:
        raise UserError("--env mcp: expected a URL (mcp:http://localhost:8000/mcp) or a command (mcp:python server.py)")
    server: Any = rest
    if not rest.startswith(("http://", "https://")):
        named = {name: str(value) for name, value in options.items()}
        server = StdioServerParameters(command=words[0], args=words[1:], env=named or None)
    elif options:
        raise UserError(f"--env-options: mcp:{rest} is a server that runs already; leave them out")

    def opened() -> Any:
        return Client(server)

    try:
        tools = now(_listed(opened), _PATIENCE)
    except Exception as error:  # what its library or its process raises
        said = (
            f"it said nothing for {_PATIENCE:g} s" if isinstance(error, TimeoutError) else first_line(innermost(error))
        )
        raise UserError(f"--env mcp:{rest}: the server cannot be reached: {said}") from error
    if not tools:
        raise UserError(f"--env mcp:{rest}: the server has no tools")
    return lambda: McpWorld(opened)


async def _listed(opened: Callable[[], Any]) -> list[Any]:
    async with opened() as client:
        return await listed(client)


async def listed(client: Any) -> list[Any]:
    """All tools of a server, page after page."""
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor or len(found) > 1000:
            return found


class McpWorld(ToolWorld):
    """An episode with the tools of a server; what it is worth the task's judge says."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        super().__init__(())
        self._held: Held[Any] = Held(opened)

    async def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        self.tools = await self.outside(self._begin)
        return None

    async def _begin(self) -> tuple[Tool, ...]:
        return await elsewhere(self._tools())

    async def _tools(self) -> tuple[Tool, ...]:
        client = await self._held.open()
        return tuple(
            Tool(tool.name, self._caller(tool.name), tool.description or "", tool.input_schema)
            for tool in await listed(client)
        )

    def _caller(self, name: str) -> Callable[..., Any]:
        async def call(**arguments: Any) -> str:
            return said(await elsewhere(self._held.it.call_tool(name, arguments)))

        call.__qualname__ = name
        return call

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        self._held.close()


def said(result: Any) -> str:
    """What a tool of a server returned, as text. Raises ``RuntimeError`` with it where the server says that it is an error."""
    blocks = [block.text if block.type == "text" else f"[{block.type}]" for block in result.content]
    structured = getattr(result, "structured_content", None)
    text = "\n".join(blocks) if blocks or structured is None else written(structured)
    if result.is_error:
        raise RuntimeError("; ".join(text.split("\n")) or "the tool failed")  # the policy reads one line of an error
    return text
