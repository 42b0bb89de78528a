"""Rows of a batch as the protocol has them: the ids of a text, and numbers on the tokens that follow each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policyopt.rows import Batch


@dataclass(frozen=True)
class Row:
    """A row of a batch that has a token to learn from."""

    number: int
    """Which row of the batch it is."""
    ids: list[int]
    """Of its prompt and of all that is present of its response, others' tokens included."""
    places: Tensor
    """[M] where the tokens of ``mask`` stand in the response."""
    targets: Tensor
    """[M] where they stand among the targets, which are the ids from the second on."""

    def spread(self, values: Tensor) -> list[float]:
        """Numbers [M] of its tokens as one for every target, 0 elsewhere."""
        out = torch.zeros(len(self.ids) - 1, dtype=torch.float64)
        out[self.targets] = values.to(out)
        return out.tolist()


def rows_of(batch: Batch) -> Iterator[Row]:
    """The rows of a batch in order, as :func:`policyopt.models.places.pack` joins them, each for itself."""
    mask, asked = batch.mask.bool(), batch.prompt_mask.bool()
    present = mask if batch.present is None else batch.present.bool()
    for i in mask.any(1).nonzero()[:, 0].tolist():
        prompt = batch.prompt[i, asked[i]].tolist()
        places = mask[i].nonzero()[:, 0]
        targets = len(prompt) + present[i].cumsum(0)[places] - 2
        yield Row(i, prompt + batch.tokens[i, present[i]].tolist(), places, targets)


def datum(types: Any, ids: Sequence[int], **inputs: Sequence[float]) -> Any:
    """A text as the SDK takes it, with numbers for every target."""
    given = {"target_tokens": types.TensorData(data=list(ids[1:]), dtype="int64")}
    given |= {name: types.TensorData(data=list(x), dtype="float32") for name, x in inputs.items()}
    return types.Datum(model_input=types.ModelInput.from_ints(list(ids[:-1])), loss_fn_inputs=given)


def gathered(batch: Batch, rows: Sequence[Row], found: Sequence[Sequence[float]]) -> Tensor:
    """[N, T] numbers of every target of each row, on the tokens of ``mask``; 0 elsewhere."""
    out = torch.zeros_like(batch.mask)
    for row, values in zip(rows, found, strict=True):
        out[row.number, row.places] = torch.tensor(values, dtype=torch.float64)[row.targets].to(out)
    return out


def logprobs(answer: Any) -> list[list[float]]:
    """The log-probabilities of all targets in what a pass over some texts gives back."""
    outputs: Sequence[Mapping[str, Any]] = answer.loss_fn_outputs
    return [list(map(float, x["logprobs"].data)) for x in outputs]
