"""Held-out evaluation: greedy accuracy, pass@k, different right answers, length, format."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from policyopt.engine.protocol import EngineSampler
from policyopt.errors import UserError
from policyopt.items import Example, Verdict, preferred
from policyopt.judging.answers import find_answer
from policyopt.judging.pool import JudgePool
from policyopt.models.text import Text
from policyopt.sources.desk import last_rows
from policyopt.sources.episodes import Player
from policyopt.sources.program import Question, Response
from policyopt.sources.truncation import Truncation, truncated
from policyopt.training.judged import TRAINING, Tally
from policyopt.training.mixture import accuracy_by_source
from policyopt.training.services import record

_BLOCK = 64
_WRONG = Verdict(0.0, False, False, "the question does not fit into the context")

_Groups = list[list[tuple[str, Response]]]
"""The responses to each question, with their texts."""


def pass_at_k(n: int, correct: int, k: int) -> float:
    r"""Probability that at least one of k responses is right, unbiased from n samples of which ``correct`` are.

    .. math:: 1 - \binom{n-c}{k} \Big/ \binom{n}{k}

    Source: Chen et al., arXiv:2107.03374, eq. 1. Raises ``ValueError`` where k is larger than n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def right_answers(texts: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """How many responses are right, and how many different answers these give: what a judge finds in the text, or else all of
    it."""
    right = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict.correct]
    return len(right), len({find_answer(text) or text.strip() for text in right})


def _mean(x: Sequence[float]) -> float | None:
    return sum(x) / len(x) if x else None


def _counted(counts: Sequence[tuple[int, int] | None]) -> dict[str, Any]:
    """What :func:`right_answers` says of the samples of each question."""
    right, answers = ([None if c is None else c[i] for c in counts] for i in (0, 1))
    return {"distinct": _mean([n for n in answers if n is not None]), "right": right, "answers": answers}


def exploited(beaten: Sequence[Sequence[float]]) -> dict[str, Any]:
    r"""How much the best opponent wins against the policy, from how often each beats the samples of each question:

    .. math:: \max_k \frac1Q\sum_q \frac1S\sum_s P(r_{qk} \succ y_{qs}) - \tfrac12

    0 for a policy that none beats more often than not, such as the minimax winner of a symmetric game; 1/2 where one beats it every
    time. An opponent is the same strategy in every question, so the mean over questions comes before the maximum. Raises ``ValueError``
    where questions have different numbers of opponents.
    """
    if not beaten:
        return {}
    return {"exploitability": max(sum(wins) / len(beaten) for wins in zip(*beaten, strict=True)) - 0.5}


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of the responses that have a reward, of each source of a mixture too, and the length of all."""
    known = [r for r in records if r["score"] is not None]
    return {
        "accuracy": _mean([r["correct"] for r in known]),
        "format": _mean([r["formatted"] for r in known]),
        "length": _mean([r["length"] for r in records]),
    } | accuracy_by_source(known)


def _counts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What environments counted, by name: means over the episodes that have a reward."""
    said = [v.parts for v in verdicts if v.rewarded]
    names = sorted({name for parts in said for name, x in parts.items() if isinstance(x, float)})
    return {f"component/{name}": _mean([float(cast(float, parts.get(name, 0.0))) for parts in said]) for name in names}


