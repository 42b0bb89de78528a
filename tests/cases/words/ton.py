"""What cases call things in TON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.judging.answers import locate
from policyopt.methods.modes.ton import dropped, ton
from policyopt.objective import advantages, shaped
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of one token each; what is right is what stands in the answer's mark."""
    recipe, texts = ton(), given["completion"]
    found = [locate(text) for text in texts]
    right = [
        float(x is not None and x.marked and x.text == str(gold)) for x, gold in zip(found, given["gold"], strict=True)
    ]
    spans = {
        span.column: torch.tensor([[float(bool(span(text)))] for text in texts], dtype=torch.float64)
        for span in recipe.spans
    }
    batch = make_batch(
        mask=torch.ones(len(texts), 1, dtype=torch.float64),
        group=torch.tensor(given.get("group", [0] * len(texts))),
        correct=torch.tensor(right, dtype=torch.float64),
        reward=torch.tensor(right, dtype=torch.float64),
        **spans,
    )
    after = shaped(recipe, batch)
    skipped = after.component("skipped")
    return {
        "format": after.component("form"),
        "accuracy": batch.correct,
        "skipped": skipped,
        "skip_ratio": float(skipped.mean()),
        "reward": after.reward,
        "advantage": advantages(recipe, after)[:, 0],
    }


def _dropout(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    texts = [
        dropped(f"<think>{thought}</think>", uniform, params["p"], params["empty"])
        for thought, uniform in zip(given["thought"], given["uniform"], strict=True)
    ]
    return {"thought": [text.removeprefix("<think>").removesuffix("</think>") for text in texts]}


CASES = {"reward": _reward, "other": _dropout}
