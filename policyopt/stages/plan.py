"""A plan, read: which stages follow one another, each an ordinary run, and what they hand on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from policyopt.data.answered import BRINGS, By, Form
from policyopt.engine import check_engine
from policyopt.errors import UserError, explain, nearest
from policyopt.files import read_yaml
from policyopt.items import Task
from policyopt.models.merging import Merging
from policyopt.own import resolve
from policyopt.part import part
from policyopt.stages.answers import Answers
from policyopt.training.config import TrainConfig, config_from_dict
from policyopt.training.names import ModelName, Place, TaskName
from policyopt.training.run import check_source, loaded, recipe_draws
from policyopt.training.setup import engine_kind, named_roles
from policyopt.training.trees import deep_update

FILE = "plan.yaml"
"""What the plan is called in its folder."""
ANSWERS = "answers"
"""The folder with a stage's answers, in its own."""
STAGE = "stage:"
"""``stage:NAME`` in the place of a model is what that stage has trained."""
OF_THE_TASK = ("task", "judge", "judge_options", "columns", "eval_task", "prior")
"""What rows bring: they are answers to the questions of the stage that they are from."""
OWN = ("name", "method", "answers", "rows", "merge", "recipe")
"""What a stage may say beside the fields of a run and the hyper-parameters of its method."""
_NAME = re.compile(r"[A-Za-z][\w.-]{0,39}")

StageName = Annotated[str, Field(pattern=rf"^{_NAME.pattern}$")]


@part
class Rows:
    """What a stage learns from: answers of a stage before it."""

    form: Form
    """``pairs`` (for dpo and its kin), ``demonstrations`` (sft), ``scored`` (several responses with scores), ``labelled`` (kto)."""
    of: StageName = "before"
    """The stage that answered; unset: the one just before."""
    by: By = "score"
    """Which of the answers: the best against the worst by their score, or the shortest right one against longer ones."""


@part
class Merge(Merging):
    """Models of stages as one, in the place of a run, as of ``policyopt merge``."""

    of: tuple[StageName, ...] = ()
    """The stages, two or more; ``start`` is the model that the plan begins with. Configuration and tokenizer are those of the first."""

    def __post_init__(self) -> None:
        if len(self.of) < 2:
            raise ValueError(f"of: a merge takes two models or more, got {len(self.of)}")
        if self.way == "average" and self.speaks_of_changes:
            raise ValueError("keep and scale are about changes: leave them out, or take how: changes or how: ties")


@dataclass(frozen=True)
class Stage:
    """A stage of a plan."""

    name: str
    config: TrainConfig
    """Its run, but for the folder, the rows of other stages, and models that are called ``stage:NAME``. Of a merge: that of the first
    of its models, with whose task it is measured."""
    answers: Answers | None = None
    """What its model is asked at its end."""
    rows: Rows | None = None
    merge: Merge | None = None

    @property
    def needs(self) -> list[str]:
        """The stages whose models or answers it takes."""
        named = [self.config.model, self.config.teacher or "", *self.config.roles.values()]
        found = [name.removeprefix(STAGE) for name in named if name.startswith(STAGE)]
        found = [*self.merge.of] if self.merge is not None else found
        return [*found, *([self.rows.of] if self.rows is not None else [])]


@dataclass(frozen=True)
class Plan:
    """Stages that follow one another."""

    name: str
    stages: tuple[Stage, ...]
    data: Mapping[str, Any]
    """What the plan was read from, with what the line changed."""

    def folder(self, out: Path, name: str) -> Path:
        """The folder of a stage in that of the plan: its number and its name."""
        return out / f"{[s.name for s in self.stages].index(name) + 1}-{name}"

    def to_yaml(self) -> str:
        """The plan as text; :func:`plan_from` reads it back."""
        return yaml.safe_dump(dict(self.data), sort_keys=False)


