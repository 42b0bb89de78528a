"""What cases call things in D3S."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.sampling.d3s import LargestCredit
from policyopt.objective import credit, selected
from policyopt.parts.pairing.pairs import row_credit
from policyopt.rows import Batch

from ._scheduled import scheduled


def _batch(run: Run) -> Batch:
    return credit(run.recipe, run.batch)


def _kept(run: Run) -> Tensor:
    return selected(run.recipe, _batch(run))


def _tokens(run: Run) -> LargestCredit:
    found: LargestCredit = run.part("weight.MeanOver").tokens
    return found


def _variance(run: Run) -> float:
    return float(row_credit(_batch(run))[_kept(run)].var(correction=0))


def _mask(run: Run) -> Tensor:
    batch, kept = _batch(run), _kept(run)
    out = batch.mask * 0
    out[kept] = _tokens(run)(batch[kept]).to(out)
    return out


def _schedule(run: Run) -> dict[str, Any]:
    """N and K at the step of the case; N is a number of responses, which the rule rounds."""
    recipe = scheduled(run.recipe, run.params["step"])
    return {
        "keep_rollouts": math.floor(recipe.get("select.MostVaried.keep") + 0.5),
        "keep_token_ratio": recipe.get("weight.MeanOver.tokens.share"),
    }


COLUMNS = {"entropy": ("sampled_entropy", "token")}
PARAMS = {
    "keep_rollouts": "select.MostVaried.keep",
    "keep_token_ratio": "weight.MeanOver.tokens.share",
    "step": None,
    "total_steps": "relax_steps",
}
KEYS = {
    "advantage": lambda run: _batch(run).advantage,
    "kept_rollouts": lambda run: _kept(run).nonzero()[:, 0],
    "kept_variance": _variance,
    "token_score": lambda run: _tokens(run).score(_batch(run)),
    "token_mask": _mask,
    "schedule": _schedule,
}
