"""The order in which a run sees its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyopt.data.examples import place_of
from policyopt.errors import UserError
from policyopt.items import TEXTS, Example
from policyopt.models.text import Text
from policyopt.sources.source import Source
from policyopt.training.mixture import order_of


class PromptStream:
    """Every training prompt once per pass, in an order that follows from the seed and the pass alone; where sources have
    weights, their prompts as often as those say.

    The whole state is ``cursor``, the number of prompts taken so far: a resumed run goes on where it stopped. Prompts
    of more than ``longest`` tokens are refused, or skipped and counted; they are never cut. So are examples of which
    ``source`` reads a text that does not fit into the ``context`` of the model behind its prompt.
    """

    def __init__(
        self, examples: Sequence[Example], text: Text, *, seed: int, longest: int, skip: bool,
        weights: Mapping[str, float] | None = None, source: Source | None = None, context: int | None = None,
    ) -> None:  # fmt: skip
        self.examples, self.text, self.seed, self.longest, self.skip = examples, text, seed, longest, skip
        self.source, self.context = source, context
        self.left: frozenset[int] = frozenset()
        """The places of examples whose texts do not fit, which are skipped."""
        self.cursor = 0
        self.skipped = 0
        self._order = order_of(examples, seed, weights or {})

    def check(self) -> int:
        """Read the prompts before the first step, and the texts that the source reads: all of a list, the first 256 of
        questions that are made on demand.

        Returns how many prompts are too long; ``left`` are the examples whose texts are. Raises
        :class:`~policyopt.errors.UserError` for one that is too long where such are refused, where all are, and for an example in which the source would miss something.
        """
        tried = _tried(self.examples)
        lengths = [len(self.encode(self.examples[i])) for i in range(tried)]
        too_long = {i for i, n in enumerate(lengths) if n > self.longest}
        if len(too_long) == tried:
            raise UserError(
                f"all of the first {tried} prompts are longer than the {self.longest} tokens that the model's context "
                "leaves beside the response: lower --max-tokens, or take a model with a longer context"
            )
        self.left = frozenset(i for i, n in enumerate(lengths) if i not in too_long and not self._readable(i, n))
        if len(too_long | self.left) == tried:
            raise UserError(
                f"each of the first {tried} rows has a text that does not fit behind its prompt into the {self.context} tokens of "
                "the model's context: shorten them, or take a model with a longer context"
            )
        return len(too_long)

    def _readable(self, place: int, prompt: int) -> bool:
        """Whether all that the source reads of an example fits behind its prompt of so many tokens.

        Raises :class:`~policyopt.errors.UserError` where it does not and such examples are not skipped, and where the source
        would miss something.
        """
        if self.source is None or self.context is None:
            return True
        example, reads = self.examples[place], self.source.reads
        if missing := self.source.lacks(example):
            raise UserError(f"{_place(example)}: {missing}, which {type(self.source).__name__} reads")
        texts = [(name, text) for name in TEXTS if name in reads and (text := getattr(example, name))]
        texts += [("a response", text) for text in example.responses if "responses" in reads]
        for name, text in texts:
            if prompt + len(text.encode()) < self.context:  # no token is shorter than a byte
                continue
            if prompt + (length := len(self.text.given(text))) > self.context:
                if self.skip:
                    return False
                what = "its text" if name == "labelled" else name
                raise UserError(
                    f"{_place(example)}: {what} has {length} tokens, {prompt} stand before it, and the model's context holds "
                    f"{self.context}: shorten it, take a model with a longer context, or leave such rows out with --long-prompts skip"
                )
        return True

    def check_solutions(self, method: str) -> int:
        """How many of the same prompts have no worked solution.

        Raises :class:`~policyopt.errors.UserError` where none has one.
        """
        return check_solutions(self.examples, method)

    def take(self, n: int) -> list[tuple[Example, tuple[int, ...]]]:
        """The next ``n`` prompts that fit, with their tokens."""
        out: list[tuple[Example, tuple[int, ...]]] = []
        give_up = self.cursor + n + 2 * len(self.examples)
        while len(out) < n:
            if self.cursor >= give_up:
                raise UserError(
                    f"no prompt fits into the {self.longest} tokens that the model's context leaves: lower --max-tokens"
                )
            out += self._taken(self._order(self.cursor))
        return out

    def _taken(self, place: int) -> list[tuple[Example, tuple[int, ...]]]:
        """The prompt at a place with its tokens; none where it does not fit."""
        example = self.examples[place]
        self.cursor += 1
        tokens = self.encode(example)
        if len(tokens) <= self.longest and place not in self.left:
            return [(example, tokens)]
        self.skipped += 1
        return []

    def take_ranked(self, ranked: list[int], n: int) -> list[tuple[Example, tuple[int, ...]]]:
        """The next ``n`` prompts that fit of a ranking, with their tokens; they are taken out of it.

        Raises :class:`~policyopt.errors.UserError` where none is left.
        """
        out: list[tuple[Example, tuple[int, ...]]] = []
        while len(out) < n and ranked:
            out += self._taken(ranked.pop(0))
        if n and not out:
            raise UserError(
                "the curriculum has no prompt left for this step: take fewer prompts a step (--batch), fewer rounds "
                "(source.rounds), or more data"
            )
        return out

    def encode(self, example: Example) -> tuple[int, ...]:
        """The tokens of a prompt.

        Raises :class:`~policyopt.errors.UserError` for one that is too long, unless such prompts are skipped.
        """
        tokens = self.text.prompt(example.prompt)
        if len(tokens) > self.longest and not self.skip:
            raise UserError(
                f"prompt {example.id} has {len(tokens)} tokens, and the model's context leaves {self.longest} beside "
                "the response: shorten it, lower --max-tokens, or leave such prompts out with --long-prompts skip"
            )
        return tokens


def check_solutions(examples: Sequence[Example], method: str) -> int:
    """How many of the prompts that are read before the first step have no worked solution.

    Raises :class:`~policyopt.errors.UserError` where none has one.
    """
    tried = _tried(examples)
    missing = sum(examples[i].solution is None for i in range(tried))
    if missing == tried:
        raise UserError(
            f"{method} reads worked solutions, and none of the first {tried} training prompts has one: give the "
            "dataset a column 'solution', or take a method that needs none"
        )
    return missing


def _place(example: Example) -> str:
    """Where an example stands: the line of a file, or its name."""
    return place_of(example) if ":" in example.id and example.id.rpartition(":")[2].isdecimal() else example.id


def _tried(examples: Sequence[Example]) -> int:
    return len(examples) if isinstance(examples, list | tuple) else min(len(examples), 256)
