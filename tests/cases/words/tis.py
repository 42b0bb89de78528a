"""Words of TIS."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

from torch import Tensor

from policyopt.parts.weight.mismatch import Mode


def weight(mode: str) -> Callable[[Any], Tensor]:
    """The weight of a mode, whichever the recipe has."""

    def compute(run: Any) -> Tensor:
        found: Tensor = dataclasses.replace(run.part("weight.SamplerMismatch"), mode=mode)(
            run.batch.old_logp, run.batch
        )
        return found * run.batch.mask

    return compute


KEYS = {f"weight_{mode}": weight(mode) for mode in get_args(Mode)}
