"""Measure and read a model without training it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console as RichConsole

from policyopt.data.choose import judge_words
from policyopt.engine import make_sampler
from policyopt.errors import UserError, explain
from policyopt.items import Example, Task, Verdict, user
from policyopt.judging.pool import JudgePool
from policyopt.methods.length.castillo import spread
from policyopt.models.load import DTypeName, Policy
from policyopt.models.loaded import named
from policyopt.models.prompting import Prompting
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Question, Response
from policyopt.sources.truncation import Truncation, truncated
from policyopt.training.console import Console
from policyopt.training.evaluate import Evaluator, Scores
from policyopt.training.process import memory_errors, need_one_process
from policyopt.training.prompts import PromptStream
from policyopt.training.run import need_judge
from policyopt.training.settings import Fields, JudgeLike, ModelLike, Rows
from policyopt.training.setup import load_model, room, told
from policyopt.training.worlds import player_of, task_in

SHORTER = "take a smaller --max-tokens, fewer questions or samples, or --dtype bfloat16"
"""What to do where memory runs out."""


def evaluate(
    model: ModelLike = "embedded", task: Rows = "chain_sum", *, judge: JudgeLike | None = None, judge_options: Mapping[str, Any] | None = None,
    prior: str | None = None, prompts: int | None = None, columns: str | Mapping[str, str] | None = None, samples: int = 4, k: int = 4,
    temperature: float = 1.0, top_p: float = 1.0, max_tokens: int | None = None, seed: int = 0, device: str = "auto",
    dtype: DTypeName = "float32", prompting: Prompting | Fields | None = None, max_failed: float = 0.2, env: str | None = None,
    env_options: Mapping[str, Any] | None = None, episodes: Episodes | None = None,
) -> Scores:  # fmt: skip
    """Scores of a model on all rows of a dataset, or on ``prompts`` of them; on 256 held-out questions of a generated task.
    Progress goes to standard error.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, and where the judge fails on
    a larger share of the responses than ``max_failed``.
    """
    need_one_process()
    name, how = _name(model), _prompting(prompting)
    if samples and not 1 <= k <= samples:
        raise UserError(f"--k {k}: pass@k needs k between 1 and --samples ({samples})")
    questions = task_in(
        task, env, env_options or {}, judge=judge, options=judge_options, prior=prior, seed=seed, heldout=prompts, columns=columns, whole=True,
    )  # fmt: skip
    with _opened(name, questions, dtype=dtype, device=device, prompting=how) as (policy, pool, console):
        budget, longest = room(policy.context, max_tokens, questions)
        for note in questions.notes:
            console.note(note)
        player = player_of(questions, policy.text, policy.context, episodes or Episodes(), pool is not None)
        evaluator = Evaluator(
            policy.text, told(make_sampler(policy), console), pool, questions.heldout, budget, longest, seed,
            max_failed=max_failed, option="--max-failed", temperature=temperature, top_p=top_p, player=player,
        )  # fmt: skip
        return evaluator(samples, k, lambda done, total: console.task("evaluation", done, total))


def sample(
    model: ModelLike = "embedded", task: Rows = "chain_sum", *, judge: JudgeLike | None = None, judge_options: Mapping[str, Any] | None = None,
    prompt: str | None = None, columns: str | Mapping[str, str] | None = None, questions: int = 4, n: int = 1, temperature: float = 1.0,
    top_p: float = 1.0, top_k: int | None = None, min_p: float = 0.0, max_tokens: int | None = None, seed: int = 0,
    device: str = "auto", dtype: DTypeName = "float32", prompting: Prompting | Fields | None = None, env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Responses of a model to held-out questions of a task, judged, or to one prompt, unjudged.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, or a prompt does not fit.
    """
    need_one_process()
    name, how = _name(model), _prompting(prompting)
    if n < 1 or questions < 1 or temperature < 0:
        raise UserError(
            f"--n {n}, --questions {questions}, --temperature {temperature}: at least 1, 1 and 0 are needed"
        )
    source = task_in(
        task, env, env_options or {}, judge=judge, options=judge_options, seed=seed, heldout=questions, columns=columns, whole=True,
    )  # fmt: skip
    examples = list(source.heldout)[:questions] if prompt is None else [Example("--prompt", user(prompt), "")]
    with _opened(name, source, dtype=dtype, device=device, prompting=how) as (policy, pool, console):
        player = (
            None if prompt is not None else player_of(source, policy.text, policy.context, Episodes(), pool is not None)
        )
        cut = Truncation(top_p, top_k, min_p)
        _, drawn = _drawn(
            policy,
            console,
            source,
            examples,
            player,
            cut,
            n=n,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
        texts = [policy.text.told(responses) for responses in drawn]
        verdicts: list[Verdict | None] = [r.verdict for responses in drawn for r in responses]
        if prompt is None and player is None:
            assert pool is not None
            verdicts = list(pool([(e, text) for e, group in zip(examples, texts, strict=True) for text in group]))
    return _shown(examples, texts, iter(verdicts))


def lengths(
    model: ModelLike = "embedded", task: Rows = "chain_sum", *, judge: JudgeLike | None = None, judge_options: Mapping[str, Any] | None = None,
    columns: str | Mapping[str, str] | None = None, prompts: int = 32, samples: int = 10, temperature: float = 1.0, top_p: float = 1.0,
    top_k: int | None = None, min_p: float = 0.0, max_tokens: int | None = None, seed: int = 0, device: str = "auto",
    dtype: DTypeName = "float32", prompting: Prompting | Fields | None = None, env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How long a model's responses to held-out questions of a task are, in tokens of its own: what
    :func:`~policyopt.methods.length.castillo.spread` says of each question (``prompts``) and of all responses (``all``), and the most that was
    allowed (``cap``). Nothing is judged.

    Raises :class:`~policyopt.errors.UserError` where model, task or numbers cannot be used, or a prompt does not fit.
    """
    need_one_process()
    name, how = _name(model), _prompting(prompting)
    if prompts < 1 or samples < 1 or temperature < 0:
        raise UserError(
            f"--prompts {prompts}, --samples {samples}, --temperature {temperature}: at least 1, 1 and 0 are needed"
        )
    source = task_in(
        task, env, env_options or {}, judge=judge, options=judge_options, seed=seed, heldout=prompts, columns=columns, whole=True,
    )  # fmt: skip
    examples = list(source.heldout)[:prompts]
    with _opened(name, source, judged=bool(source.environment), dtype=dtype, device=device, prompting=how) as (
        policy,
        pool,
        console,
    ):
        player = player_of(source, policy.text, policy.context, Episodes(), pool is not None)
        cut = Truncation(top_p, top_k, min_p)
        cap, drawn = _drawn(
            policy,
            console,
            source,
            examples,
            player,
            cut,
            n=samples,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
    found = [[sum(r.own) if r.own else len(r.tokens) for r in responses] for responses in drawn]
    rows = [{"id": e.id, **_spread(row, cap)} for e, row in zip(examples, found, strict=True)]
    return {"cap": cap, "prompts": rows, "all": _spread([n for row in found for n in row], cap)}


def _spread(found: Sequence[int], cap: int) -> dict[str, Any]:
    said = asdict(spread(found, cap))
    return {**said, "percentiles": {f"{p:g}": x for p, x in said["percentiles"].items()}}


def _drawn(
    policy: Policy, console: Console, task: Task, examples: Sequence[Example], player: Player | None, truncation: Truncation, *,
    n: int, temperature: float, max_tokens: int | None, seed: int,
) -> tuple[int, list[list[Response]]]:  # fmt: skip
    """The budget of a response, and ``n`` responses to each example, or as many episodes."""
    budget, longest = room(policy.context, max_tokens, task)
    stream = PromptStream(examples, policy.text, seed=0, longest=longest, skip=False)
    sampler = told(make_sampler(policy), console)
    drawing = truncated(sampler, truncation)
    asked = []
    for i, example in enumerate(examples):
        tokens, key = stream.encode(example), (seed, -1, i)
        if player is None:
            request = drawing.generate(tokens, n=n, max_tokens=budget, temperature=temperature, key=key)
        else:
            request = player.play(
                example, Question(tokens, budget, key), drawing, n=n, temperature=temperature, key=key
            )
        asked.append(request)
    return budget, sampler.run(asked)


@contextmanager
def _opened(
    model: str, task: Task, *, judged: bool = True, **options: Any
) -> Iterator[tuple[Policy, JudgePool | None, Console]]:
    """A model with the judge of a task, and a view of what goes on that leaves standard output to the result."""
    header = {"model": model, "task": task.name, "judge": judge_words(task.judge, task.judge_reason)}
    with (
        memory_errors(SHORTER),
        Console(header, 0, out=RichConsole(stderr=True, highlight=False)) as console,
        nullcontext()
        if not judged or (task.environment and not task.judge)
        else JudgePool(need_judge(task.judge, task)) as pool,
    ):
        policy = load_model(model, task, console.task, **options)
        policy.text.say_unread(console.note)
        yield policy, pool, console


def _shown(
    examples: Sequence[Example], texts: Sequence[Sequence[str]], verdicts: Iterator[Verdict | None]
) -> list[dict[str, Any]]:
    return [
        {
            "prompt": "\n".join(m["content"] for m in example.prompt),
            "responses": [
                {"response": text, "score": v.score if v and v.rewarded else None, "reason": v.reason if v else None}
                for text, v in zip(group, verdicts)
            ],
        }
        for example, group in zip(examples, texts, strict=True)
    ]


def _name(model: ModelLike) -> str:
    try:
        found: str = str(model) if isinstance(model, Path) else named(model)
        return found
    except ValueError as error:
        raise UserError(f"model: {error}") from None


def _prompting(fields: Prompting | Fields | None) -> Prompting | None:
    try:
        return Prompting(**fields) if isinstance(fields, Mapping) else fields
    except ValidationError as error:
        raise UserError(explain(error, "prompting")) from error
