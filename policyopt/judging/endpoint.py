"""An OpenAI-compatible endpoint: asked with retries and under limits, its replies kept on the disk."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

try:
    import httpx2 as httpx
except ImportError:  # huggingface_hub brings one of the two
    import httpx  # type: ignore[no-redef]

from policyopt import cache

KEYS = ("POLICYOPT_JUDGE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first one that is set; it is written nowhere."""
LARGEST = 1 << 20
"""Bytes of a reply that are read."""
LONGEST_WAIT = 20.0
"""Seconds to the next try, at most, whatever the endpoint asks for."""


class NoReply(Exception):
    """The endpoint gave nothing that could be read."""


@dataclass(frozen=True)
class Reply:
    """What the model said, and what that took."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass
class Endpoint:
    """Where a model is asked. Used within one event loop."""

    url: str
    timeout: float
    """Seconds for one request."""
    retries: int
    backoff: float
    """Seconds before the second try; they double with every further one."""
    _client: Any = field(init=False)

    def __post_init__(self) -> None:
        self._key = next((key for name in KEYS if (key := os.environ.get(name))), "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        self._client = httpx.AsyncClient(timeout=self.timeout, headers=headers)
        address = self.url.rstrip("/")
        self._address = address if address.endswith("/chat/completions") else f"{address}/chat/completions"

    @property
    def patience(self) -> float:
        """Seconds that one answer may take, with all tries and the waits between them."""
        return (self.retries + 1) * self.timeout + self.retries * LONGEST_WAIT

    async def ask(self, body: Mapping[str, Any], counted: dict[str, float]) -> Reply:
        """The reply to a request; ``counted`` grows by what it takes, tries in vain too.

        Overload (429), errors of the server (5xx), lost connections and requests that take too long are tried again.
        Raises :class:`NoReply`.
        """
        content = json.dumps(body).encode("ascii")  # half a surrogate pair is escaped
        reason = ""
        for tried in range(self.retries + 1):
            counted["requests"] = counted.get("requests", 0.0) + 1
            wait = min(LONGEST_WAIT, self.backoff * 2**tried)
            try:
                async with asyncio.timeout(self.timeout):  # the client's limit is for single reads
                    status, asked, text = await self._post(content)
            except TimeoutError:
                reason = f"no reply within {self.timeout:g} s"
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                if isinstance(error, httpx.UnsupportedProtocol | httpx.DecodingError):
                    break
            else:
                if status == 200:
                    reply = _read(text)
                    counted["tokens_in"] = counted.get("tokens_in", 0.0) + reply.tokens_in
                    counted["tokens_out"] = counted.get("tokens_out", 0.0) + reply.tokens_out
                    return reply
                reason = f"status {status}: {' '.join(text.split())[:200]}"
                if status != 429 and status < 500:
                    break
                wait = min(LONGEST_WAIT, max(wait, asked))
            if tried < self.retries:
                await asyncio.sleep(wait)
        raise NoReply(f"{self.url} gave no reply ({reason})")

    def hidden(self, text: str) -> str:
        """``text`` without the key, whoever put it there."""
        return text.replace(self._key, "***") if self._key else text

    async def _post(self, content: bytes) -> tuple[int, float, str]:
        """Status, seconds that the endpoint asks to wait, and body."""
        found = bytearray()
        async with self._client.stream("POST", self._address, content=content) as response:
            async for piece in response.aiter_bytes():
                found += piece
                if len(found) > LARGEST:
                    raise NoReply(f"{self.url} replied with more than {LARGEST >> 20} MiB")
            try:
                asked = float(response.headers.get("Retry-After", 0))
            except ValueError:  # a date
                asked = 0.0
            return response.status_code, asked, found.decode("utf-8", errors="replace")


def _read(text: str) -> Reply:
    try:
        data = json.loads(text)
        said = data["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoReply(f"the endpoint replied with no chat completion: {' '.join(text.split())[:100]!r}") from None
    if not isinstance(said, str):
        raise NoReply("the endpoint replied with a message without text")
    usage = data.get("usage") or {}
    return Reply(said, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def _count(usage: Any, name: str) -> int:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and 0 <= found < 1 << 40 else 0


# On the disk ---------------------------------------------------------------------------------------------------------


class Kept:
    """Replies by what was asked, in a file that several processes may use at once. Where the disk takes nothing, nothing
    is kept."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache.folder() / "judge-replies.sqlite"

    def get(self, asked: Any) -> str | None:
        """The reply to what was asked; ``None`` where there is none."""
        try:
            with closing(self._open()) as file:
                row = file.execute("SELECT text FROM replies WHERE asked = ?", (_digest(asked),)).fetchone()
        except (OSError, sqlite3.Error):
            return None
        return row[0] if row else None

    def put(self, asked: Any, text: str) -> None:
        """Keep a reply."""
        try:
            with closing(self._open()) as file, file:
                file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (_digest(asked), text))
        except (OSError, sqlite3.Error, UnicodeEncodeError):
            pass

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(self._file, timeout=10.0)
        file.execute("CREATE TABLE IF NOT EXISTS replies (asked BLOB PRIMARY KEY, text TEXT NOT NULL)")
        return file


def _digest(asked: Any) -> bytes:
    return blake2b(json.dumps(asked, sort_keys=True).encode("ascii"), digest_size=20).digest()
