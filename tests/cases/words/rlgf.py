"""What cases call things in RLGF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from policyopt.methods.guidance.rlgf import GuidedValueLoss, Setting, WithGuide, finished_by
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Response
from policyopt.training.rows import to_batch

from ._scripted import begun_mask, beside, verdict, with_targets

COLUMNS = {"origin": ("origin", "row"), "guided": ("guided", "token")}


def _batch(setting: Setting, mask: Sequence[Sequence[int]], begun: Sequence[int]) -> Batch:
    """Rows with response masks, whose first ``begun`` tokens the one wrote and the rest the other."""
    if setting == "ppo++":
        return make_batch(mask=begun_mask(mask, begun))
    if setting != "aggrevated":
        raise ValueError(f"algorithm {setting!r} has two settings: name the one, ppo++ or aggrevated")
    rows = []
    for row, h in zip(mask, begun, strict=True):
        length, h = int(sum(row)), min(h, int(sum(row)))
        start, rest = (Response([0] * n, [0.0] * n, [0.0] * n, "eos") for n in (length, length - h))
        rows.append(finished_by(start, rest, h))
    found = to_batch([()] * len(rows), rows, [verdict(0.0)] * len(rows), [0] * len(rows), 1, torch.float64)
    gap = (0, len(mask[0]) - found.mask.shape[1])
    return make_batch(mask=pad(found.mask, gap), **({} if found.guided is None else {"guided": pad(found.guided, gap)}))


def _masks(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which setting each iteration has, and from which tokens policy and critic learn in either."""
    params, critic = given["params"], GuidedValueLoss()
    programs = {
        "d2lols": WithGuide(algorithm="d2lols", tau=params["d2lols_tau"]),
        "lols": WithGuide(algorithm="lols", tau=params["lols_tau"]),
    }
    draws = list(zip(given["iteration"], given["u"], strict=True))
    settings: tuple[Setting, ...] = ("ppo++", "aggrevated")
    batches = {name: _batch(name, given["mask"], given["rollin_len"]) for name in settings}
    return {
        **{name: [program.setting(*draw) for draw in draws] for name, program in programs.items()},
        "policy_mask": {name: batch.own().tolist() for name, batch in batches.items()},
        "value_mask": {name: critic.learned(batch).tolist() for name, batch in batches.items()},
    }


def _rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows that one began and the other finished, with reference texts."""
    rows = _batch(given["params"].get("algorithm", "ppo++"), given["mask"], given["rollin_len"])
    own = {name: x for name, x in given.items() if name != "rollin_len"} | {"mask": rows.mask.tolist()}
    if rows.guided is not None:
        own["guided"] = rows.guided.tolist()
    targets = len(given.get("target_mask", ()))
    return with_targets(own, "target", [f"target {i}" for i in range(targets)])


GIVEN = {"loss": _rows}
KEYS = {
    **beside("target"),
    "train_mask": lambda run: run.batch.own()[: len(run.asked["mask"]), : len(run.asked["mask"][0])],
}
CASES = {"mask": _masks}
