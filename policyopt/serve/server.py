"""The process of a server: its address, its lock, and how it ends."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policyopt.errors import UserError

TOKEN = "POLICYOPT_SERVE_TOKEN"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
EXTRA = "pip install 'policyopt[tinker]'"


def need_packages() -> None:
    """Raises :class:`~policyopt.errors.UserError` where a package of the extra is missing."""
    for name in ("tinker", "starlette", "uvicorn"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"serve needs the package {name}: {EXTRA}") from error
    try:
        importlib.import_module("tinker.types.optimizer")
    except ImportError as error:
        raise UserError(f"serve needs tinker 0.38 or newer (its clients may be older): {EXTRA}") from error


def token_for(host: str) -> str | None:
    """The key that clients have to send; None where any will do. Raises :class:`~policyopt.errors.UserError` for an address
    that others can reach and no key, and for a key that no client of the package could send."""
    token = os.environ.get(TOKEN) or None
    if token is None and host not in LOOPBACK:
        raise UserError(
            f"--host {host}: others can reach this address, and no key is set: set {TOKEN} in the environment, or leave --host out"
        )
    if token is not None and not (token.startswith("tml-") and len(token) >= 20 and token.isascii()):
        raise UserError(
            f"{TOKEN}: it has to begin with tml-, as the tinker package demands, and have 20 characters at least"
        )
    return token


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; port 0 takes a free one. Raises :class:`~policyopt.errors.UserError` where the address cannot
    be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family, backlog=1024) as found:
            yield found
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from error


def serve(load: Callable[[], tuple[Any, list[str]]], folder: Path, *, host: str, port: int, queue: int,
          say: Callable[[str], None]) -> None:  # fmt: skip
    """Serve a model until a signal ends it: ``load`` gives the policy and the names that it goes by. Raises
    :class:`~policyopt.errors.UserError` for whatever makes it impossible, before the model is loaded where that can be
    told."""
    need_packages()
    token = token_for(host)
    from policyopt.serve.store import opened

    with opened(folder) as store, listening(host, port) as found:
        from policyopt.serve.service import Service

        say("loading the model")
        policy, names = load()
        service = Service(policy, names, store, queue)
        service.start()
        try:
            bound = found.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            key = f"${TOKEN}" if token else "tml-any"
            say(f"model   {' = '.join(names)}")
            say(f"folder  {folder}")
            say(f"point the tinker package at it: TINKER_BASE_URL=http://{shown}:{bound} TINKER_API_KEY={key}")
            _run(service, token, found, local=host in LOOPBACK)
        finally:
            service.stop()


def _run(service: Any, token: str | None, found: socket.socket, *, local: bool) -> None:
    import uvicorn

    from policyopt.serve.app import App

    class Server(uvicorn.Server):
        """Lets those who wait for a result go when it ends."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            loop.call_soon_threadsafe(app.closing.set)
            super().handle_exit(sig, frame)

    app = App(service, token, local=local)
    config = uvicorn.Config(
        app.asgi, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5,
        timeout_keep_alive=75, server_header=False, ws="none",
    )  # fmt: skip
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(Server(config).serve(sockets=[found]))
