"""The endpoint against clients that are slow, broken or hostile."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from policyopt.environments import endpoint as endpoints
from policyopt.environments.calls import Call
from policyopt.environments.chat import Chat, Reply, digest, read_chat, read_messages, spoken
from policyopt.environments.endpoint import Seat, endpoint

HELLO = {"model": "x", "messages": [{"role": "user", "content": "hello"}]}


async def echo(chat: Chat) -> Reply:
    return Reply(f"you said {chat.messages[-1]['content']}", read=3, drawn=2, number=1)


def with_seat(
    use: Callable[[Seat, httpx.AsyncClient], Awaitable[None]], answer: Callable[[Chat], Awaitable[Reply]] = echo
) -> None:
    async def main() -> None:
        seat = endpoint().open(answer)
        try:
            async with httpx.AsyncClient(timeout=20) as client:
                await use(seat, client)
        finally:
            endpoint().close(seat)

    asyncio.run(main())


def test_it_listens_on_loopback_and_answers_as_the_protocol_says() -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        assert seat.url.startswith("http://127.0.0.1:")
        found = await client.post(f"{seat.url}/chat/completions", json=HELLO)
        said = found.json()
        assert said["object"] == "chat.completion" and said["model"] == "x"
        assert said["choices"][0]["message"] == {"role": "assistant", "content": "you said hello"}
        assert said["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        models = (await client.get(f"{seat.url}/models")).json()
        assert [m["id"] for m in models["data"]] == ["policy"]
        assert (await client.get(f"{seat.url}/models/policy")).json()["id"] == "policy"

    with_seat(use)


def test_a_stream_is_events_that_end_with_done() -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        asked = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
        found = await client.post(f"{seat.url}/chat/completions", json=asked)
        assert found.headers["content-type"] == "text/event-stream"
        events = [line.removeprefix("data: ") for line in found.text.split("\n\n") if line]
        assert events[-1] == "[DONE]"
        chunks = [json.loads(e) for e in events[:-1]]
        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == "you said hello"
        assert chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["usage"]["total_tokens"] == 5

    with_seat(use)


def test_an_address_is_of_one_episode_and_ends_with_it() -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        other = endpoint().open(echo)
        assert other.key != seat.key and len(seat.key) >= 32
        for url in (seat.url.replace(seat.key, "x" * 32), other.url.replace(f"/{other.key}", "")):
            assert (await client.post(f"{url}/chat/completions", json=HELLO)).status_code == 401
        plain = other.url.replace(f"/{other.key}", "")
        key = {"Authorization": f"Bearer {other.key}"}
        assert (await client.post(f"{plain}/chat/completions", json=HELLO, headers=key)).status_code == 200
        endpoint().close(other)
        assert (await client.post(f"{other.url}/chat/completions", json=HELLO)).status_code == 401

    with_seat(use)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "nested"),
        (b'{"messages": ' + b'[{"a": ' * 200 + b"1" + b"}]" * 200 + b"}", 400, "nested"),
        (b'"text"', 400, "no JSON object"),
        (b'{"messages": []}', 400, "messages"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', 400, "messages[0]"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, "image_url"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', 400, "n is 2"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, "not JSON"),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": -1}', 400, "temperature"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0.5}', 400, "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "x"}], "stop": ["", "y"]}', 400, "stop"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"function": {}}]}', 400, "tools[0]"),
        (b"\xff\xfe", 400, "UTF-8"),
        (b" " * ((4 << 20) + 1), 413, "4 MiB"),
    ],
)
def test_what_is_no_request_is_refused_in_the_words_of_the_protocol(body: bytes, status: int, says: str) -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        found = await client.post(f"{seat.url}/chat/completions", content=body)
        assert found.status_code == status
        error = found.json()["error"]
        assert says in error["message"] and error["type"] == "invalid_request_error"
        assert (await client.post(f"{seat.url}/chat/completions", json=HELLO)).status_code == 200, "it still answers"

    with_seat(use)


def test_what_is_not_served_is_named() -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        found = await client.post(f"{seat.url}/responses", json={})
        assert found.status_code == 404 and "/v1/chat/completions" in found.json()["error"]["message"]

    with_seat(use)


def test_a_body_in_pieces_is_read_within_the_same_limit() -> None:
    async def pieces(size: int) -> Any:
        data = json.dumps(HELLO).encode()
        yield data[:10]
        yield data[10:] + b" " * size

    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        assert (await client.post(f"{seat.url}/chat/completions", content=pieces(5))).status_code == 200
        assert (await client.post(f"{seat.url}/chat/completions", content=pieces(5 << 20))).status_code == 413

    with_seat(use)


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"x" * 200_000, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000])
def test_what_is_not_http_ends_its_connection_alone(sent: bytes) -> None:
    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", endpoint().port), timeout=10) as connection:
                try:
                    connection.sendall(sent)
                    return connection.recv(100)
                except ConnectionError:
                    return b""

        assert await asyncio.to_thread(talk) == b""
        assert (await client.post(f"{seat.url}/chat/completions", json=HELLO)).status_code == 200

    with_seat(use)


def test_a_client_that_has_gone_takes_its_request_back() -> None:
    cancelled: list[bool] = []

    async def slow(chat: Chat) -> Reply:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return Reply("late")

    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{seat.url}/chat/completions", json=HELLO, timeout=0.2)
        for _ in range(50):
            await asyncio.sleep(0.05)
            if cancelled:
                return
        raise AssertionError("it is still being answered")

    with_seat(use, slow)


def test_whoever_waits_when_an_episode_ends_is_told() -> None:
    async def slow(chat: Chat) -> Reply:
        await asyncio.sleep(30)
        return Reply("late")

    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        asked = asyncio.ensure_future(client.post(f"{seat.url}/chat/completions", json=HELLO))
        await asyncio.sleep(0.3)
        endpoint().close(seat)
        found = await asked
        assert found.status_code == 410 and found.json()["error"]["code"] == "episode_over"

    with_seat(use, slow)


def test_a_request_that_never_comes_whole_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PATIENCE", 0.2)

    async def use(seat: Seat, client: httpx.AsyncClient) -> None:
        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", endpoint().port), timeout=10) as connection:
                connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
                return connection.recv(100)

        assert await asyncio.to_thread(talk) == b""

    with_seat(use)


def test_messages_say_the_same_whatever_a_client_makes_of_them() -> None:
    reply = Reply("Let me see.", (Call("calc", {"e": "1", "a": [1]}, "call_1"),), "tool_calls")
    back = {
        "role": "assistant", "content": " Let me see.\n", "refusal": None, "audio": None,
        "tool_calls": [{"id": "x", "type": "function", "function": {"name": "calc", "arguments": '{"a":[1],"e":"1"}'}}],
    }  # fmt: skip
    [echoed] = read_messages([back])
    assert digest(echoed) == digest(spoken(reply))
    for other in (
        back | {"content": "Let me look."},
        back | {"tool_calls": None},
        back | {"tool_calls": [{"id": "x", "function": {"name": "calc", "arguments": '{"e":"2"}'}}]},
        {"role": "user", "content": "Let me see."},
    ):
        [changed] = read_messages([other])
        assert digest(changed) != digest(spoken(reply))
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert read_chat(json.dumps({"messages": [parts]}).encode()).messages[0]["content"] == "a\nb"
