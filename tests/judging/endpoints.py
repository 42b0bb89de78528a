"""A stand-in for an OpenAI-compatible endpoint, in a thread of this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, str] | float
"""What the model says; or a status and a body; or seconds of silence."""


class Stand(ThreadingHTTPServer):
    """Answers what ``say`` says to a request and its number, and keeps what it was asked."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, say: Callable[[dict[str, Any], int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.say, self.asked, self.keys = say, list[dict[str, Any]](), list[str | None]()
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Stand

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stand = self.server
        with stand.lock:
            stand.asked.append(body)
            stand.keys.append(self.headers.get("Authorization"))
            number = len(stand.asked)
            stand.now += 1
            stand.most = max(stand.most, stand.now)
        try:
            said = stand.say(body, number)
            if isinstance(said, float):
                time.sleep(said)
                said = '{"score": 1}'
            choice = {"message": {"role": "assistant", "content": said}}
            usage = {"prompt_tokens": 100, "completion_tokens": 7}
            status, text = said if isinstance(said, tuple) else (200, json.dumps({"choices": [choice], "usage": usage}))
        finally:
            with stand.lock:
                stand.now -= 1
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            if status == 429:
                self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:  # nobody waits any more
            pass

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def endpoint(say: Callable[[dict[str, Any], int], Answer]) -> Iterator[Stand]:
    """A stand-in that runs."""
    with Stand(say) as stand:
        thread = threading.Thread(target=stand.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield stand
        finally:
            stand.shutdown()
            thread.join()
