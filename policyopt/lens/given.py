"""What a numeric case gives, in the library's terms: its hyper-parameters as a recipe, its columns as a batch.

A column goes by its own name. Another name in case files is one line in a table: ``_CALLED`` and ``SERIES`` for columns, ``ALIASES``, ``DERIVED``,
``CHOICES``, ``CHOSEN_BY`` and ``FACTS`` for hyper-parameters. No table and no function here knows the name of a method.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt import schema
from policyopt.methods.group.grpo import StepNormalise
from policyopt.part import Controller
from policyopt.parts import Part, SeqMeanTokenMean, SeqMeanTokenSum, SeqMeanTokenSumNorm, TokenMean
from policyopt.recipe import Recipe, parts_of
from policyopt.registry import Method
from policyopt.rows import Batch, make_batch

_CALLED = {
    "action": "tokens",
    "return": "returns",
    "format_ok": "formatted",
    "length": "true_length",
    "greedy_reward": "baseline_reward",
}
"""What cases call columns by another name."""
_KINDS = {"N": "row", "NT": "token", "NK": "step"}

COLUMNS: dict[str, tuple[str, str]] = {
    name: (column.name, _KINDS[column.axes])
    for name, column in [*((c.name, c) for c in schema.columns()), *((k, schema.known(v)) for k, v in _CALLED.items())]
    if column.axes in _KINDS and name != "group"
}
"""Columns of a case, beside ``group``: their name in the batch and their shape, [N], [N, T] or [N, K]."""

SERIES: dict[str, Callable[[Any], float]] = {
    "kl": lambda kl: number("kl", kl),
    "reward_batches": lambda rewards: float(_numbers("reward_batches", rewards).mean()),
}
"""What a schedule sees, one entry per step, as the number that its controller reads."""

ALIASES: dict[str, tuple[str, ...]] = {
    "clip_low": ("low",),
    "clip_high": ("high",),
    "clip": ("low", "high"),
    "kl": ("estimator",),
    "loss_norm": ("norm",),
    "target": ("kl_target",),
}
"""Other names of a hyper-parameter, in methods and in parts."""

DERIVED: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "cache": lambda p: {"overlong_share": p["cache"] / p["max_length"]},
}
"""Hyper-parameters that are another function of the same quantity here."""

_AGGREGATES: dict[str, type[Part]] = {
    "token-mean": TokenMean,
    "seq-mean-token-mean": SeqMeanTokenMean,
    "seq-mean-token-sum": SeqMeanTokenSum,
    "seq-mean-token-sum-norm": SeqMeanTokenSumNorm,
}
CHOICES: dict[str, tuple[str, dict[str, type[Part]]]] = {
    "aggregate": ("aggregate", _AGGREGATES),
    "agg": ("aggregate", _AGGREGATES),
}
"""Hyper-parameters that pick the part of a slot."""

CHOSEN_BY: dict[str, tuple[str, type[Part]]] = {"step_reward": ("advantage", StepNormalise)}
"""Columns that only one part of a slot can read."""

FACTS = frozenset({"max_length", "n_steps"})
"""Hyper-parameters of a case that are columns or metrics here."""

IDLE = {"kl": "kl_coef"}
"""Hyper-parameters that say nothing while another one is 0."""


class Unsupported(Exception):
    """The case uses a name or a value for which the library has no meaning."""


class Malformed(Exception):
    """The case breaks the schema; the message begins with the field."""


# Hyper-parameters -> recipe ------------------------------------------------------------------------------------------


def build_recipe(
    method: Method, what: str, params: Mapping[str, Any], given: Mapping[str, Any], words: Mapping[str, Any]
) -> Recipe:
    """The method's recipe with every hyper-parameter of the case in its place.

    A hyper-parameter is an argument of the method, or picks a part, or is a field of parts; null leaves its default
    where it may not be None. ``words`` are the method's own names for them. Raises :class:`Unsupported` for one that
    has no place, or where the recipe is refused.
    """
    try:
        params = {k: v for name, value in params.items() for k, v in _own(words, name, value).items()}
    except (TypeError, ValueError, LookupError) as error:
        raise Unsupported(f"params cannot be read: {error}") from error
    asked = {k: v for name, value in params.items() for k, v in _derived(name, value, params).items()}
    hyper, hints = method.hyperparameters, get_type_hints(method.make)
    sizes = Counter(map(str, given.get("group", ())))
    call: dict[str, Any] = {"group_size": max(2, *sizes.values())} if sizes and "group_size" in hyper else {}
    left = {}
    for name, value in asked.items():
        targets = [name] if name in hyper else [alias for alias in ALIASES.get(name, ()) if alias in hyper]
        call |= {t: value for t in targets if value is not None or NoneType in get_args(hints[t])}
        if not (targets or name in FACTS or _off(name, value, params)):
            left[name] = value
    try:
        recipe = method(**call)
        for column, (slot, choice) in CHOSEN_BY.items():
            if column in given:
                recipe = recipe.replace(**{slot: choice()})
        for name in CHOICES.keys() & left.keys():
            recipe = _choose(recipe, name, left.pop(name))
        # What a schedule says of its controller may be called like an argument of the method that is something else.
        for name, value in [*(asked if what == "schedule" else left).items()]:
            paths = (
                [name] if "." in name else _paths(recipe, name, controllers=what == "schedule", aliases=name in left)
            )
            for path in paths if value is not None else ():
                recipe = recipe.set(path, value)
            if paths:
                left.pop(name, None)
    except (ValueError, KeyError, TypeError) as error:
        found = error.errors() if isinstance(error, ValidationError) else []
        said = [": ".join([*map(str, e["loc"]), f"{e['msg']}, got {e['input']!r}"]) for e in found] or [str(error)]
        raise Unsupported(f"the recipe is refused: {'; '.join(said)}") from error
    if left:
        raise Unsupported(f"params {', '.join(left)}: neither the method nor its parts have a field of this name")
    return recipe


def _own(words: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """A hyper-parameter by the names that the method's vocabulary gives it."""
    if name not in words:
        return {name: value}
    place = words[name]
    if callable(place):
        found: dict[str, Any] = place(value)
        return found
    return dict.fromkeys([place] if isinstance(place, str) else place or (), value)


