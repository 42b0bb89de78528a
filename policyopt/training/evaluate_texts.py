"""Held-out evaluation of given texts: how likely the policy finds them, and how their pairs compare; and beside them of what the
policy says itself, where the task has answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policyopt.errors import UserError
from policyopt.items import Example
from policyopt.recipe import Recipe
from policyopt.rows import join
from policyopt.training.collect import Collector
from policyopt.training.evaluate import Evaluator, Scores
from policyopt.training.metrics import text_metrics

_BLOCK = 64
_OF_TEXTS = ("loglik", "logp/", "gain/", "pairs/", "length/chosen", "length/rejected")
"""How the metrics begin that are taken of held-out texts."""


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
        """Mean log-probability per token (``loglik``), of pairs ``pairs/margin`` and ``pairs/accuracy``, and of both sides what
        :func:`~policyopt.training.metrics.side_metrics` says; ``samples`` and ``k`` mean nothing here."""
        taken, pieces = self._fitting(), []
        for start in range(0, len(taken), _BLOCK):
            pieces.append(self.collector.texts(self.recipe, taken[start : start + _BLOCK], start))
            if progress:
                progress(min(start + _BLOCK, len(taken)), len(taken))
        batch = join(pieces)
        found = {name: x for name, x in text_metrics(batch).items() if name.startswith(_OF_TEXTS)}
        lengths = [int(n) for n in batch.length().tolist()]
        records = [r | {"length": n} for r, n in zip(batch.records or (), lengths, strict=True)]
        return Scores({**found, "length": sum(lengths) / len(lengths), "n": len(taken), "lengths": lengths}, records)

    def _fitting(self) -> list[tuple[Example, tuple[int, ...]]]:
        stream = self.collector.stream
        tokens = [(example, self.collector.engine.text.prompt(example.prompt)) for example in self.examples]
        return [(example, ids) for example, ids in tokens if len(ids) <= stream.longest]


@dataclass
class BothEvaluator:
    """Measures a policy on held-out texts and, on the same questions, on what it says itself."""

    texts: TextEvaluator
    answers: Evaluator

    @property
    def examples(self) -> Sequence[Example]:
        """The held-out questions."""
        return self.answers.examples

    def check(self) -> None:
        """Raises :class:`~policyopt.errors.UserError` when no prompt fits into the context."""
        self.texts.check()

    def __call__(self, samples: int = 0, k: int = 1, progress: Callable[[int, int], None] | None = None) -> Scores:
        """What an :class:`~policyopt.training.evaluate.Evaluator` finds, its lengths those of what was drawn, and how
        likely the texts are and how their pairs compare."""
        drawn = self.answers(samples, k, progress)
        given = self.texts().summary
        told = {name: x for name, x in given.items() if name.startswith(_OF_TEXTS)}
        return dataclasses.replace(drawn, summary=drawn.summary | told)


Measured = Evaluator | TextEvaluator | BothEvaluator
