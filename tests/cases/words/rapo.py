"""RAPO: the words of its cases, which give phi row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.given import build_logits
from policyopt.methods.entropy.rapo import ForwardKL, RewardTempered
from policyopt.objective import token_gradients
from policyopt.rows import FIXED, Batch, masked

COLUMNS = {"ref_logits": ("", "free"), "phi": ("", "free")}


def _reference(run: Any) -> Tensor:
    """The reference's log-probabilities at the powers of the case: with a floor of 0, phi is the reward itself."""
    logits, batch = build_logits("ref_logits", run.given["ref_logits"], run.batch.mask), run.batch
    phi = torch.tensor(run.given["phi"], dtype=logits.dtype)[:, None].expand_as(batch.mask)
    flat = logits.flatten(0, 1)
    others = {"reference": flat, "reward": phi.flatten()}
    found = RewardTempered(floor=0.0)(flat, batch.tokens.flatten(), others)
    return masked(found.reshape(batch.mask.shape), batch.mask)


def _term(run: Any) -> ForwardKL | None:
    return next((r for r in run.recipe.regularizers if isinstance(r, ForwardKL)), None)


def _batch(run: Any) -> Batch:
    batch: Batch = run.credited
    return batch.with_statistics({FIXED + (_term(run) or ForwardKL()).target.key: _reference(run)[run.keep]})


def _result(run: Any) -> tuple[Tensor, Tensor]:
    loss, gradients = token_gradients(run.recipe, _batch(run), {"logp": run.credited.logp})
    return loss, run.all_rows(gradients["logp"])


def _kl(run: Any) -> Tensor:
    batch = _batch(run)
    return (run.recipe.aggregate(batch) * (_term(run) or ForwardKL()).estimate(batch)).sum()


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "reweighted_ref_logp": _reference,
    "pg_loss": lambda run: token_gradients(
        run.recipe.replace(regularizers=()), run.credited, {"logp": run.credited.logp}
    )[0],
    "forward_kl": _kl,
    "loss": lambda run: _result(run)[0],
    "dloss_dlogp": lambda run: _result(run)[1],
}
