"""An endpoint on the loopback address that speaks the chat completions protocol, in a thread of its own: clients of language models ask,
whoever plays an episode answers. It is there for the agents of this process's runs and for nobody else."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from policyopt.environments.chat import MODEL, Chat, Refusal, Reply, read_chat, write_models, write_reply, write_stream

MAX_BODY = 4 << 20
"""Bytes of a request."""
MAX_HEAD = 64 << 10
"""Bytes of the lines before its body."""
PATIENCE = 60.0
"""Seconds in which a request that has begun has to be here whole."""
IDLE = 600.0
"""Seconds after which a connection that nobody uses is closed."""
WATCH = 0.2
"""Seconds between two looks at whether a client that waits is still there."""

Answer = Callable[[Chat], Awaitable[Reply]]


@lru_cache
def loop_of(name: str) -> asyncio.AbstractEventLoop:
    """An event loop in a thread of its own that ends with the process; the same one for the same name."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name=name).start()
    return loop


@dataclass(eq=False)
class Seat:
    """An episode at the endpoint."""

    key: str
    url: str
    """The ``base_url`` for its client."""
    answer: Answer
    loop: asyncio.AbstractEventLoop
    """Where it is answered."""
    open: bool = True
    asked: set[asyncio.Future[Reply]] = field(default_factory=set)
    """Requests that wait for their answers."""