def _derived(name: str, value: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    if value is None and name.endswith("_coef"):
        return {name: 0.0}
    if value is None or name not in DERIVED:
        return {name: value}
    try:
        return DERIVED[name](params)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise Unsupported(f"params {name}: means nothing here ({type(error).__name__}: {error})") from error


def _off(name: str, value: Any, params: Mapping[str, Any]) -> bool:
    """A switch that is off, or a detail of one: no method needs a field for it."""
    return (
        value is None or (name.endswith("_coef") and value == 0) or (name in IDLE and not params.get(IDLE[name], True))
    )


def _choose(recipe: Recipe, name: str, value: str) -> Recipe:
    slot, choices = CHOICES[name]
    if value not in choices:
        raise Unsupported(f"params {name}: {value!r} is none of {', '.join(choices)}")
    same = type(getattr(recipe, slot)) is choices[value]
    return recipe if same else recipe.replace(**{slot: choices[value]()})


def _paths(recipe: Recipe, name: str, *, controllers: bool, aliases: bool) -> list[str]:
    """Where the parts of a recipe have a field of this name, or else of one of its aliases; ``adv_eps`` is ``eps`` of the
    advantage."""
    if name == "init" and recipe.controllers:
        return [the_controller(recipe).field]
    parts = [(path, p) for path, p in parts_of(recipe) if path.startswith("controllers") or not controllers]
    if name.startswith("adv_"):
        name, parts = name.removeprefix("adv_"), [(path, p) for path, p in parts if path.startswith("advantage")]
    inner = [(f"{path}.{f.name}", getattr(p, f.name)) for path, p in parts for f in dataclasses.fields(p)]

    def named(name: str, parts: Sequence[tuple[str, Any]]) -> list[str]:
        return [
            f"{path}.{name}"
            for path, p in parts
            if isinstance(p, Part) and name in {f.name for f in dataclasses.fields(p)}
        ]

    names = (name, *(ALIASES.get(name, ()) if aliases else ()))
    return named(name, parts) or named(name, inner) or [path for alias in names[1:] for path in named(alias, parts)]


def the_controller(recipe: Recipe) -> Controller:
    """What moves a field of the recipe, where only one thing does. Raises :class:`Unsupported` otherwise."""
    if len(recipe.controllers) != 1:
        raise Unsupported(f"a schedule of a recipe with {len(recipe.controllers)} controllers")
    return recipe.controllers[0]


# Columns -> batch ----------------------------------------------------------------------------------------------------


def build_batch(
    given: Mapping[str, Any], params: Mapping[str, Any], columns: Mapping[str, tuple[str, str]] = COLUMNS
) -> Batch:
    """The columns of a case in float64. Raises :class:`Malformed` where shapes disagree or a number is missing."""
    kinds = ("row", "token", "step")
    known = {name: place for name, place in columns.items() if place[1] in kinds}
    found = {name: (known[name], _numbers(name, given[name])) for name in given if name in known}
    sizes = {name: len(x) for name, (_, x) in found.items()} | (
        {"group": len(given["group"])} if "group" in given else {}
    )
    if not sizes:
        raise Unsupported("no column of a batch is given")
    if len(set(sizes.values())) > 1:
        raise Malformed(
            "given: columns differ in their number of rows: " + ", ".join(f"{k} {n}" for k, n in sizes.items())
        )
    n = next(iter(sizes.values()))
    tokens = {name: x for name, ((_, kind), x) in found.items() if kind == "token" and x.dim() == 2}
    shown = tokens.get("mask", next(iter(tokens.values()), torch.ones(n, 1)))
    mask = torch.where(shown.isnan(), 0.0, shown) if "mask" in tokens else (~shown.isnan()).double()
    if not ((mask == 0) | (mask == 1)).all():
        raise Malformed("given.mask: expected 0 and 1 only")
    out: dict[str, Any] = {}
    for name, ((column, kind), x) in found.items():
        if x.dim() != (1 if kind == "row" else 2) and (kind != "token" or name == "mask"):
            raise Unsupported(f"given {name} has {x.dim()} dimensions")
        if kind == "token":
            x = _tokens(name, x, mask)
        elif kind == "row" and x.isnan().any():
            raise Malformed(f"given.{name}[{int(x.isnan().nonzero()[0])}]: expected a number, got null")
        out[column] = torch.where(x.isnan(), float(schema.known(column).padding), x)
    steps = [found[name][1].isnan() for name in ("step_reward", "step_end") if name in found]
    if steps and not (len(steps) == 2 and torch.equal(*steps)):
        raise Malformed("given.step_end: expected one entry for each of step_reward")
    out["mask"] = mask
    groups = given.get("group", [0] * n)
    out["group"] = torch.tensor([list(dict.fromkeys(map(str, groups))).index(str(g)) for g in groups])
    if params.get("max_length") is not None:
        out["budget"] = torch.full((n,), number("params.max_length", params["max_length"]), dtype=torch.float64)
    # Unless the case says otherwise: rewards and random numbers are 0, the batch is on-policy, and the critic has not moved since.
    out.setdefault("reward", torch.zeros(n, dtype=torch.float64))
    out.setdefault("noise", torch.zeros_like(mask))
    for name, other in (("old_logp", "logp"), ("prox_logp", "logp"), ("old_value", "value")):
        if name not in out and other in out:
            out[name] = out[other]
    if "tokens" in out:
        out["tokens"] = out["tokens"].long()
    return make_batch(**out)


def build_logits(name: str, value: Any, mask: Tensor) -> Tensor:
    """Logits [N, T, V] of a case, with zeros where there is no token. Raises :class:`Malformed` where they are ragged."""
    try:
        widths = {len(row) for rows in value for row in rows if row is not None}
        size = widths.pop()
        data = [[row or [0.0] * size for row in rows] + [[0.0] * size] * (mask.shape[1] - len(rows)) for rows in value]
        out = torch.tensor(data, dtype=torch.float64)
    except (TypeError, ValueError, KeyError) as error:
        raise Malformed(f"given.{name}: expected [rows][tokens][vocabulary] numbers ({error})") from error
    if widths or out.shape[:2] != mask.shape:
        raise Malformed(f"given.{name}: expected {tuple(mask.shape)} distributions of one size, got {tuple(out.shape)}")
    return out


def number(field: str, x: Any) -> float:
    """``x`` as it is. Raises :class:`Malformed` for anything but a number."""
    if not isinstance(x, int | float):
        raise Malformed(f"given.{field}: expected a number, got {x!r}")
    return float(x)


def _numbers(name: str, value: Any) -> Tensor:
    """A list, or a list of lists of any lengths, as a tensor; NaN where there is no number."""
    if not isinstance(value, list):
        raise Malformed(f"given.{name}: expected a list with one entry per row, got {type(value).__name__}")
    nested = [isinstance(row, list) for row in value]
    if any(nested) and not all(nested):
        raise Malformed(
            f"given.{name}[{nested.index(not nested[0])}]: expected {'a list' if nested[0] else 'a number'} as in row 0"
        )
    rows = value if any(nested) else [[x] for x in value]
    for i, row in enumerate(rows):
        for t, x in enumerate(row):
            if x is not None:
                number(f"{name}[{i}][{t}]" if any(nested) else f"{name}[{i}]", x)
    width = max((len(row) for row in rows), default=0)
    data = [[math.nan if x is None else x for x in row] + [math.nan] * (width - len(row)) for row in rows]
    out = torch.tensor(data, dtype=torch.float64).reshape(len(rows), width)
    return out if any(nested) or not value else out[:, 0]


def _tokens(name: str, x: Tensor, mask: Tensor) -> Tensor:
    """A column of tokens on the grid of the mask; a number per row stands for all tokens of the row."""
    x = x[:, None].expand_as(mask) if x.dim() == 1 else x
    if x.shape[1] > mask.shape[1]:
        raise Malformed(f"given.{name}: {x.shape[1]} tokens in a row, but the mask has {mask.shape[1]}")
    x = torch.nn.functional.pad(x, (0, mask.shape[1] - x.shape[1]), value=math.nan)
    gap = (x.isnan() & mask.bool()).nonzero()
    if len(gap):
        i, t = gap[0].tolist()
        raise Malformed(f"given.{name}[{i}][{t}]: no number, but the mask has a token there")
    return x
