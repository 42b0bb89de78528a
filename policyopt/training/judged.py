"""What the judge says of the responses of a step. One without a reward leaves its group here, before anything is computed
over the group.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, Verdict
from policyopt.judging.comparing import Comparison
from policyopt.judging.pool import JudgePool
from policyopt.models.text import Text
from policyopt.sources.program import Answered, Response
from policyopt.spans import span
from policyopt.training.services import record

TRAINING = "--judging.max-failed"
"""The option that sets the limit of a run."""
COSTLY = 1.0
"""Seconds of judging in a step from which on they are spoken of."""


def costly(stats: Mapping[str, float]) -> str:
    """What to say of a step in which judging took longer than drawing; ``""`` of any other."""
    judging, drawing = stats["time/judge"], stats["time/rollout"]
    if judging < COSTLY or judging <= drawing:
        return ""
    return (
        f"judging took {judging:.1f} s, drawing {drawing:.1f} s; a faster judge or more processes for it "
        "(--judging.workers) would help"
    )


def nothing_left(stats: Mapping[str, float]) -> str:
    """Why a step has nothing to train on."""
    unrewarded = stats.get("prompts/unrewarded", 0) >= stats["prompts"]
    return "no signal, no response has a reward" if unrewarded else "the filters left no prompt to train on"


@dataclass
class Tally:
    """How often the judge was asked, and how often it gave no reward."""

    asked: int = 0
    failed: int = 0
    """It raised, took too long, died, or returned nonsense."""
    absent: int = 0
    """It has nothing to say of the row."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The first reason of each kind."""

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count some verdicts."""
        self.asked += len(verdicts)
        for verdict in verdicts:
            if not verdict.rewarded:
                kind = "failed" if verdict.failed else "absent"
                setattr(self, kind, getattr(self, kind) + 1)
                self.reasons.setdefault(kind, verdict.reason)

    def limit(self, most: float, option: str, of: int | None = None) -> None:
        """Raises :class:`~policyopt.errors.UserError` where the judge failed on more than the share ``most`` of the
        responses: of those so far, or of the number that there will be."""
        if self.failed > most * (self.asked if of is None else of):
            raise UserError(
                f"the judge failed on {self.failed} of {self.asked} responses (the limit is {most:.0%}, {option}); "
                f"first: {self.reasons['failed']}"
            )

    def remark(self) -> str:
        """What a person should know: ``""`` where every response has a reward."""
        said = []
        if self.failed:
            said.append(f"the judge failed on {self.failed} of {self.asked} responses, first: {self.reasons['failed']}")
        if self.absent:
            said.append(f"{self.absent} of {self.asked} responses have no reward: {self.reasons['absent']}")
        return "; ".join(said)


class Opinions:
    """The judge for one step: what it was asked, how long that took, and which responses it leaves without a reward."""

    def __init__(self, judge: JudgePool | None, text: Text, most: float = 1.0) -> None:
        self.tally, self.seconds = Tally(), 0.0
        self.lost: list[dict[str, Any]] = []
        """What the log keeps of the responses that have left."""
        self.unrewarded = 0
        """Prompts of which every response has left."""
        self.costs: dict[str, float] = {}
        """What the verdicts have cost, by what is counted."""
        self.compared: list[Comparison] = []
        """What came of each prompt's comparisons, where the judge compares."""
        self._judge, self._text, self._most = judge, text, most

    @span("judge")
    def __call__(self, groups: Sequence[tuple[Example, Sequence[Response]]]) -> list[list[Verdict]]:
        """The verdicts on some responses to each of several questions; a judge that compares holds those to one question against each
        other."""
        if not any(responses for _, responses in groups):
            return [[] for _ in groups]
        assert self._judge is not None, "the source promised to need no judge"
        texts = iter(self._text.responses([r.tokens for _, responses in groups for r in responses]))
        asked = [(example, [next(texts) for _ in responses]) for example, responses in groups]
        start = time.perf_counter()
        if self._compares:
            self.compared += (comparisons := self._judge.compare(asked))
            found = [comparison.verdicts for comparison in comparisons]
        else:
            said = iter(self._judge([(example, text) for example, texts in asked for text in texts]))
            found = [[next(said) for _ in texts] for _, texts in asked]
        self.seconds += time.perf_counter() - start
        self.tally.add([verdict for verdicts in found for verdict in verdicts])
        for name, x in ((name, x) for verdicts in found for v in verdicts for name, x in v.costs.items()):
            self.costs[name] = self.costs.get(name, 0.0) + x
        return found

    @property
    def _compares(self) -> bool:
        return bool(getattr(self._judge, "compares", False))  # any function of items may judge

    def settle(self, groups: Sequence[Answered]) -> list[Answered]:
        """The groups with the verdicts that are still missing, and without the responses that have no reward; those that
        wait stay as they are. What a judge that compares has said while a program drew is said again: the group is known now.

        A prompt that is left without the responses of its baseline has nothing to be compared with: the others leave too. Raises
        :class:`~policyopt.errors.UserError` when the judge has failed on more of the step's responses than it may.
        """
        self.tally.add(
            [r.verdict for g in groups for r in g.responses if r.verdict is not None and "turn_end" in r.columns]
        )
        fresh = [[r for r in g.responses if r.use != "wait" and _unsettled(r)] for g in groups]
        said = self([(g.example, responses) for g, responses in zip(groups, fresh, strict=True)])
        for responses, verdicts in zip(fresh, said, strict=True):
            for response, verdict in zip(responses, verdicts, strict=True):
                response.verdict = verdict
        self.tally.limit(self._most, TRAINING)
        return [self._rewarded(group) for group in groups]

    def _rewarded(self, group: Answered) -> Answered:
        """A group without the responses that leave."""
        gone = [r for r in group.responses if r.verdict is not None and r.use != "wait" and not r.verdict.rewarded]
        if not gone:
            return group
        stay = [r for r in group.responses if not any(r is other for other in gone)]
        if any(r.use == "baseline" for r in gone) and not any(r.use == "baseline" for r in stay):
            stay = [r for r in stay if r.use == "wait"]
        self.lost += [self._record(group.example, response) for response in gone]
        self.unrewarded += not any(r.use == "train" for r in stay)
        return dataclasses.replace(group, responses=stay)

    def _record(self, example: Example, response: Response) -> dict[str, Any]:
        """A response that was not trained on, for the log."""
        assert response.verdict is not None
        asked = self._text.decode(response.context) if response.context else None
        return record(example, self._text.decode(response.tokens), response.verdict, asked) | {
            "reward": None,
            "length": len(response.tokens),
            "truncated": not response.finished,
            "pieces": self._text.pieces(response.tokens),
            "weights": [0.0] * len(response.tokens),
        }

    def stats(self) -> dict[str, float]:
        """What the log says of it."""
        return {
            "judge/failed": float(self.tally.failed),
            "judge/absent": float(self.tally.absent),
            "prompts/unrewarded": float(self.unrewarded),
            "time/judge": self.seconds,
            **{f"judge/{name}": x for name, x in self.costs.items()},
            **compared_stats(self.compared),
        }


def _unsettled(response: Response) -> bool:
    """Whether the judge has still to say what a response is worth in its group."""
    return response.verdict is None or "beats" in response.verdict.parts


def compared_stats(comparisons: Sequence[Comparison]) -> dict[str, float]:
    r"""What the log says of comparisons: how many pairs were compared, which share of them tied, and how much the order counted, the
    mean of :math:`|p_{ij} + p_{ji} - 1|`."""
    pairs = sum(c.asked for c in comparisons)
    if not pairs:
        return {}
    ties, gap = sum(c.ties for c in comparisons), sum(c.gap for c in comparisons)
    return {"judge/pairs": float(pairs), "judge/ties": ties / pairs, "judge/order": gap / pairs}