class Endpoint:
    """Answers requests of all episodes of this process. Every episode has an address with a key in it that nobody can guess; the same
    key in ``Authorization: Bearer`` finds it too."""

    def __init__(self) -> None:
        self._loop = loop_of("endpoint")
        self._seats: dict[str, Seat] = {}
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)
        self.port = server.sockets[0].getsockname()[1]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD, backlog=1024)

    def open(self, answer: Answer) -> Seat:
        """A seat for an episode that is played in the event loop of the caller."""
        key = secrets.token_urlsafe(24)
        seat = Seat(key, f"http://127.0.0.1:{self.port}/{key}/v1", answer, asyncio.get_running_loop())
        self._seats[key] = seat
        return seat

    def close(self, seat: Seat) -> None:
        """The episode is over: whoever still waits for an answer is told so."""
        self._seats.pop(seat.key, None)
        seat.open = False
        self._loop.call_soon_threadsafe(lambda: [asked.cancel() for asked in list(seat.asked)])

    # Connections ---------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await _head(reader)) is not None:
                keep = await self._respond(head, reader, writer)
                await writer.drain()
                if not keep:
                    return
        except (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError):  # it has gone
            pass
        finally:
            writer.close()

    async def _respond(self, head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; whether the connection can be used again."""
        keep, kind = head.keep, "application/json"
        try:
            body = await asyncio.wait_for(_body(head, reader, writer), PATIENCE)
        except Refusal as refusal:  # what follows is not known to be a request
            _write(writer, refusal.status, kind, json.dumps(refusal.body).encode(), False)
            await _discard(reader)
            return False
        status = 200
        try:
            found = await self._routed(head, body, reader, writer)
            if found is None:
                return False
        except Refusal as refusal:
            status, found = refusal.status, refusal.body
        except Exception as error:  # the run ends with it; the client is told
            status, found = 500, Refusal(f"the policy cannot be asked: {error}", 500, "server_error").body
        kind = "text/event-stream" if isinstance(found, bytes) else kind
        data = found if isinstance(found, bytes) else json.dumps(found).encode()
        _write(writer, status, kind, data, keep)
        return keep

    async def _routed(
        self, head: _Head, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> dict[str, Any] | bytes | None:
        seat, path = self._seat(head)
        if path == "/models" and head.method == "GET":
            return write_models()
        if path == f"/models/{MODEL}" and head.method == "GET":
            model: dict[str, Any] = write_models()["data"][0]
            return model
        if path != "/chat/completions" or head.method != "POST":
            raise Refusal(
                f"{head.method} /v1{path}: POST /v1/chat/completions and GET /v1/models are served; have the client use these",
                404,
                "not_found",
            )
        chat = read_chat(body)
        reply = await self._answered(seat, chat, reader, writer)
        if reply is None:
            return None
        return write_stream(chat, reply) if chat.stream else write_reply(chat, reply)

    def _seat(self, head: _Head) -> tuple[Seat, str]:
        """Which episode asks, and for what."""
        first, _, rest = head.path.lstrip("/").partition("/")
        bearer = head.fields.get("authorization", "").partition(" ")[2].strip()
        key, rest = (bearer, head.path.lstrip("/")) if first == "v1" else (first, rest)
        if key not in self._seats:
            raise Refusal(
                "this address belongs to no episode that is under way: use the base_url that the agent was given",
                401,
                "invalid_api_key",
            )
        return self._seats[key], rest.removeprefix("v1")

    async def _answered(
        self, seat: Seat, chat: Chat, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Reply | None:
        """The answer to a request; ``None`` where its client has gone, which takes it back."""
        try:
            crossed = asyncio.run_coroutine_threadsafe(_asked(seat.answer, chat), seat.loop)
        except RuntimeError:  # the loop of the run is closed
            raise over() from None
        waiting = asyncio.wrap_future(crossed)
        seat.asked.add(waiting)
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=WATCH)
                if _gone(reader, writer):
                    waiting.cancel()
                    return None
            if waiting.cancelled() or not seat.open:
                raise over()
            return waiting.result()
        finally:
            seat.asked.discard(waiting)


def over() -> Refusal:
    """What a client is told whose episode has ended."""
    return Refusal("the episode is over", 410, "episode_over")


async def _asked(answer: Answer, chat: Chat) -> Reply:
    return await answer(chat)


@lru_cache
def endpoint() -> Endpoint:
    """The endpoint of this process; it begins to listen when it is first asked for."""
    return Endpoint()


# HTTP ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    method: str
    path: str
    fields: dict[str, str]
    """Header fields by their names in small letters."""

    @property
    def keep(self) -> bool:
        return self.fields.get("connection", "").lower() != "close"


async def _head(reader: asyncio.StreamReader) -> _Head | None:
    """The lines before a body; ``None`` where nothing more comes. Raises ``EOFError`` for what is no request."""
    try:
        data = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE)
    except asyncio.IncompleteReadError:
        return None
    except (asyncio.LimitOverrunError, ValueError):
        raise EOFError from None
    first, *lines = data.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise EOFError
    named = (line.partition(":") for line in lines if line)
    fields = {name.strip().lower(): value.strip() for name, _, value in named}
    return _Head(words[0], words[1].partition("?")[0], fields)


async def _body(head: _Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    if head.fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in head.fields.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    length = head.fields.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12:
        raise Refusal("the Content-Length is no number")
    if int(length) > MAX_BODY:
        raise too_large()
    return await reader.readexactly(int(length))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while True:
        size = (await reader.readline()).partition(b";")[0].strip()
        try:
            n = int(size, 16)
        except ValueError:
            raise Refusal("the body comes in pieces that have no length") from None
        if n < 0 or len(data) + n > MAX_BODY:
            raise too_large()
        data += await reader.readexactly(n)
        line = await reader.readline()
        if n == 0:
            while line.strip():  # fields behind the body
                line = await reader.readline()
            return bytes(data)


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read on for a while what nobody wants: a connection that is closed before loses its client the answer."""
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(16 * MAX_BODY // MAX_HEAD):
                if not await reader.read(MAX_HEAD):
                    return
    except (OSError, TimeoutError):
        pass


def too_large() -> Refusal:
    """What a client is told whose request is too large."""
    return Refusal(f"the body has more than {MAX_BODY >> 20} MiB", 413, "request_too_large")


_WORDS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 410: "Gone", 413: "Content Too Large"}


def _write(writer: asyncio.StreamWriter, status: int, kind: str, data: bytes, keep: bool) -> None:
    lines = [
        f"HTTP/1.1 {status} {_WORDS.get(status, 'Error')}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    if status != 200:
        lines.append("x-should-retry: false")  # asked again, it would be answered in the same way
    writer.write("\r\n".join([*lines, "", ""]).encode() + data)


def _gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return reader.at_eof() or reader.exception() is not None or writer.transport.is_closing()
