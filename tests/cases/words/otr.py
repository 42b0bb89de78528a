"""What the cases of otr call things."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.distillation.otr import OneToken, counts
from policyopt.rows import Batch, masked

from ._grown import on_batch


class _Drawn(OneToken):
    """The loss with the tokens that the case has drawn, [M, K]."""

    drawn: Tensor

    def frequency(self, logits: Tensor, target: Tensor) -> Tensor:
        """The share of each token among the draws."""
        return counts(self.drawn, logits) / self.drawn.shape[-1]


def _drawn(run: Run) -> Batch:
    """The batch under a recipe whose draws are given."""
    loss: Any = run.recipe.regularizers[0]
    given = _Drawn(**{f.name: getattr(loss.of, f.name) for f in dataclasses.fields(loss.of)})
    object.__setattr__(given, "drawn", torch.tensor(run.given["samples"]).flatten(0, 1))
    run.recipe = run.recipe.replace(regularizers=(dataclasses.replace(loss, of=given),))
    return run.batch


def _part(run: Run) -> _Drawn:
    loss: Any = run.recipe.regularizers[0]
    part: _Drawn = loss.of
    return part


def _hits(run: Run) -> Tensor:
    """How often each token of the demonstration was drawn."""
    tokens = run.batch.tokens
    found = counts(_part(run).drawn, run.logits["policy"].flatten(0, 1)).gather(-1, tokens.reshape(-1, 1))
    return found.view_as(run.batch.mask)


COLUMNS = {"logits": ("policy", "logits"), "target": ("tokens", "token"), "samples": ("", "free")}
PARAMS = {"beta": "wrong"}
KEYS = on_batch(
    _drawn,
    {
        "sampling_probs": lambda run: _part(run).exploration(run.logits["policy"]),
        "hits": _hits,
        "token_loss": lambda run: masked(run.batch.stat(_part(run)), run.batch.mask),
    },
)
