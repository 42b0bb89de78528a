"""Addresses under which the files of a checkpoint can be fetched for a while, by whoever has them."""

from __future__ import annotations

import hmac
import io
import secrets
import tarfile
import time
from email.utils import formatdate

from policyopt.serve.refused import Refused, gone
from policyopt.serve.store import RECORD, Saved, Store

VALID = 3600
"""Seconds."""
ARCHIVE = "archive.tar"


class Links:
    """Signs addresses, with a key that ends with the process."""

    def __init__(self, store: Store) -> None:
        self._store, self._key = store, secrets.token_bytes(32)

    def archive(self, saved: Saved) -> tuple[str, str]:
        """The path of all files of a checkpoint as a tar, and until when it is valid, as HTTP writes it."""
        return self._path(saved, ARCHIVE), formatdate(time.time() + VALID, usegmt=True)

    def files(self, saved: Saved) -> dict[str, str]:
        """The path of each file of a checkpoint that others read."""
        return {p.name: self._path(saved, p.name) for p in sorted(saved.folder.iterdir()) if p.name != RECORD}

    def _path(self, saved: Saved, file: str) -> str:
        what = f"{saved.path.removeprefix('tinker://')}/{file}"
        until = int(time.time()) + VALID
        return f"/api/v1/download/{until}/{self._signed(until, what)}/{what}"

    def _signed(self, until: int, what: str) -> str:
        return hmac.digest(self._key, f"{until}/{what}".encode(), "sha256").hex()

    def fetch(self, until: str, signature: str, what: str) -> bytes:
        """What lies behind an address. Raises :class:`~policyopt.serve.refused.Refused` for one that was not signed here, and
        for one that is over."""
        if not until.isdecimal() or not hmac.compare_digest(self._signed(int(until), what), signature):
            raise Refused("this address was not given out by this server: ask for a new one", 403)
        if int(until) < time.time():
            raise gone("this address is over: ask for a new one")
        path, _, file = what.rpartition("/")
        saved = self._store.find(f"tinker://{path}")
        return packed(saved) if file == ARCHIVE else (saved.folder / file).read_bytes()


def packed(saved: Saved) -> bytes:
    """The files of a checkpoint as a tar: adapters and their configuration as PEFT reads them, and what the optimiser keeps."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(saved.folder.iterdir()):
            tar.add(path, path.name, recursive=False)
    return out.getvalue()
