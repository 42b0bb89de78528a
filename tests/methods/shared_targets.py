"""What several tests of methods share: targets of likelihood beside the responses, and guides that write a part of them: ExPO, GRAO, RLGF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from policyopt.rows import Batch
from policyopt.sources.program import Response
from tests.asking import Asked, ask
from tests.batches import random_batch
from tests.cases.words._scripted import Script, verdict

SOLUTION = (11, 12, 13, 14, 15, 2)


SOURCE = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0, 1, 1])
"""Two prompts with one target each, one with two."""


GROUPS = (4, 2, 4)


def with_targets(seed: int = 0, **changes: Any) -> Batch:
    return random_batch(seed, groups=GROUPS, **changes).replace(origin=SOURCE)


def with_guide(seed: int = 0) -> Batch:
    """Rows that a guide finished after 0, 1 or 2 tokens, and targets."""
    batch = with_targets(seed, lengths=(5, 6, 3, 4, 2, 6, 4, 1, 5, 3))
    begun = torch.tensor([2, 1, 0, 9, 1, 9, 2, 0, 9, 9])
    return batch.replace(guided=(torch.arange(6) >= begun[:, None]).double() * batch.mask)


def main(batch: Batch) -> Batch:
    return batch[batch.origin == 0]


def main_mask(batch: Batch) -> Tensor:
    return batch.mask * (batch.origin == 0)[:, None]


class Author(Script):
    """Writes given texts of characters, one after the other, and remembers what it was asked."""

    def __init__(self, texts: Sequence[Sequence[int]], verdicts: Sequence[Any] = ()) -> None:
        super().__init__(())
        self.texts, self.verdicts, self.requests = list(texts), list(verdicts), list[tuple[tuple[int, ...], Any]]()

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **how: Any) -> list[Response]:
        self.requests.append((tuple(tokens), how))
        out = []
        for _ in range(n):
            text = list(self.texts[self.asked % len(self.texts)])[: how["max_tokens"]]
            found = self.verdicts[self.asked] if self.asked < len(self.verdicts) else verdict(0.0)
            out.append(
                Response(
                    text, [-1.0] * len(text), [1.0] * len(text), "eos" if text[-1] == 2 else "length", verdict=found
                )
            )
            self.asked += 1
        return out

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        n = len(written)
        return Response(
            list(written),
            [-3.0] * n,
            [0.5] * n,
            "eos" if written[-1] == 2 else "length",
            versions=[7] * n,
            temperature=temperature,
        )


def characters(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def asked(sampler: Author, key: tuple[int, ...] = (0, 0, 0), budget: int = 40, **how: Any) -> Asked:
    return ask(
        sampler, characters("1+1?"), budget, key, sampler.judge, how.pop("solution", SOLUTION), encode=characters,
        decode=lambda ids: "".join(chr(i) for i in ids if i != 2), end=(2,), text="1+1?", frame=characters,
        **{"answer": "2", **how},
    )  # fmt: skip
