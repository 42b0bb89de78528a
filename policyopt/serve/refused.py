"""What is said to a client whose request cannot be served."""

from __future__ import annotations


class Refused(Exception):
    """A request that is turned away, with the status of HTTP and what the client can do about it."""

    def __init__(self, message: str, status: int = 400, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


def gone(what: str) -> Refused:
    """For what this server had, or may have had before it was started anew, and has no longer."""
    return Refused(what, 410)


def unknown(what: str) -> Refused:
    """For what this server never had."""
    return Refused(what, 404)