def anchored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with files and folders named from the root, so that a plan goes on from another directory too."""
    kinds: dict[str, Any] = {
        "task": TaskName,
        "eval_task": TaskName,
        "model": ModelName,
        "teacher": ModelName,
        "method": Place,
    }

    def named(name: str, value: Any) -> Any:
        if name == "roles" and isinstance(value, Mapping):
            return {role: named("model", model) for role, model in value.items()}
        return (
            str(TypeAdapter(kinds[name]).validate_python(value)) if name in kinds and isinstance(value, str) else value
        )

    return {name: named(name, value) for name, value in fields.items()}


def read_plan(path: Path, over: Mapping[str, Any] | None = None) -> Plan:
    """The plan in a YAML file; the fields of ``over`` go before those of every stage.

    Raises :class:`~policyopt.errors.UserError` naming the file, the stage and the field.
    """
    data = read_yaml(path)
    try:
        return plan_from(data, path.stem if path.name != FILE else path.absolute().parent.name, over)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def plan_from(data: Mapping[str, Any], name: str = "plan", over: Mapping[str, Any] | None = None) -> Plan:
    """A plan from plain data: ``stages``, a list, and beside it fields of a run (:class:`~policyopt.training.config.TrainConfig`) that
    hold for all of them.

    Everything that can be found out without a model is checked: names, fields, methods, tasks, and that every stage makes what those behind
    it need. Raises :class:`~policyopt.errors.UserError` naming the stage.
    """
    given = data.get("stages")
    if not isinstance(given, list) or not given or not all(isinstance(s, Mapping) for s in given):
        raise UserError("stages: expected a list of stages, each with a name and a method")
    name = str(data.get("name", name))
    shared = anchored(nested({k: v for k, v in data.items() if k not in ("stages", "name")}))
    line = nested(over or {})
    given = [anchored(deep_update(own, line) if "merge" not in own else own) for own in map(nested, given)]
    stages: list[Stage] = []
    for number, own in enumerate(given, 1):
        called = str(own.get("name") or own.get("method") or "merge")
        try:
            if not _NAME.fullmatch(called) or called in ("before", "start"):
                raise ValueError(
                    f"name: {called!r}: expected letters, digits, '.', '_' and '-', and neither before nor start"
                )
            if called in {s.name for s in stages}:
                raise ValueError("there are two stages of this name: give each a `name`")
            stages.append(_stage(called, own, shared, stages))
        except ValidationError as error:
            raise UserError(f"stage {number} ({called}): {explain(error)}") from error
        except (UserError, ValueError) as error:
            raise UserError(f"stage {number} ({called}): {error.args[0]}") from error
    plan = Plan(name, tuple(stages), {"name": name, **shared, "stages": given})
    _check(plan)
    return plan


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with those of a group inside a mapping: ``{"optim.lr": 1e-4}`` is ``{"optim": {"lr": 1e-4}}``, and ``max-tokens`` is
    ``max_tokens``."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        first, _, rest = str(name).replace("-", "_").partition(".")
        inner = nested({rest: value} if rest else value) if rest or _is_group(first, value) else value
        found = deep_update(found, {first: inner})
    return found


def _is_group(name: str, value: Any) -> bool:
    return isinstance(value, Mapping) and name not in (
        "recipe",
        "roles",
        "judge_options",
        "env_options",
        "task",
        "judge",
    )


def _stage(name: str, own: dict[str, Any], shared: Mapping[str, Any], before: Sequence[Stage]) -> Stage:
    """A stage from its fields. Raises ``ValueError`` or ``UserError`` for what cannot be."""
    rows = _rows(own.get("rows"), before)
    answers = None if own.get("answers") is None else Answers(**_mapping("answers", own["answers"]))
    if own.get("merge") is not None:
        return _merged(name, own, before, answers)
    if "method" not in own:
        raise ValueError("method: expected the name of one, such as grpo (or a merge)")
    if "out" in own:
        raise ValueError(
            "out: the folder of a stage lies in that of the plan: leave it out, and say --out for the plan"
        )
    fields = deep_update(dict(shared), {k: v for k, v in own.items() if k not in OWN})
    if rows is not None:
        if said := [k for k in OF_THE_TASK if k in own]:
            raise ValueError(
                f"{said[0]}: the rows are answers to the questions of {rows.of}, which bring it: leave it out"
            )
        source = _named(rows.of, before).config
        fields |= {k: getattr(source, k) for k in OF_THE_TASK}
    if before and "model" not in own:
        fields["model"] = f"{STAGE}{before[-1].name}"
    method = resolve(str(own["method"]))
    hyper = {k: fields.pop(k) for k in [*fields] if k in method.hyperparameters and k in own}
    base = TrainConfig(recipe=method(**hyper))
    config = config_from_dict({**fields, **({"recipe": own["recipe"]} if "recipe" in own else {})}, base)
    if config.optim.lr is None:
        rate = dataclasses.replace(config, model=root(config.model, before)).learning_rate()
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=rate))
    return Stage(name, config, answers, rows)


def _merged(name: str, own: Mapping[str, Any], before: Sequence[Stage], answers: Answers | None) -> Stage:
    given = own["merge"]
    merge = Merge(**{"of": tuple(given)} if isinstance(given, list) else _mapping("merge", given))
    if said := [k for k in own if k not in ("name", "merge", "answers")]:
        raise ValueError(f"{said[0]}: a merge trains nothing: it takes name, merge and answers")
    first = next((n for n in merge.of if n != "start"), None)
    if first is None:
        raise ValueError("merge: at least one of its models has to be that of a stage")
    return Stage(name, _named(first, before).config, answers, None, merge)


def _rows(given: Any, before: Sequence[Stage]) -> Rows | None:
    if given is None:
        return None
    if not before:
        raise ValueError("rows: there is no stage before it")
    rows = Rows(**({"form": given} if isinstance(given, str) else _mapping("rows", given)))
    return dataclasses.replace(rows, of=before[-1].name) if rows.of == "before" else rows


def _mapping(what: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{what}: expected a mapping of fields, not {given!r}")
    kinds: dict[str, type] = {"answers": Answers, "rows": Rows, "merge": Merge}
    names = [f.name for f in dataclasses.fields(kinds[what])]
    for name in given:
        if name not in names:
            raise ValueError(f"{what}: no field is called {name!r}; {nearest(str(name), names)}")
    return {str(k): tuple(v) if isinstance(v, list) else v for k, v in given.items()}


def _named(name: str, before: Sequence[Stage]) -> Stage:
    found = next((s for s in before if s.name == name), None)
    if found is None:
        names = [s.name for s in before]
        raise ValueError(
            f"no stage before it is called {name!r}; {nearest(name, names) if names else 'it is the first one'}"
        )
    return found


def root(model: str, before: Sequence[Stage]) -> str:
    """The model that a stage's own goes back to."""
    while model.startswith(STAGE):
        model = _named(model.removeprefix(STAGE), before).config.model
    return model


