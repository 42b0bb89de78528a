"""What the model of a stage answers, judged and written down for the stages behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from policyopt.carried import is_carried
from policyopt.data.answered import ORIGIN, ROWS
from policyopt.engine import make_sampler
from policyopt.errors import UserError
from policyopt.files import write_whole
from policyopt.items import Example, Task, Verdict
from policyopt.judging.pool import JudgePool
from policyopt.models.load import Policy, load_policy
from policyopt.part import Count, Positive, part
from policyopt.sources.program import Response
from policyopt.sources.truncation import TopP, Truncation, truncated
from policyopt.training.config import TrainConfig
from policyopt.training.judged import Tally
from policyopt.training.logging import disk_errors
from policyopt.training.prompts import PromptStream
from policyopt.training.setup import room

PHASE = -2
"""In the place of a step in the keys of random numbers: no step and no evaluation draws with these."""
BLOCK = 32
"""Questions that are answered, judged and written together."""

Tell = Callable[[int, int], None]
"""Called with the questions answered so far, and how many there will be."""


@part
class Answers:
    """What the model of a stage is asked when it has been trained: training questions of the stage's task, several responses to each."""

    prompts: Count = 256
    """How many questions: the first ones of the task that fit into the context."""
    samples: Count = 8
    """Responses to each."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    top_p: TopP = 1.0
    """Sample from the fewest likeliest tokens whose probability is at least this together; 1 samples from all."""
    max_tokens: Count | None = None
    """Budget of a response; unset: that of the stage."""


def are_written(folder: Path) -> bool:
    """Whether all answers lie in a folder."""
    return (folder / ORIGIN).is_file()


def write_answers(
    folder: Path, model: str, config: TrainConfig, task: Task, answers: Answers, tell: Tell | None = None
) -> None:
    """Let a model answer and write down what it said, block by block: what a killed process has left is gone on with, and the same
    answers come of it. ``origin.json`` is there when all are.

    ``config`` is that of the stage, ``task`` what it was trained on. Raises :class:`~policyopt.errors.UserError` where the judge fails on
    more responses than ``judging.max_failed`` allows.
    """
    assert task.judge is not None and not is_carried(config.task)
    path, how = folder / ROWS, config.judging
    with disk_errors(path):
        folder.mkdir(exist_ok=True)
        done = _kept(path)
    policy = load_policy(
        model, dtype=config.dtype, device=config.device, attention=config.attention, prompting=config.prompting
    )
    budget, longest = room(policy.context, answers.max_tokens or config.max_tokens, task)
    stream = PromptStream(
        task.train, policy.text, seed=config.seed, longest=longest, skip=config.long_prompts == "skip"
    )
    places = _first(stream, answers.prompts)
    tally = Tally()
    with JudgePool(task.judge, timeout=how.timeout, memory_mb=how.memory_mb, workers=how.workers) as judge:
        for start in range(done, len(places), BLOCK):
            block = places[start : start + BLOCK]
            questions = [task.train[i] for i in block]
            drawn = _drawn(policy, stream, questions, answers, budget, (config.seed, start))
            texts = [policy.text.told(responses) for responses in drawn]
            said = judge([(q, text) for q, group in zip(questions, texts, strict=True) for text in group])
            tally.add(said)
            tally.limit(how.max_failed, "judging.max_failed", (len(places) - done) * answers.samples)
            verdicts = iter(said)
            lines = [
                _line(i, q, group, responses, [next(verdicts) for _ in group])
                for i, q, group, responses in zip(block, questions, texts, drawn, strict=True)
            ]
            with disk_errors(path), path.open("ab") as file:
                file.write("".join(lines).encode("utf-8", "replace"))
            if tell:
                tell(start + len(block), len(places))
    with disk_errors(folder / ORIGIN):
        write_whole(folder / ORIGIN, json.dumps(_origin(config, model, answers), indent=1), durable=True)


def _kept(path: Path) -> int:
    """How many whole blocks a file of rows begins with; what stands behind them is cut off."""
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    whole = len(lines) if not lines or lines[-1].endswith(b"\n") else len(lines) - 1
    kept = whole // BLOCK * BLOCK
    with path.open("r+b") as file:
        file.truncate(sum(map(len, lines[:kept])))
    return kept


def _first(stream: PromptStream, most: int) -> list[int]:
    """The places of the first questions that fit."""
    found: list[int] = []
    for place in range(len(stream.examples)):
        if len(found) == most:
            break
        if len(stream.encode(stream.examples[place])) <= stream.longest:
            found.append(place)
    if not found:
        raise UserError(f"answers: no question fits into the {stream.longest} tokens that the context leaves")
    return found


def _drawn(
    policy: Policy, stream: PromptStream, questions: Sequence[Example], answers: Answers, budget: int, key: tuple[int, int]
) -> list[list[Response]]:  # fmt: skip
    seed, start = key
    sampler = make_sampler(policy)
    drawing = truncated(sampler, Truncation(answers.top_p))
    return sampler.run(
        [
            drawing.generate(
                stream.encode(q), n=answers.samples, max_tokens=budget, temperature=answers.temperature,
                key=(seed, PHASE, start + i),
            )
            for i, q in enumerate(questions)
        ]
    )  # fmt: skip


def _line(
    place: int, question: Example, texts: Sequence[str], responses: Sequence[Response], said: Sequence[Verdict]
) -> str:
    """A line of ``rows.jsonl``: only what the judge gave a score."""
    kept = [(t, v, len(r.tokens)) for t, r, v in zip(texts, responses, said, strict=True) if v.rewarded]
    row: dict[str, Any] = {
        "place": place,
        "id": question.id,
        "prompt": question.prompt[0]["content"] if len(question.prompt) == 1 else list(question.prompt),
        "answer": question.answer,
        "responses": [text for text, _, _ in kept],
        "scores": [verdict.score for _, verdict, _ in kept],
        "correct": [verdict.correct for _, verdict, _ in kept],
        "lengths": [length for _, _, length in kept],
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _origin(config: TrainConfig, model: str, answers: Answers) -> dict[str, Any]:
    plain = config.to_dict()
    names = ("task", "judge", "judge_options", "columns", "eval_task", "prior", "seed")
    drawn = {name: getattr(answers, name) for name in ("prompts", "samples", "temperature", "top_p", "max_tokens")}
    return {**{name: plain[name] for name in names}, "heldout": config.eval.prompts, "model": model, "drawn": drawn}
