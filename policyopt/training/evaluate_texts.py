"""Held-out evaluation of given texts: how likely the policy finds them, and how their pairs compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policyopt.errors import UserError
from policyopt.items import Example
from policyopt.recipe import Recipe
from policyopt.rows import join
from policyopt.training.collect import Collector
from policyopt.training.evaluate import Scores
from policyopt.training.metrics import text_metrics

_BLOCK = 64


@dataclass
class TextEvaluator:
    """Measures a policy on held-out texts, always the same ones; nothing is drawn.

    A prompt that does not fit into the context is left out.
    """

    collector: Collector
    examples: Sequence[Example]
    recipe: Recipe

    def check(self) -> None:
        """Raises :class:`~policyopt.errors.UserError` when no prompt fits into the context."""
        if not self._fitting():
            raise UserError(
                f"all held-out prompts are longer than the {self.collector.stream.longest} tokens that the model's context "
                "leaves beside the response: lower --max-tokens, or take a model with a longer context"
            )

    def __call__(self, samples: int = 0, k: int = 1, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Mean log-probability per token (``loglik``), and of pairs ``pairs/margin`` and ``pairs/accuracy``; ``samples``
        and ``k`` mean nothing here."""
        taken, pieces = self._fitting(), []
        for start in range(0, len(taken), _BLOCK):
            pieces.append(self.collector.texts(self.recipe, taken[start : start + _BLOCK], start))
            if progress:
                progress(min(start + _BLOCK, len(taken)), len(taken))
        batch = join(pieces)
        found = {name: x for name, x in text_metrics(batch).items() if name.startswith(("loglik", "pairs/"))}
        lengths = [int(n) for n in batch.length().tolist()]
        records = [r | {"length": n} for r, n in zip(batch.records or (), lengths, strict=True)]
        return Scores({**found, "length": sum(lengths) / len(lengths), "n": len(taken), "lengths": lengths}, records)

    def _fitting(self) -> list[tuple[Example, tuple[int, ...]]]:
        stream = self.collector.stream
        tokens = [(example, self.collector.engine.text.prompt(example.prompt)) for example in self.examples]
        return [(example, ids) for example, ids in tokens if len(ids) <= stream.longest]