@dataclass(frozen=True)
class Scores:
    """What an evaluation found."""

    summary: dict[str, Any]
    """accuracy and format (of the responses that the judge gives a reward; ``None`` where it gives none at all), length
    (mean), accuracy/NAME of each source of a mixture, n, how many greedy responses have a reward (``judged``), how many responses
    the judge failed on (``judge/failed``) and does not apply to (``judge/absent``), and of all greedy responses, in the order
    of the questions, their lengths and whether they are right (``correct``; ``None`` where there is no reward).

    Where samples were asked for: pass@k, how many different right answers those of a question have (``distinct``, mean), and in
    the order of the questions how many are right (``right``) and how many different answers these are (``answers``); ``None`` and
    out of the mean where not all of them have a reward. Where the task brings opponents, how much the best of them wins
    (``exploitability``, :func:`exploited`)."""
    records: list[dict[str, Any]]
    """One record per greedy response."""
    sampled: list[tuple[tuple[int, ...], list[Response], list[Verdict]]] = field(default_factory=list)
    """Prompt, sampled responses and their verdicts, for each question whose responses all have a reward, where samples were
    asked for."""
    remark: str = ""
    """What a person should know of the judge."""

    def __repr__(self) -> str:
        numbers = (f"{name} {x:.4g}" for name, x in self.summary.items() if isinstance(x, float))
        return f"Scores({', '.join(numbers)}, n {len(self.records)})"

    def metrics(self) -> dict[str, float]:
        """The numbers for ``metrics.jsonl``."""
        return {f"eval/{name}": x for name, x in self.summary.items() if isinstance(x, float)}


