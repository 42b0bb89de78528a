"""What several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.errors import UserError
from policyopt.judging.options import JudgeField
from policyopt.models.prompting import Prompting

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Heat = Annotated[float, Field(ge=0, le=10)]


def options_of(default: Any, args: list[str], command: str) -> Any:
    """A dataclass like ``default`` with what the line of a command sets."""
    from policyopt.cli.line import check_line
    from policyopt.options import catalogue, parse

    check_line(args, [*catalogue(default)], f"policyopt {command}")
    return parse(default, args, prog=f"policyopt {command}", description=type(default).__doc__ or "")


def operands(args: list[str], command: str, kinds: str) -> list[str]:
    """What a line names beside ``--json``, the only option that the command has."""
    names = [a for a in args if a != "--json"]
    if unknown := [a for a in names if a.startswith("-")]:
        raise UserError(f"{command} has no option {unknown[0]}; it takes {kinds} and --json")
    return names


def named(args: Sequence[str], default: Any) -> tuple[list[str], list[str]]:
    """The names on a line, and its options: those of a dataclass like ``default``, of which all but flags take the next word."""
    takes = {f"--{f.name}" for f in dataclasses.fields(default) if not isinstance(getattr(default, f.name), bool)}
    names: list[str] = []
    options: list[str] = []
    for before, word in pairwise(["", *args]):
        (options if word.startswith("-") or before in takes else names).append(word)
    return names, options


def found(look_up: Callable[[str], T], name: str) -> T:
    """What the registry has under a name; what it says of a name that it does not know is the user's to mend."""
    try:
        return look_up(name)
    except KeyError as error:
        raise UserError(error.args[0]) from error


def need_model(name: str) -> None:
    """Raises ``UserError`` for a model that is no folder here and that the hub, out of reach, cannot bring."""
    from policyopt.hub import only_cached

    if name != "embedded":
        only_cached("--model", name)


@dataclass(frozen=True)
class ModelOptions:
    """What answers, and what is asked."""

    model: str = "embedded"
    """``embedded``, a local folder, or a hub id."""
    task: str = "chain_sum"
    """A built-in task, ``reasoning-gym:NAME``, a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), a pattern of files, or
    a hub dataset (``owner/name:config@split``)."""
    columns: str | None = None
    """Which column of a dataset is what, ``prompt=question,answer=gold``, ``completion=text,label=good``; unset: their names
    say it."""
    judge: JudgeField = dataclasses.field(default=None, metadata={"repeated": ()})
    """Judge of a dataset: math, exact, number, regex, choice, llm, ``module:function`` or ``file.py:function``; several
    with weights, each as ``NAME=JUDGE:WEIGHT``."""
    judge_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": "judge-options", "plain": True}
    )
    """Options of the judge, such as ``tolerance=0.01``; of one of several ``NAME.tolerance=0.01``."""
    env: str | None = None
    """What the model acts in: a world of the library, ``my_env.py:Name``, ``gymnasium:ID``, ``openenv:URL``, ``verifiers:ID``,
    ``mcp:URL``, ``agent:my_agent.py:run``; unset: the task's own, or none."""
    env_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": "env-options", "plain": True}
    )
    """Options of the environment, NAME=VALUE, as it is made with."""
    max_tokens: Count | None = None
    """Budget of a response in tokens; unset: what the task suggests."""
    seed: Whole = 0
    """The same seed gives the same sampled responses."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; auto takes a GPU where there is one."""
    prompting: Prompting = Prompting()
    """How prompts are written, where responses end, and what of them is read."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the weights."""