# What one stage needs of another -------------------------------------------------------------------------------------


def _check(plan: Plan) -> None:
    """Raises :class:`~policyopt.errors.UserError` for a stage that needs what none before it makes."""
    for number, stage in enumerate(plan.stages, 1):
        before = plan.stages[: number - 1]
        try:
            for name in stage.needs:
                if name != "start":
                    _named(name, before)
            for problem in _problems(stage, before):
                raise ValueError(problem)
        except (UserError, ValueError) as error:
            raise UserError(f"stage {number} ({stage.name}): {error.args[0]}") from error


def _problems(stage: Stage, before: Sequence[Stage]) -> Iterator[str]:
    """What is wrong with a stage, in words; ``UserError`` where its run says so itself."""
    config, recipe = stage.config, stage.config.recipe
    if config.engine == "tinker":
        yield "engine: a stage hands its model on by a folder, and that of a Tinker server is on the server: take another engine"
    task = loaded_task(stage)
    if stage.rows is not None:
        source = _named(stage.rows.of, before)
        if source.answers is None:
            yield (
                f"rows: {stage.rows.form} are made of the answers of {source.name}, which gives none: add "
                f"`answers: {{prompts: 256, samples: 8}}` to {source.name}"
            )
        reads, brings = recipe.source.reads, BRINGS[stage.rows.form]
        if not reads - brings and not reads:
            yield f"rows: {recipe.name} draws its own responses and reads no rows: leave them out"
        if missing := reads - brings:
            forms = [form for form, texts in BRINGS.items() if reads <= texts]
            advice = f"take rows: {forms[0]}" if forms else "no form of answers brings that"
            yield f"rows: {recipe.name} reads {' and '.join(sorted(missing))}, which {stage.rows.form} do not bring: {advice}"
    if stage.merge is None:
        check_engine(recipe, engine_kind(config), config.sampler)
        check_source(recipe, task)
        named_roles(config)
        if not recipe_draws(recipe) and task.environment is not None:
            yield f"{recipe.name} learns from given texts, and {task.name} is an environment"
    if stage.answers is not None:
        if task.environment is not None:
            yield f"answers: {task.name} is an environment, whose episodes are no texts to learn from: leave answers out"
        if task.judge is None:
            yield f"answers: the rows of {task.name} have no answer, so that responses cannot be judged: add a column 'answer'"


def loaded_task(stage: Stage) -> Task:
    """The task whose questions a stage is about, with the texts that its rows will bring.

    Raises :class:`~policyopt.errors.UserError` as :func:`~policyopt.training.run.loaded` does.
    """
    plain = dataclasses.replace(stage.config, recipe=_ASKED)
    task = loaded(plain)
    return task if stage.rows is None else dataclasses.replace(task, texts=BRINGS[stage.rows.form])


_ASKED = resolve("reinforce")()
"""A recipe that can draw from whatever task there is: for a look at the task alone."""
