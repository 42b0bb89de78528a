"""What the cases of TW-GRPO call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.credit.tw_grpo import subset_credit
from policyopt.objective import log_ratios


def _rewards(given: Mapping[str, Any]) -> dict[str, Any]:
    pairs = zip(given["predicted"], given["truth"], strict=True)
    return {"reward": [subset_credit(frozenset(chosen), frozenset(right)) for chosen, right in pairs]}


def _token_weight(run: Any) -> Any:
    batch = run.credited
    return run.all_rows(run.part("weight.DisagreementWeight")(log_ratios(run.recipe, batch), batch) * batch.mask)


CASES = {"reward": _rewards}
COLUMNS = {"logits": ("policy", "logits")}
KEYS = {"token_weight": _token_weight}
