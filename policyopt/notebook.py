"""What a notebook shows: text with colours as HTML, and an output that is redrawn in place."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

WIDTH = 100
"""Characters of a line."""
_PRE = '<pre style="line-height:1.3;white-space:pre;overflow-x:auto;font-family:monospace">{code}</pre>'
_PAUSE = 0.25
"""Seconds between two drawings."""


def in_kernel() -> bool:
    """Whether this process answers a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def html_of(show: Callable[[Console], object], width: int = WIDTH) -> str:
    """What a function prints on a console, as HTML that needs no style sheet; whatever it prints is text there."""
    out = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, force_jupyter=False, highlight=False,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    show(out)
    return out.export_html(code_format=_PRE, inline_styles=True)


class Output:
    """An output of a notebook's cell that shows something as it is now."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what
        self._handle: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        """Show it for the first time."""
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)

    def refresh(self) -> None:
        """Draw it anew, unless that was done just now."""
        if time.monotonic() - self._drawn > _PAUSE:
            self._draw()

    def stop(self) -> None:
        """Draw it for the last time."""
        self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        self._drawn = time.monotonic()
        return html_of(lambda out: out.print(self._what))
