"""What cases call things in Ruler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.length.ruler import label, matches


def _matched(given: Mapping[str, Any]) -> dict[str, Any]:
    return matches(given["target"], given["words"]) | {"mlt_label": [label(n) for n in given.get("label_words", [])]}


CASES = {"metric": _matched}
