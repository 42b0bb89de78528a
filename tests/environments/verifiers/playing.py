"""Rollouts of verifiers against a policy that says what it is told: run in the environment of the package. Prints JSON."""

import asyncio
import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from policyopt.environments.verifiers import nested, opened
from policyopt.errors import UserError


class Policy(BaseHTTPRequestHandler):
    """Thinks first, and then writes the word backwards; an apple it does not know. Pears make it fail."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, [m["role"] for m in asked["messages"]]))
        word = asked["messages"][0]["content"].split()[1]
        said = "hm" if len(asked["messages"]) == 1 else "?" if word == "apple" else word[::-1]
        body = {
            "id": "1", "object": "chat.completion", "created": 0, "model": "policy",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip
        found = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    def log_message(self, *_):
        pass


def said(call):
    try:
        call()
    except (UserError, RuntimeError, ConnectionError) as error:
        return f"{type(error).__name__}: {error}"


async def play(rollouts, url, *places):
    return await asyncio.gather(
        *(rollouts.run(url, "policy", 7, {"index": i} if i is not None else {}) for i in places)
    )


def serve(options, places):
    """An environment server of the package, in a thread of this process."""
    from verifiers.v1.serve.server import EnvServer
    from verifiers.v1.utils.loaders import resolve_env_config

    config = resolve_env_config(nested({**options, "taskset.id": "reverse-words"}))
    EnvServer.run_server(address_queue=places, config=config, address="tcp://127.0.0.1:0")


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Policy)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/KEY/v1"
    options = {"agent.runtime.type": "subprocess", **json.loads(sys.argv[1])}
    rollouts = opened("reverse-words", options)
    places = queue.Queue()
    threading.Thread(target=serve, args=(options, places), daemon=True).start()
    away = opened("reverse-words", {**options, "server": places.get(timeout=60)})
    found = {
        "tasks": len(rollouts.tasks),
        "played": asyncio.run(play(rollouts, url, 0, 1, 2, 4, None)),
        "asked": list(server.asked),
        "served": asyncio.run(play(away, url, 0, 1)),
        "nobody": said(
            lambda: asyncio.run(play(opened("reverse-words", {**options, "server": "tcp://127.0.0.1:9"}), url, 0))
        ),
        "unknown": said(lambda: opened("no-such-taskset", options)),
        "wrong": said(lambda: opened("reverse-words", {**options, "taskset.most": "many"})),
        "code": said(lambda: opened("reverse-words", {**options, "agent.harness.id": "bash"})),
        "down": said(lambda: asyncio.run(play(rollouts, "http://127.0.0.1:9/v1", 0))),
    }
    print("FOUND", json.dumps(found))
