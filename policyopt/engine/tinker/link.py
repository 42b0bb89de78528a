"""A server of the Tinker protocol, spoken to through its SDK: what goes wrong comes out in words, and no wait is endless."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from policyopt.errors import UserError, first_line

X = TypeVar("X")

KEY = "TINKER_API_KEY"
NO_KEY = "tml-none"
"""What the SDK is given for a server on this machine that needs no key: it takes none without."""
LOOK = 5.0
"""Seconds after which a server that has not answered is looked at."""
PATIENCE = 60.0
"""Seconds that it may be away while an answer is waited for."""
LIMIT = 3600.0
"""Seconds that a request may take."""
RESUME = "what the run had saved is kept: go on with --resume"


class Forgotten(Exception):
    """The server knows nothing of a request that it had accepted."""


class Link:
    """A connection to the server at an address; the key comes from the environment and is never written.

    Raises :class:`~policyopt.errors.UserError` where the SDK is missing, the address is none, nobody answers there, the key is
    missing or refused.
    """

    def __init__(self, base_url: str | None) -> None:
        self.sdk = _sdk()
        self.url = _address(base_url)
        self._key = _key(self.url)
        self._away: float | None = None
        self._looked = 0.0
        self._lock = threading.Lock()
        self._reach()
        make = self.sdk.ServiceClient
        self.service = self.call("open a session", lambda: make(base_url=self.url, api_key=self._key))

    def call(self, doing: str, make: Callable[[], Any], again: bool = False) -> Any:
        """What a call of the SDK returns, a future's result included. ``again`` is for what may be asked for twice: it is, once,
        where the server forgets it.

        Raises :class:`~policyopt.errors.UserError` for whatever goes wrong.
        """
        for last in (not again, True):
            try:
                return self._wait(doing, aside(make))
            except Forgotten as error:
                if last:
                    raise self.lost(doing) from error
        raise AssertionError("unreachable")

    async def acall(self, doing: str, make: Callable[[], Any]) -> Any:
        """The same inside a loop, for a call that returns a future at once and may be asked for twice."""
        for last in (False, True):
            future = bare(make())
            started = time.monotonic()
            waiting = asyncio.wrap_future(future)
            try:
                while not (await asyncio.wait({waiting}, timeout=LOOK))[0]:
                    await asyncio.to_thread(self._look, doing, started)
                return waiting.result()
            except Exception as error:
                if isinstance(error, UserError):
                    raise
                if not last and forgotten(error):
                    continue
                raise self.told(doing, error) from None
        raise AssertionError("unreachable")

    def _wait(self, doing: str, future: Future[X]) -> X:
        started = time.monotonic()
        while True:
            try:
                return future.result(LOOK)
            except Late as error:
                if future.done():
                    raise self.told(doing, error) from None
                self._look(doing, started)
            except Exception as error:
                if forgotten(error):
                    raise Forgotten from None
                raise self.told(doing, error) from None  # what the SDK raises may hold the key

    def _look(self, doing: str, started: float) -> None:
        """Raises :class:`~policyopt.errors.UserError` where the server has been away for too long, or a request takes too
        long."""
        if time.monotonic() - started > LIMIT:
            raise UserError(f"{self.url}: no answer after {LIMIT / 60:.0f} minutes, to {doing}; {RESUME}")
        with self._lock:
            if time.monotonic() - self._looked < LOOK:
                return
            self._looked = time.monotonic()
            try:
                self.get("/api/v1/healthz")
                self._away = None
            except Exception as error:  # whatever a server that goes down makes of it
                self._away = self._away or time.monotonic()
                if time.monotonic() - self._away > PATIENCE:
                    raise UserError(
                        f"{self.url}: the server has not answered for {PATIENCE:.0f} seconds ({first_line(error)}); start it "
                        f"again. {RESUME[0].upper()}{RESUME[1:]}"
                    ) from None

    def get(self, place: str, method: str = "GET", **more: Any) -> Any:
        """A plain request to the server, or with the whole address to somebody else, who gets no key."""
        import httpx

        mine = place.startswith("/")
        headers = {"X-API-Key": self._key} if mine else {}
        return httpx.request(method, self.url + place if mine else place, headers=headers, timeout=30, **more)

    def capabilities(self) -> Any:
        """What the server serves."""
        with warnings.catch_warnings():  # newer SDKs have this in a second place, older ones only here
            warnings.simplefilter("ignore", FutureWarning)
            return self.service.get_server_capabilities()

    def unload(self, client: Any) -> None:
        """Give the adapters of a client back; a server that takes none back forgets them with the session."""
        with suppress(Exception):
            self.get("/api/v1/unload_model", "POST", json={"model_id": client.model_id, "type": "unload_model"})

    def close(self) -> None:
        """End the session, as far as the SDK and the server know of such a thing; nobody waits long for it."""
        with suppress(Exception):
            if hasattr(self.service, "close"):
                aside(lambda: self.service.close("success")).result(LOOK)
            else:
                self.service.holder.close()

    def _reach(self) -> None:
        try:
            code = self.get("/api/v1/healthz").status_code
        except Exception as error:  # httpx raises a dozen kinds
            raise UserError(
                f"--base-url {self.url}: nobody answers there ({self.clean(error)}). Start the server, or name the address of one "
                "that runs"
            ) from None
        if code in (401, 403):
            raise self._refused(code)
        if code >= 400:
            raise UserError(
                f"--base-url {self.url}: whoever answers there is no Tinker server: /api/v1/healthz gives {code}"
            )

    # Errors in words -------------------------------------------------------------------------------------------------

    def told(self, doing: str, error: BaseException) -> UserError:
        """What somebody should know of an error of the SDK."""
        code, said = status(error), self.clean(error)
        if code in (401, 403):
            return self._refused(code)
        if code in (404, 405, 501) and lacking(error):
            return UserError(
                f"{self.url}: the server has no route to {doing} ({code}); this engine needs a server that has: take another one, or "
                "a newer version of it"
            )
        if code == 429 or code >= 500:
            return UserError(
                f"{self.url}: the server could not {doing}, also when asked again ({code}: {said}); {RESUME}"
            )
        if code or "Request failed" in said:
            return UserError(f"{self.url}: the server refuses to {doing} ({said}); {RESUME}")
        if isinstance(error, self.sdk.APIConnectionError):
            return UserError(f"{self.url}: the server cannot be reached, to {doing} ({said}); {RESUME}")
        return UserError(f"{self.url}: it went wrong to {doing} ({type(error).__name__}: {said}); {RESUME}")

    def lost(self, doing: str) -> UserError:
        """What to say where the server has forgotten a request."""
        return UserError(
            f"{self.url}: the server has forgotten a request to {doing}, so that nobody knows whether it was carried out; {RESUME}"
        )

    def clean(self, error: BaseException) -> str:
        """The first line of an error, without the key."""
        return first_line(error, None).replace(self._key, "***")[:300]

    def _refused(self, code: int) -> UserError:
        what = "asks for a key" if self._key == NO_KEY else "refuses the key in"
        return UserError(
            f"--base-url {self.url}: the server {what} {KEY} ({code}): put one that it knows into the environment"
        )


def aside(make: Callable[[], Any]) -> Future[Any]:
    """A call that may block, in a thread that no exit waits for; where it returns a future, that one's result."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            found = make()
            done.set_result(found.result() if hasattr(found, "result") else found)
        except BaseException as error:  # handed to whoever waits
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def bare(future: Any) -> Future[Any]:
    """The future of the standard library within one of the SDK."""
    found: Future[Any] = future.future() if hasattr(future, "future") else future
    return found


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def status(error: BaseException) -> int:
    """The HTTP status in an error or in what it came from; 0 where there is none."""
    codes = (getattr(e, "status_code", None) for e in causes(error))
    return next((code for code in codes if isinstance(code, int)), 0)


