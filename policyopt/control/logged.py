"""What the log calls what judges say."""

from __future__ import annotations

LOGGED = {"correct": "accuracy", "formatted": "format"}
"""What the log calls the means of a verdict's own components; the others are ``component/NAME``."""


def logged(component: str) -> str:
    """The metric that holds the mean of a component of the verdict."""
    return LOGGED.get(component, f"component/{component}")
