"""A hub that stands in for the real one: it speaks as much of its protocol as pushing a model takes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """What was pushed: repositories with their visibility, and files by ``owner/name/path``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.refuse = ""
        """What it says to everything beside a greeting, with 403."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._say({})

    def do_GET(self) -> None:
        self._say({"id": "x", "sha": "0" * 40, "siblings": []})

    def do_PUT(self) -> None:
        self.server.uploads[self.path.removeprefix("/blobs/")] = self._body()
        self._say({})

    def do_POST(self) -> None:
        hub, body = self.server, self._body()
        hub.tokens.add(self.headers.get("Authorization", ""))
        if hub.refuse:
            self._say({"error": hub.refuse}, 403)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.repositories[name] = asked
            self._say({"url": f"{hub.address}/{name}", "name": name})
        elif "/preupload/" in self.path:
            files = [f["path"] for f in json.loads(body)["files"]]
            large = (".safetensors",)
            modes = [
                {"path": p, "uploadMode": "lfs" if p.endswith(large) else "regular", "shouldIgnore": False}
                for p in files
            ]
            self._say({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            kind = {"Content-Type": "application/vnd.git-lfs+json"}
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.address}/blobs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self._say({"transfer": "basic", "objects": objects}, **kind)
        elif "/commit/" in self.path:
            self._commit(self.path.removeprefix("/api/models/").partition("/commit/")[0], body)
        else:
            self._say({})

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[f"{name}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[f"{name}/{value['path']}"] = self.server.uploads[value["oid"]]
        self._say({"commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": "1" * 40, "success": True})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, answer: Any, code: int = 200, **headers: str) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def standing_in(monkeypatch: Any, token: str = "hf_secret") -> Iterator[Hub]:
    """A hub to which this process talks, with a token in the environment."""
    from huggingface_hub import constants

    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", token)
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
