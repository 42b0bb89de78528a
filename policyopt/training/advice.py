"""What to look at where no response is right: the task may be too hard, or the judge may read the answers wrongly."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyopt.carried import is_carried
from policyopt.items import JudgeSpec
from policyopt.judging.judges import judge_name
from policyopt.training.config import TrainConfig

STEPS = 3
"""So many first steps without a right response are told."""
SHOWN = 3

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_OTHER = {"number": "math", "math": "number", "exact": "math", "choice": "exact", "regex": "exact"}
"""What to try in the place of a judge."""


@dataclass
class Advice:
    """Says once, through ``note``, that nothing was right so far."""

    config: TrainConfig
    judge: JudgeSpec | None
    note: Callable[[str], None]
    wrong: int = field(default=0, init=False)
    """Steps from the first one on without a right response."""

    def evaluated(self, records: Sequence[Mapping[str, Any]]) -> None:
        """After the evaluation before training."""
        if records and self.judge and not _any_right(records):
            self.note(
                no_right_answer(f"none of {len(records)} held-out answers is right", records, self.judge, self.config)
            )
            self.judge = None

    def stepped(self, step: int, records: Sequence[Mapping[str, Any]]) -> None:
        """After a step, with the records of its batch."""
        if self.judge and step <= STEPS and records and not _any_right(records):
            self.wrong += 1
            if self.wrong == STEPS:
                self.note(
                    no_right_answer(
                        f"no response of the first {STEPS} steps is right", records, self.judge, self.config
                    )
                )


def _any_right(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one is right, or worth something: a judge of one's own may have no word for right."""
    return any(r.get("correct") or (r.get("score") or 0) > 0 for r in records)


def no_right_answer(fact: str, records: Sequence[Mapping[str, Any]], judge: JudgeSpec, config: TrainConfig) -> str:
    """The fact, three responses with the judge's reasons, and the command that shows more of them under another judge."""
    lines = [f"{fact}. Look at {SHOWN} of them, and at what the judge ({judge_name(judge)}) says:"]
    for record in _varied(records):
        lines += [
            f"  asked  {_line(record.get('prompt'), 100)}",
            f"  said   {_line(record.get('response'), 160, end=True) or '(nothing)'}",
            f"  judge  {_line(record.get('reason'), 160)}",
        ]
    line = ["policyopt", "sample", "--model", config.model, "--task", config.task]
    line += ["--max-tokens", str(config.max_tokens)] if config.max_tokens else []
    other = _OTHER.get(judge.name)
    given = [config.judge] if isinstance(config.judge, str) else [*(config.judge or ())]
    line += [word for name in ([other] if other else given) for word in ("--judge", name)]
    mend = (
        "try another one, or write one (my_judge.py:score), before you train" if other else "mend it before you train"
    )
    lines += [
        f"If right answers are among them, the judge cannot read them: {mend}",
        "If they are cut off, raise --max-tokens; if they are wrong, the questions are too hard for this model",
        f"  {_in_python(other) if is_carried(config.model) or is_carried(config.task) else shlex.join(line)}",
    ]
    return "\n".join(lines)


def _in_python(judge: str | None) -> str:
    return f"policyopt.sample(model=..., task=...{f', judge={judge!r}' if judge else ''})"


def _varied(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A few records, of different reasons where there are some."""
    kinds: dict[str, Mapping[str, Any]] = {}
    for record in records:
        kinds.setdefault(_QUOTED.sub("", str(record.get("reason"))), record)
    found = list(kinds.values())[:SHOWN]
    return [*found, *(r for r in records if r not in found)][:SHOWN]


def _line(text: Any, most: int, *, end: bool = False) -> str:
    """A text on one line, cut at its end or at its beginning."""
    words = " ".join(str("" if text is None else text).split())
    if len(words) <= most:
        return words
    return f"... {words[-most:]}" if end else f"{words[:most]} ..."
