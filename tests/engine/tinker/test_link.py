"""What goes wrong between here and a server comes out in words, soon, and never with the key."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from policyopt.engine.tinker import link as module
from policyopt.engine.tinker.link import Link
from policyopt.errors import UserError
from tests.engine.tinker.conftest import SECRET

httpx = pytest.importorskip("httpx")
tinker = pytest.importorskip("tinker", reason="needs tinker (pip install 'policyopt[tinker]')")


@pytest.fixture(scope="module")
def linked(url: str) -> Link:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINKER_API_KEY", SECRET)
        patch.setenv("TINKER_TELEMETRY", "0")
        return Link(url)


@contextmanager
def answering(code: int) -> Iterator[str]:
    """The address of a server that answers every request with a code."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def failure(code: int, detail: Any = "", message: str = "no") -> Exception:
    kinds = {401: "AuthenticationError", 403: "PermissionDeniedError", 404: "NotFoundError", 429: "RateLimitError"}
    kind = getattr(tinker, kinds.get(code, "InternalServerError" if code >= 500 else "BadRequestError"))
    answer = httpx.Response(code, request=httpx.Request("POST", "http://here"))
    error: Exception = kind(message, response=answer, body={"detail": detail})
    return error


def retrieving(code: int) -> Exception:
    """What the SDK raises where it asks for the result of a request that was accepted."""
    error = ValueError(f"Error retrieving result: no with status {code}")
    error.__cause__ = failure(code)
    return error


def raising(error: Exception, calls: list[int] | None = None) -> Callable[[], Any]:
    def make() -> Any:
        if calls is not None:
            calls.append(1)
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (failure(401), "refuses the key in TINKER_API_KEY"),
        (failure(403), "refuses the key in TINKER_API_KEY"),
        (failure(404, "Not Found"), "has no route to score a batch"),
        (failure(501, "Not Implemented"), "has no route to score a batch"),
        (failure(404, "Model not found"), r"refuses to score a batch .*--resume"),
        (failure(429), r"could not score a batch, also when asked again .*--resume"),
        (failure(503), r"could not score a batch, also when asked again .*--resume"),
        (RuntimeError(f"a header X-API-Key: {SECRET} was in it"), r"went wrong to score a batch .*\*\*\*"),
    ],
)
def test_errors_in_words(linked: Link, error: Exception, words: str) -> None:
    with pytest.raises(UserError, match=words) as found:
        linked.call("score a batch", raising(error))
    assert SECRET not in str(found.value)
    assert found.value.__suppress_context__, "what the SDK raised may hold the key, and a traceback would show it"


def test_a_forgotten_request_is_made_once_more_where_that_is_harmless(linked: Link) -> None:
    for again, times in ((True, 2), (False, 1)):
        calls: list[int] = []
        with pytest.raises(UserError, match="has forgotten a request to score"):
            linked.call("score", raising(retrieving(404), calls), again=again)
        assert len(calls) == times


def test_a_server_that_goes_away_is_waited_for_and_then_given_up(linked: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise httpx.ConnectError("refused")

    never = threading.Event()
    monkeypatch.setattr(module, "LOOK", 0.02)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(linked, "get", away)
    with pytest.raises(UserError, match=r"has not answered for .*start it again.*--resume"):
        linked.call("score", never.wait)
    monkeypatch.undo()
    monkeypatch.setattr(module, "LOOK", 0.02)
    monkeypatch.setattr(module, "LIMIT", 0.1)
    with pytest.raises(UserError, match="no answer after"):
        linked.call("score", never.wait)
    never.set()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "name the server: --base-url"),
        ("127.0.0.1:8000", "an address such as http://"),
        ("http://me:word@127.0.0.1:8000", "no name or password may stand in it"),
        ("http://127.0.0.1:9", "nobody answers there"),
    ],
)
def test_addresses_that_cannot_be(url: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)
    with pytest.raises(UserError, match=words):
        Link(url)


def test_who_answers_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404) as url, pytest.raises(UserError, match="is no Tinker server"):
        Link(url)
    with answering(401) as url:
        with pytest.raises(UserError, match="refuses the key in TINKER_API_KEY"):
            Link(url)
        monkeypatch.delenv("TINKER_API_KEY")
        with pytest.raises(UserError, match="asks for a key TINKER_API_KEY"):
            Link(url)
    with pytest.raises(UserError, match="put the key of this server into the environment, as TINKER_API_KEY"):
        Link("https://tinker.example")


def test_the_sdk_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinker", None)
    with pytest.raises(UserError, match=r"pip install 'policyopt\[tinker\]'"):
        Link("http://127.0.0.1:9")
