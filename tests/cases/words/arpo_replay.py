"""What cases call things in ARPO with replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.arpo_replay import ReplayedSuccess, arpo_replay
from policyopt.objective import advantages, shaped
from policyopt.rows import make_batch


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    made = ReplayedSuccess(
        capacity=params["capacity"], success=params["success"], spread=params["std_threshold"], mean=params["mean_threshold"]
    )  # fmt: skip
    pairs = zip(given["eval_result"], given["format_reward"], strict=True)
    drawn = [{"eval_result": e, "format_reward": f} for e, f in pairs]
    rows, replaced, after = list(drawn), [0] * len(drawn), {}
    for group in dict.fromkeys(given["group"]):
        places = [i for i, g in enumerate(given["group"]) if g == group]
        stored = given["buffer"].get(str(group), [])
        if stored and made.failed([drawn[i]["eval_result"] for i in places]):
            rows[places[0]], replaced[places[0]] = stored[given["buffer_pick"][str(group)]], 1
        after[str(group)] = made.kept(stored, [(drawn[i], drawn[i]["eval_result"]) for i in places])
    result, form = (
        torch.tensor([r[name] for r in rows], dtype=torch.float64) for name in ("eval_result", "format_reward")
    )
    batch = make_batch(
        mask=torch.ones(len(rows), 1, dtype=torch.float64), group=torch.tensor(given["group"]), reward=result
    )
    recipe = arpo_replay(cost=params["format_weight"], costly="unread")
    scored = shaped(recipe, batch.replace(**{"component[unread]": -form}))
    return {
        "replaced": replaced,
        "reward": scored.reward,
        "advantage": advantages(recipe, scored)[:, 0],
        "buffer_after": after,
    }


CASES = {"advantage": _advantage}
