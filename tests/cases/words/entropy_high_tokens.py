"""High-entropy tokens: the words of its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyopt.lens.given import Unsupported


def _interpolated(name: str) -> dict[str, Any]:
    """The quantile interpolates linearly; there is no other kind here."""
    if name != "linear":
        raise Unsupported(f"params quantile: {name!r} is none of linear")
    return {}


PARAMS: Mapping[str, Any] = {"quantile": _interpolated}

KEYS: Mapping[str, Callable[[Any], Any]] = {
    "threshold": lambda run: float(run.part("weight.SelectedWeight").tokens.cut(run.credited)[0]),
    "selected": lambda run: run.all_rows(run.part("weight.SelectedWeight").tokens(run.credited).to(run.batch.mask)),
}
