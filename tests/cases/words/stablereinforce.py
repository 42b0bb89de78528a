"""Words of StableReinforce."""

from collections.abc import Mapping
from typing import Any

from policyopt.lens.given import build_batch
from policyopt.methods.clip.stablereinforce import SigmaFilter

COLUMNS = {"consistency": ("consistency", "row")}


def filtered(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case gives the advantage before it is standardised."""
    batch = build_batch(given, {})
    return {"advantage": SigmaFilter(sigma=given["params"]["sigma"]).filtered(batch.advantage, batch.mask)}


CASES = {"advantage": filtered}
