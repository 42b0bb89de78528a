"""What all pages share: one file that needs nothing else, one stylesheet, and one script that alone may run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from policyopt.files import write_whole

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, script: str, **data: Any) -> str:
    """A page from its template, with the script that it runs after the switch of the theme.

    A content security policy lets nothing else run and nothing be fetched.
    """
    code = _script(template_text("theme.js") + script)
    return (
        _templates()
        .get_template(template)
        .render(
            css=template_text("report.css"),
            script=code,
            hash=f"'sha256-{_digest(code)}'",
            **data,
        )
    )


@cache
def _templates() -> Environment:
    """Kept, because a template takes longer to compile than to fill."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, page: str) -> Path:
    """Write a page, whole or not at all, and return where. Raises ``OSError`` as any writing does."""
    write_whole(path, page)
    return path


def template_text(name: str) -> str:
    """A file that lies beside the templates."""
    return (_TEMPLATES / name).read_text("utf-8")


def _script(text: str) -> str:
    # A browser hashes what its parser saw, which never holds a carriage return.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("a script of the page holds markup that would end it early")
    return text


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
