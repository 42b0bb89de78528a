"""Questions and judges. Nothing here imports torch: a judge's worker process starts fast."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from policyopt.data.places import is_dataset, need_places, written
from policyopt.errors import UserError
from policyopt.items import EnvironmentSpec, Example, JudgeSpec, Message, Task, Verdict

if TYPE_CHECKING:
    from policyopt.data.drawn import Drawn
    from policyopt.judging.pool import JudgePool

__all__ = ["Example", "JudgePool", "JudgeSpec", "Message", "Task", "Verdict", "builtin_tasks", "load_task", "need_task"]

_PREFIX = "reasoning-gym:"
_DIVERSE = "diverse:"
"""A task whose judge also says how varied a text is."""
_ANSWERS = "answers:"
"""What a model has answered to another task, as texts to learn from."""
_FORMS = (
    "a task is a built-in name ({builtin}), reasoning-gym:NAME, a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), "
    "or the id of a dataset on the hub (owner/name)"
)


def __getattr__(name: str) -> Any:
    if name == "JudgePool":
        return importlib.import_module("policyopt.judging.pool").JudgePool
    raise AttributeError(f"module 'policyopt.data' has no attribute {name!r}")


def _drawn() -> dict[str, Drawn]:
    """The testbeds whose questions are drawn by chance and that have no option, by name."""
    from policyopt.data.assign import ASSIGN
    from policyopt.data.biased import BIASED_LENGTH
    from policyopt.data.context import CONTEXT_USE
    from policyopt.data.cyclic import CYCLIC
    from policyopt.data.divisors import MANY_ANSWERS
    from policyopt.data.mixed import MIXED_DIFFICULTY
    from policyopt.data.modes import MODES
    from policyopt.data.proxy import PROXY_REWARD
    from policyopt.data.shortcut import SHORTCUT
    from policyopt.data.sparse import SPARSE_HARD
    from policyopt.data.thought import BIASED_THOUGHT
    from policyopt.data.verbose import VERBOSE

    drawn = (
        SPARSE_HARD,
        MIXED_DIFFICULTY,
        MANY_ANSWERS,
        BIASED_LENGTH,
        PROXY_REWARD,
        VERBOSE,
        CONTEXT_USE,
        BIASED_THOUGHT,
        SHORTCUT,
        MODES,
        CYCLIC,
        ASSIGN,
    )
    return {bed.name: bed for bed in drawn}


def builtin_tasks() -> dict[str, str]:
    """The built-in tasks: name and one line of description."""
    from policyopt.data.builtin import BUILTIN
    from policyopt.data.noisy import NOISY_JUDGE
    from policyopt.data.paired import summaries as paired
    from policyopt.data.requests import summaries as requests
    from policyopt.data.testbed import TIES
    from policyopt.data.winded import LONG_WINDED
    from policyopt.data.worlds import summaries as worlds

    testbeds = {"ties": TIES, **_drawn(), "noisy-judge": NOISY_JUDGE, "long-winded": LONG_WINDED}
    return {
        **{name: task.summary for name, task in {**BUILTIN, **testbeds}.items()},
        "json": "a sum with its working, as a JSON object in a fence: json 12+34",
        **requests(),
        **paired(),
        **worlds(),
    }


def _made(spec: str) -> Callable[..., Task] | None:
    """What makes the task of a name that is no dataset, from a seed and the number of held-out questions."""
    from policyopt.data.builtin import BUILTIN
    from policyopt.data.noisy import noisy_judge_task
    from policyopt.data.paired import LENGTH_PAIRS, PAIRS, paired_task
    from policyopt.data.reasoning import load_reasoning
    from policyopt.data.requests import requests_task
    from policyopt.data.structured import json_task
    from policyopt.data.testbed import ties_task
    from policyopt.data.winded import long_winded_task
    from policyopt.data.worlds import seeds_task, world_task
    from policyopt.environments.worlds import WORLDS

    plain = {
        "seeds": seeds_task,
        "json": json_task,
        "long-winded": long_winded_task,
        **{name: bed.task for name, bed in _drawn().items()},
    }
    with_option: dict[str, Callable[..., Task]] = {
        "ties": ties_task,
        "requests": requests_task,
        "noisy-judge": noisy_judge_task,
    }
    with_option |= {world: partial(world_task, world) for world in WORLDS}
    with_option |= {family: partial(paired_task, family) for family in (PAIRS, LENGTH_PAIRS)}
    family, _, option = spec.partition(":")
    if family in with_option:
        return partial(with_option[family], option)
    if spec in BUILTIN or spec.startswith(_PREFIX):
        return partial(load_reasoning, spec.removeprefix(_PREFIX), builtin=spec in BUILTIN)
    return plain.get(spec)


def _is_world(spec: str) -> bool:
    from policyopt.environments.worlds import WORLDS

    return spec.partition(":")[0] in WORLDS


def need_task(spec: str) -> None:
    """Raises ``UserError`` for a name that is no task and for a file that is not there. Nothing is loaded."""
    if spec.startswith(_DIVERSE):
        need_task(spec.removeprefix(_DIVERSE))
    elif spec.startswith(_ANSWERS):
        from policyopt.data.answered import need_answers

        need_answers(spec)
    elif is_dataset(spec):
        need_places(spec)
    elif _made(spec) is None:
        known = list(builtin_tasks())
        close = difflib.get_close_matches(spec, known, n=3, cutoff=0.5)
        nearest = f"; nearest: {', '.join(close)}" if close else ""
        raise UserError(f"no task is called {spec!r}{nearest}; " + _FORMS.format(builtin=", ".join(known)))


def _diverse(spec: str, inner: Task) -> JudgeSpec:
    if inner.judge is None:
        raise UserError(f"{spec}: the task has no answers, so that there is no judge to add to")
    return JudgeSpec("diverse", {"judge": inner.judge.name, "options": dict(inner.judge.options)})


def _named(spec: Any, argument: str) -> Any:
    try:
        return written(spec, argument)
    except ValueError as error:
        raise UserError(str(error)) from None


def load_task(
    spec: Any, *, judge: Any = None, options: Mapping[str, Any] | None = None, prior: str | None = None, seed: int = 0,
    heldout: int | None = 256, columns: Any = None, eval_task: Any = None, whole: bool = False, env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> Task:  # fmt: skip
    """The task that ``spec`` names.

    Args:
        spec: A built-in task (``"chain_sum"``, ``"ties:0.01"``, ``"requests:chain_sum"``), any dataset of reasoning-gym (``"reasoning-gym:sudoku"``), or files or a
            dataset on the hub, as :mod:`policyopt.data.places` names them (``"data.jsonl"``, ``"train.csv,heldout.csv"``,
            ``"a.jsonl*2+b.jsonl"``, ``"owner/name:config@split"``); or the rows themselves (:func:`policyopt.data.places.written`).
        judge: Who judges the responses to a dataset: ``math``, ``exact``, ``number``, ``regex``, ``choice``, ``llm``,
            ``package.module:function`` or ``file.py:function``, a callable, or several of these with weights
            (:mod:`policyopt.judging.names`). Without one, the answers decide (see
            :func:`policyopt.data.dataset.load_dataset_task`). Tasks of reasoning-gym bring their own.
        options: Options of the judge, ``{"tolerance": 0.01}``; of one of several ``{"NAME.tolerance": 0.01}``.
        prior: A prior prompt before every question: a name of :mod:`policyopt.data.prior`, or a text.
        seed: Which training questions a generated task draws. Held-out questions do not depend on it.
        heldout: How many held-out questions (of a dataset: at most a quarter of its rows). ``None``: 256, or with ``whole``
            all rows.
        columns: Which column of a dataset is what, ``"prompt=question,answer=gold"`` or a mapping; unset: their names say it
            (:mod:`policyopt.data.columns`).
        eval_task: Files or a dataset to measure on, whole; then nothing else is held out.
        whole: For measuring alone: of a dataset, ``heldout`` are all rows (or so many of them).
        env: What the policy acts in (:mod:`policyopt.environments.names`); the rows of a dataset then need no answers, and the task
            ``seeds`` is made of nothing but seeds.
        env_options: What it is made with.

    Raises:
        UserError: An unknown task, judge or prior prompt, a dataset row that cannot be used (with file and line), an empty dataset.
    """
    found = _loaded(
        spec, judge=judge, options=options, prior=prior, seed=seed, heldout=heldout, columns=columns, eval_task=eval_task,
        whole=whole, acted=env is not None, world={} if env is not None else env_options or {},
    )  # fmt: skip
    if env is not None:
        return placed(found, EnvironmentSpec(env, dict(env_options or {})))
    if env_options and found.environment is None:
        raise UserError("--env-options are for an environment: name one with --env")
    return found if not env_options else placed(found, None, env_options)


def _answered(spec: str) -> Task:
    """What was answered to a task, which is loaded as it was then."""
    from policyopt.data.answered import answered_task, asked, read_origin

    origin = read_origin(asked(spec)[0])
    return answered_task(spec, load_task(origin.pop("task"), options=origin.pop("judge_options"), **origin))


def placed(task: Task, environment: EnvironmentSpec | None, options: Mapping[str, Any] | None = None) -> Task:
    """A task in an environment, or in its own one made with other options.

    An agent may take the questions of a world of the library, which it then plays without that world. Raises ``UserError`` for a world in
    another environment.
    """
    own = task.environment
    if environment is None:
        assert own is not None
        environment = EnvironmentSpec(own.name, {**own.options, **(options or {})})
    elif own is not None and not environment.name.startswith("agent:"):
        raise UserError(f"task {task.name!r} is an environment itself: leave --env out, or take --task seeds")
    return dataclasses.replace(task, environment=environment)


def _loaded(
    spec: Any, *, judge: Any, options: Mapping[str, Any] | None, prior: str | None, seed: int, heldout: int | None,
    columns: Any, eval_task: Any, whole: bool, acted: bool, world: Mapping[str, Any],
) -> Task:  # fmt: skip
    """See :func:`load_task`; where it is ``acted`` in an environment, rows need no answers. ``world``: with which options a world of
    the library is made, its questions and what its warm start shows included."""
    from policyopt.data.prior import with_prior

    spec, eval_task = _named(spec, "task"), _named(eval_task, "eval_task")
    read: dict[str, Any] = {
        "heldout": heldout,
        "columns": columns,
        "eval_task": eval_task,
        "whole": whole,
        "acted": acted,
    }
    if prior is not None:
        return with_prior(
            _loaded(spec, judge=judge, options=options, prior=None, seed=seed, world=world, **read), prior
        )
    if heldout is not None and heldout < 1:
        raise UserError(f"heldout must be at least 1, not {heldout}")
    need_task(spec)
    if spec.startswith(_DIVERSE):
        inner = _loaded(
            spec.removeprefix(_DIVERSE), judge=judge, options=options, prior=None, seed=seed, world=world, **read
        )
        return dataclasses.replace(inner, judge=_diverse(spec, inner))
    made = (lambda **_: _answered(spec)) if spec.startswith(_ANSWERS) else _made(spec)
    if made is not None:
        if judge is not None or options:
            raise UserError(f"task {spec!r} brings its own judge: leave out judge and its options")
        if columns is not None or eval_task is not None:
            raise UserError(
                f"task {spec!r} makes its own questions: leave out columns and eval_task, which are for datasets"
            )
        options_of_world = {"options": world} if world and _is_world(spec) else {}
        return made(seed=seed, heldout=256 if heldout is None else heldout, **options_of_world)
    from policyopt.data.dataset import load_dataset_task

    return load_dataset_task(spec, judge=judge, options=options, **read)
