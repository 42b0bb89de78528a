"""What clients send."""

from __future__ import annotations

from typing import Any

import torch


def datum(tokens: list[int], **columns: Any) -> Any:
    """A text whose every token but the first is a target; columns are for these."""
    from tinker import types

    found = {name: torch.as_tensor(x, dtype=torch.float32) for name, x in columns.items()}
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": tokens[1:], **found}
    )


def texts(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(6, 102, (n,), generator=generator).tolist() for n in lengths]


def logprobs(output: Any) -> list[list[float]]:
    """Of each text of a ``ForwardBackwardOutput``."""
    return [each["logprobs"].tolist() for each in output.loss_fn_outputs]
