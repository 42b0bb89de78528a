"""The testbed ``long-winded``: sums whose working is gone over again before the answer is given. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import random

from policyopt.data.builtin import BUILTIN, Entry
from policyopt.items import Task

ROUNDS = (1, 2, 3)
"""How many times the working stands in a solution, each as often."""

NAME = "long-winded"


def again(entry: Entry) -> tuple[list[str], str]:
    """The steps of a sum, once or several times over, and the answer."""
    lines, answer = BUILTIN["chain_sum"].steps(entry)
    return lines * random.Random(f"{NAME} {entry['metadata']['expression']}").choice(ROUNDS), answer


LONG_WINDED = dataclasses.replace(
    BUILTIN["chain_sum"],
    summary="sums of four numbers, whose working says everything up to three times: 9+6-1+4=?",
    steps=again,
    max_tokens=112,
    warm_start={"terse": 0.0},
)


def long_winded_task(*, seed: int, heldout: int) -> Task:
    """The task ``long-winded``: the questions of ``chain_sum`` for a model that works them out well, and then goes on."""
    from policyopt.data.reasoning import reasoning_task

    task = reasoning_task("chain_sum", seed=seed, heldout=heldout, builtin=LONG_WINDED)
    return dataclasses.replace(task, name=NAME)
