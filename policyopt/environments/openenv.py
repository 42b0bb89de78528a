"""Environments on an OpenEnv server: ``openenv:URL``.

A session on the WebSocket ``/ws`` is an episode. (Over plain HTTP a server makes a new environment for every request, so that nothing could
follow from what was done before.) What an action looks like the server says by its ``/schema``, which tools it has by ``tools/list`` of the
Model Context Protocol in the session. Written to the protocol of OpenEnv 0.10, which needs the package websockets and no OpenEnv."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from policyopt.environments.calls import Call
from policyopt.environments.elsewhere import Held, elsewhere
from policyopt.environments.objects import ToolWorld
from policyopt.environments.outside import Overdue
from policyopt.environments.tools import Tool, error_text, find_tool, written
from policyopt.environments.world import Action, Environment, Observation
from policyopt.errors import UserError, first_line
from policyopt.items import Message

INSTALL = "pip install 'policyopt[openenv]'"
_PATIENCE = 10.0
"""Seconds that a server may take to answer before a run, and to have room again after an episode."""
_LARGEST = 1 << 24
"""Bytes of one message."""
_FULL = "CAPACITY_REACHED"


class Refused(Exception):
    """The server's answer to a message is an error."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in (data.get("errors") or [])[:4])
        super().__init__(f"{data.get('message', 'the server refuses it')}{': ' if wrong else ''}{wrong}")
        self.code = data.get("code", "")


def maker(rest: str, options: Mapping[str, Any], lookup: Callable[[str], Any]) -> Callable[[], Environment]:
    """What makes episodes on the server of a URL; options go to the environment's ``reset``.

    Raises :class:`~policyopt.errors.UserError` for a URL at which there is no OpenEnv server.
    """
    try:
        import websockets.asyncio.client  # noqa: F401
    except ImportError as error:
        raise UserError(f"--env openenv:{rest} needs the package websockets: {INSTALL}") from error
    parts = urllib.parse.urlsplit(rest)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
        raise UserError(f"--env openenv:{rest}: expected the URL of a server, such as openenv:http://localhost:8000")
    secure, place = parts.scheme in ("https", "wss"), f"{parts.netloc}{parts.path.rstrip('/')}"
    url = f"{'https' if secure else 'http'}://{place}/schema"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            schema = json.loads(answer.read(_LARGEST))["action"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--env openenv:{rest}: there is no OpenEnv server at {url}: {first_line(error)}; start it, or mend the URL"
        ) from error
    return lambda: OpenEnvWorld(f"{'wss' if secure else 'ws'}://{place}/ws", schema, options)