def forgotten(error: BaseException) -> bool:
    """Whether it says that a request which was accepted is not known any more: the SDK raises another kind for that than for a
    request which was not."""
    return status(error) in (404, 410) and not hasattr(error, "status_code")


def lacking(error: BaseException) -> bool:
    """Whether it says that a route is missing, rather than a thing behind the route: servers say more of a thing."""
    bodies = [getattr(e, "body", None) for e in causes(error) if hasattr(e, "status_code")]
    said = [b.get("detail", b.get("error", "")) if isinstance(b, dict) else b for b in bodies]
    return any(x in (None, "", "Not Found", "Method Not Allowed", "Not Implemented") for x in said)


def _sdk() -> Any:
    try:
        import tinker
    except ImportError as error:
        raise UserError("--engine tinker: it needs the SDK of the protocol: pip install 'policyopt[tinker]'") from error
    return tinker


def _address(base_url: str | None) -> str:
    url = (base_url or os.environ.get("TINKER_BASE_URL") or "").rstrip("/")
    if not url:
        raise UserError("--engine tinker: name the server: --base-url http://127.0.0.1:8000")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--base-url {url}: an address such as http://127.0.0.1:8000 is needed")
    if parts.username or parts.password:
        raise UserError(
            f"--base-url: a run writes its address down, so no name or password may stand in it; put the key into {KEY}"
        )
    return url


def _key(url: str) -> str:
    key = os.environ.get(KEY)
    if not key and urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"--base-url {url}: put the key of this server into the environment, as {KEY}")
    return key or NO_KEY
