"""What went wrong in a judge, and where: in words that name file, line and row."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_OWN = Path(__file__).parents[1]
_INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def of_row(what: str, row: str) -> str:
    """``"judge took longer than 10 s (row data.jsonl:17)"``."""
    return f"{what} (row {row})"


def blamed(error: BaseException) -> str:
    """``"my.py, line 12, in score: KeyError: 'x'"``: an error, and the last line of the user's own code on the way to it.

    Where that is installed code alone, it is the line that the library called; an error in no other code than the
    library's own has no place.
    """
    called = [frame for frame in traceback.extract_tb(error.__traceback__) if not _inside(frame.filename, _OWN)]
    own = [frame for frame in called if not any(_inside(frame.filename, home) for home in _INSTALLED)]
    frame = own[-1] if own else called[0] if called else None
    if frame is None:
        return f"judge raised {_said(error)}"
    return f"{_short(frame.filename)}, line {frame.lineno}, in {frame.name}: {_said(error)}"


def _said(error: BaseException) -> str:
    """Type and message on one line; the message of a stranger's error may itself fail."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(its message cannot be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _inside(file: str, home: Path) -> bool:
    return file.startswith("<") or Path(file).is_relative_to(home)


def _short(file: str) -> str:
    """The path from the current folder, where the file lies below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