@dataclass
class Evaluator:
    """Measures a policy on held-out questions, always the same ones with the same random numbers."""

    text: Text
    sampler: EngineSampler
    judge: JudgePool | None
    """``None`` where an environment says what episodes are worth."""
    examples: Sequence[Example]
    budget: int
    longest: int
    seed: int = 0
    max_failed: float = 1.0
    """The evaluation stops where the judge fails on a larger share of the responses."""
    option: str = TRAINING
    """The option that sets this limit."""
    temperature: float = 1.0
    """Of the sampled responses."""
    top_p: float = 1.0
    """What the sampled responses are truncated to."""
    player: Player | None = None
    """Plays episodes, where the questions are those of an environment."""

    def check(self) -> None:
        """Raises :class:`~policyopt.errors.UserError` when no question fits into the context."""
        if not any(self._fits(self._encode(e)) for e in self.examples):
            raise UserError(
                f"all held-out prompts are longer than the {self.longest} tokens that the model's context leaves "
                "beside the response: lower --max-tokens, or take a model with a longer context"
            )

    def __call__(self, samples: int = 0, k: int = 1, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Greedy responses to all questions; with ``samples``, also that many sampled ones each for pass@k.

        A question that does not fit into the context counts as wrong: it gets an empty response. Where the judge gives no
        reward, a response counts in no share; a question with fewer than k judged samples has no pass@k. Raises
        :class:`~policyopt.errors.UserError` once the judge has failed on more responses than it may.
        """
        tally, total = Tally(), len(self.examples) * (1 + samples)
        records: list[dict[str, Any]] = []
        passed: list[float] = []
        counts: list[tuple[int, int] | None] = []
        beaten: list[list[float]] = []
        greedily: list[Verdict] = []
        sampled: list[tuple[tuple[int, ...], list[Response], list[Verdict]]] = []
        for start in range(0, len(self.examples), _BLOCK):
            block = self.examples[start : start + _BLOCK]
            greedy, drawn = self._draw(block, start, samples)
            verdicts = self._verdicts(block, greedy)
            greedily += verdicts
            tally.add(verdicts)
            tally.limit(self.max_failed, self.option, total)
            for example, [(text, response)], verdict in zip(block, greedy, verdicts, strict=True):
                records.append(
                    record(example, text, verdict)
                    | {"length": len(response.tokens), "truncated": not response.finished}
                )
            if samples:
                judged = self._verdicts(block, drawn)
                tally.add(judged)
                tally.limit(self.max_failed, self.option, total)
                said = iter(judged)
                for example, group in zip(block, drawn, strict=True):
                    found = [next(said) for _ in group]
                    sound = [v for v in found if v.rewarded]
                    counts.append(None)
                    if len(sound) == samples:
                        sampled.append((self._encode(example), [r for _, r in group], found))
                        counts[-1] = right_answers([text for text, _ in group], found)
                    if len(sound) >= k:
                        passed.append(pass_at_k(len(sound), sum(v.correct for v in sound), k))
                beaten += self._beaten(block, drawn)
            if progress:
                progress(min(start + _BLOCK, len(self.examples)), len(self.examples))
        summary = _means(records) | (_counts(greedily) if self.player else {})
        if samples:
            summary |= {f"pass@{k}": _mean(passed)} | _counted(counts) | exploited(beaten)
        summary |= {
            "n": len(records),
            "judged": sum(r["score"] is not None for r in records),
            "judge/failed": tally.failed,
            "judge/absent": tally.absent,
            "lengths": [r["length"] for r in records],
            "correct": [None if r["score"] is None else r["correct"] for r in records],
        }
        return Scores(summary, records, sampled, tally.remark())

    def _beaten(self, block: Sequence[Example], drawn: _Groups) -> list[list[float]]:
        """How often each rival of a question beats the samples, for each question that has some and whose comparisons all came
        off."""
        if self.judge is None:
            return []
        asked = [
            (e, [*e.rivals, *(text for text, _ in group)]) for e, group in zip(block, drawn, strict=True) if e.rivals
        ]
        found = []
        for (example, texts), comparison in zip(asked, self.judge.compare(asked) if asked else (), strict=True):
            if all(v.rewarded for v in comparison.verdicts):
                table, n = preferred(comparison.verdicts), len(example.rivals)
                found.append([sum(row[n:]) / (len(texts) - n) for row in table[:n]])
        return found

    def _draw(self, block: Sequence[Example], start: int, samples: int) -> tuple[_Groups, _Groups]:
        """The greedy response to each question and so many sampled ones, drawn together; empty ones to a question that is too
        long."""
        tokens = [self._encode(e) for e in block]
        fitting = [i for i, t in enumerate(tokens) if self._fits(t)]
        plain, cut = self.sampler, truncated(self.sampler, Truncation(top_p=self.top_p))
        kinds = [(plain, 1, 0.0)] + ([(cut, samples, self.temperature)] if samples else [])
        asked = [
            self._answers(sampler, block[i], tokens[i], n, temperature, (self.seed, -1, start + i))
            for sampler, n, temperature in kinds
            for i in fitting
        ]
        drawn = iter(self.sampler.run(asked))
        greedy, sampled = ([[Response([], [], []) for _ in range(n)] for _ in block] for n in (1, samples))
        for responses in (greedy, sampled)[: len(kinds)]:
            for i in fitting:
                responses[i] = next(drawn)
        return self._read(greedy), self._read(sampled)

    def _answers(
        self, sampler: Any, example: Example, tokens: tuple[int, ...], n: int, temperature: float, key: tuple[int, ...]
    ) -> Awaitable[list[Response]]:
        """Responses to a question: episodes where there is an environment."""
        if self.player is None:
            return cast(
                Awaitable[list[Response]],
                sampler.generate(tokens, n=n, max_tokens=self.budget, temperature=temperature, key=key),
            )
        return self._played(
            self.player, sampler, example, Question(tokens, self.budget, key, name=example.id), n, temperature
        )

    @staticmethod
    async def _played(
        player: Player, sampler: Any, example: Example, question: Question, n: int, temperature: float
    ) -> list[Response]:
        """Episodes, each by its last row."""
        return last_rows(await player.play(example, question, sampler, n=n, temperature=temperature, key=question.key))

    def _verdicts(self, block: Sequence[Example], groups: _Groups) -> list[Verdict]:
        """What responses are worth: what the environment said, or else the judge."""
        rows = [(e, text, r) for e, group in zip(block, groups, strict=True) for text, r in group]
        asked = [(e, text) for e, text, r in rows if r.verdict is None]
        said = iter(() if self.judge is None else self.judge(asked) if asked else ())
        return [next(said, _WRONG) if r.verdict is None else r.verdict for _, _, r in rows]

    def _read(self, responses: Sequence[Sequence[Response]]) -> _Groups:
        """Responses with their texts."""
        texts = iter(self.text.responses([r.tokens for group in responses for r in group]))
        return [[(next(texts), r) for r in group] for group in responses]

    def _encode(self, example: Example) -> tuple[int, ...]:
        return self.text.prompt(example.prompt)

    def _fits(self, tokens: tuple[int, ...]) -> bool:
        return len(tokens) <= self.longest