class OpenEnvWorld(ToolWorld):
    """An episode on a server.

    Where an action is one text, the whole turn is it; any other action is offered as the tool ``act``, beside the tools that the server
    has. Its reward is the sum of what the server gives for its steps.
    """

    def __init__(self, url: str, schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__((), Environment.turns)
        self.url, self.options = url, dict(options)
        fields = _fields(schema)
        self.calls_tools = "tool_name" in fields or not fields
        texts = [name for name, field in fields.items() if field.get("type") == "string" and "enum" not in field]
        needed = [name for name in schema.get("required", ()) if name in fields]
        one = len(texts) == 1 and (needed or texts) == texts and not self.calls_tools
        self.text = texts[0] if one else None
        self.act = () if self.calls_tools or self.text else (Tool("act", _nothing, _about(schema), _arguments(schema)),)
        self._held: Held[Any] = Held(self._connected)
        self._numbers = itertools.count(1)
        self._steps = 0

    def _connected(self) -> Any:
        from websockets.asyncio.client import connect

        return connect(self.url, max_size=_LARGEST)

    async def reset(self, seed: int, row: Mapping[str, Any]) -> Observation | str | None:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`. The server's ``reset`` gets the seed, the row and the options, as far
        as it takes them."""
        given = {**row, **self.options, "seed": seed}
        said, tools = await self.outside(self._begin, json.loads(json.dumps(given, default=str)))
        self.tools = (*self.act, *tools)
        return Observation(told(said))

    async def _begin(self, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Tool]]:
        return await elsewhere(self._session(given))

    async def _session(self, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Tool]]:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                await self._held.open()
                return await self._exchange("reset", given), await self._listed()
            except Refused as error:
                self._held.close()
                if error.code != _FULL:
                    raise
                if time.monotonic() > until:
                    raise UserError(
                        f"{self.url}: {error}: play fewer episodes at once (--episodes.at-once), or let the server have more sessions "
                        "(max_concurrent_envs)"
                    ) from error
            await asyncio.sleep(0.2)
            self._held = Held(self._connected)

    async def _listed(self) -> list[Tool]:
        try:
            found = await self._call("tools/list", {})
        except Refused:  # an environment without tools
            return []
        return [
            Tool(t["name"], _nothing, t.get("description", ""), t.get("inputSchema") or t.get("input_schema") or {})
            for t in found.get("tools", ())
        ]

    async def _exchange(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a message, and what the server answers. Raises :class:`Refused`."""
        from websockets.exceptions import ConnectionClosed

        socket = self._held.it
        with contextlib.suppress(ConnectionClosed):  # why it was closed is the last thing that it said
            await socket.send(json.dumps({"type": kind, "data": data}))
        answer = json.loads(await socket.recv())
        if answer.get("type") == "error":
            raise Refused(answer["data"])
        found: Mapping[str, Any] = answer["data"]
        return found

    async def _call(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request of the Model Context Protocol in the session. Raises :class:`Refused`."""
        request = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        found = await self._exchange("mcp", request)
        if found.get("error"):
            raise Refused(found["error"])
        result = found.get("result")
        return result if isinstance(result, Mapping) else {"result": result}

    async def step(self, action: Action) -> Observation:  # type: ignore[override]
        """See :class:`~policyopt.environments.world.Environment`."""
        if self.text is not None and not action.calls:
            return await self._acted({self.text: str(action)})
        if not action.calls and not action.faults:
            return Observation(done=True)
        said = [await self._carried_out(call) for call in action.calls]
        messages: list[Message] = [*(m for o in said for m in o.messages)]
        messages += [{"role": "tool", "content": f"error: {fault}"} for fault in action.faults]
        rewards = [o.reward for o in said if o.reward is not None]
        wrong = sum(m["content"].startswith("error: ") for m in messages)
        return Observation(
            messages=tuple(messages),
            reward=sum(rewards) if rewards else None,
            done=any(o.done for o in said),
            numbers={"tool_calls": float(len(messages)), "tool_errors": float(wrong)},
        )

    async def _acted(self, data: Mapping[str, Any]) -> Observation:
        self._steps += 1
        try:
            said = await self.outside(self._there, self._exchange, "step", data)
        except Refused as error:
            return Observation(error_text(error))
        return Observation(told(said), reward=_number(said.get("reward")), done=bool(said.get("done")))

    async def _carried_out(self, call: Call) -> Observation:
        name = {"name": call.name} | ({"tool_call_id": call.id} if call.id else {})
        try:
            tool = find_tool(call, self.tools)
            if tool in self.act:
                said = await self._acted(call.arguments)
            elif self.calls_tools:
                action = {"type": "call_tool", "tool_name": call.name, "arguments": call.arguments}
                said = await self._acted(action)
            else:
                params = {"name": call.name, "arguments": call.arguments}
                said = Observation(
                    told({"observation": await self.outside(self._there, self._call, "tools/call", params)})
                )
        except Overdue:
            raise
        except (Refused, ValueError) as error:
            said = Observation(error_text(error))
        return Observation(
            messages=({"role": "tool", "content": said.text, **name},), reward=said.reward, done=said.done
        )

    @staticmethod
    async def _there(function: Callable[..., Any], *args: Any) -> Any:
        return await elsewhere(function(*args))

    def finish(self) -> Observation | float | None:
        """An episode without a step has earned nothing; of any other the server has said what it was worth, or the judge does."""
        return None if self._steps or self.calls_tools else 0.0

    def close(self) -> None:
        """See :class:`~policyopt.environments.world.Environment`."""
        self._held.close()


def told(said: Mapping[str, Any]) -> str:
    """What a server observed, as text: its one text, what a tool returned, or all that it says as JSON."""
    seen = said.get("observation")
    if not isinstance(seen, Mapping):
        return "" if seen is None else written(seen)
    fields = {
        k: v
        for k, v in seen.items()
        if k not in ("metadata", "tool_name", "_meta", "meta") and v not in (None, "", [], {})
    }
    if isinstance(error := fields.get("error"), Mapping) and "message" in error:
        return f"error: {error['message']}"
    result = fields.get("result", fields)
    if isinstance(result, Mapping) and isinstance(blocks := result.get("content"), list):
        text = "\n".join(
            str(b["text"]) if "text" in b else f"[{b.get('type')}]" for b in blocks if isinstance(b, Mapping)
        )
        return f"error: {text}" if result.get("isError") or result.get("is_error") else text
    [only] = fields.values() if len(fields) == 1 else [fields]
    return written(only) if only else ""


def _number(reward: Any) -> float | None:
    return None if reward is None else float(reward)


def _about(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description") or "Act in the environment.")


def _fields(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an action is made of; what OpenEnv itself puts into every one is left out."""
    return {k: dict(v) for k, v in schema.get("properties", {}).items() if k != "metadata" and "const" not in v}


def _arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an action as that of a tool's arguments."""
    kept = {k: v for k, v in schema.items() if k in ("$defs", "required")}
    return {"type": "object", "properties": _fields(schema), **kept}


async def _nothing() -> None:
    """Stands where a tool has a function: the session carries out what is called."""
