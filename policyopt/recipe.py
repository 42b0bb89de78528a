"""A recipe: the parts that make up a method."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from policyopt import paths, schema
from policyopt.capability import asks
from policyopt.errors import UserError, explain, nearest
from policyopt.part import (
    UNITS,
    Advantage,
    Aggregate,
    Controller,
    Count,
    Critic,
    Curriculum,
    Filter,
    Look,
    Memory,
    Part,
    Positive,
    Probe,
    Ratio,
    Reference,
    Regularizer,
    Shape,
    Span,
    Statistic,
    Surrogate,
    Unit,
    Weight,
    Whole,
    nested,
    part,
)
from policyopt.parts import Frozen, GroupStatistic
from policyopt.qualified import part_class, part_name
from policyopt.sources.program import Rollout
from policyopt.sources.source import Source

R = TypeVar("R")
P = TypeVar("P", bound=Part)


@part
class Update:
    """How often one batch of responses is used.

    The batch is split by prompts into ``minibatches`` equal pieces, each of which makes one optimiser step, and
    passed over ``epochs`` times in a fresh order.
    """

    epochs: Count = 1
    """Passes over the batch."""
    minibatches: Count = 1
    """Optimiser steps in one pass."""
    replay: Whole = 0
    """How many of the batches before are trained on again, joined to the new one."""
    rate: Positive = 1.0
    """Factor on the learning rate of the run, which a controller may move."""


@part
class Recipe:
    r"""Everything that defines a method, in the order in which it acts.

    .. math:: L = \sum_{i,t} share_{i,t}\,\Big(\prod_k weight^k_{i,t}\; surrogate(ratio, advantage)_{i,t}
              + \sum_j regularizer^j_{i,t} + critic_{i,t}\Big)

    Raises ``ValueError`` when the parts contradict each other.
    """

    source: Source
    """Where rows come from: responses that a program draws, or texts that the task brings."""
    advantage: Advantage | None = None
    """What is credited to each token; ``None`` where no part of the loss reads it."""
    surrogate: Surrogate | None = None
    """The loss of a token, given its ratio and its advantage; ``None`` where the regularisers are the whole loss."""
    aggregate: Aggregate = dataclasses.field(kw_only=True)
    """How the losses of all tokens become one number."""
    ratio: Ratio | None = None
    """New policy over the policy that sampled; ``None`` for a loss that does not compare them (the ratio is then 1)."""
    shape: tuple[Shape, ...] = ()
    """Changes to the judge's reward, one after the other."""
    filter: tuple[Filter, ...] = ()
    """Which rows are trained on; what is dropped is drawn anew while ``source.rounds`` allows."""
    select: tuple[Filter, ...] = ()
    """Which of these go on to the update once all of them are credited; their statistics have seen every row."""
    weight: tuple[Weight, ...] = ()
    """Detached factors on the surrogate."""
    regularizers: tuple[Regularizer, ...] = ()
    """Losses beside the surrogate."""
    critic: Critic | None = None
    """The loss of the value function, where the method learns one."""
    update: Update = Update()
    """How often a batch is used."""
    controllers: tuple[Controller, ...] = ()
    """What changes the recipe between steps."""
    reference: Reference = Frozen()
    """How the reference model follows the policy, where a part needs one."""
    memory: Memory | None = None
    """What is remembered of each prompt, or of each role."""
    curriculum: Curriculum | None = None
    """Which prompts a step takes; ``None`` for every prompt once a pass."""
    probes: tuple[Probe, ...] = ()
    """Measurements for the log."""
    decode: Rollout | None = None
    """A program that answers the held-out questions too, before and after training, without a judge; the first of its
    responses to a question counts."""
    name: str = dataclasses.field(default="custom", compare=False)
    """The method that it was made from; two recipes with the same parts are equal whatever they are called."""

    def __post_init__(self) -> None:
        self._check_names()
        self._check_spans()
        for path, p in parts_of(self):
            if p.min_group > self.source.size:
                raise ValueError(
                    f"source.size is {self.source.size}, but {_shown(path, p)} compares the responses to one "
                    f"prompt and needs at least {p.min_group}: raise source.size or take an advantage without a group baseline"
                )
        self._check_columns()
        self._check_loss()
        for path, p in parts_of(self):
            if self.ratio is not None and isinstance(p, Surrogate | Weight) and self.ratio.level not in p.levels:
                raise ValueError(
                    f"{_shown(path, p)} works token by token, but ratio ({type(self.ratio).__name__}) is one "
                    f"number for a whole response: take ratio=TokenRatio(), or another {path.split('.')[0]}"
                )
        asks(parts_of(self))  # refuses a name that is no capability
        if self.decode is not None and "judge" in self.decode.uses:
            raise ValueError(
                f"decode ({type(self.decode).__name__}) asks the judge while it draws, and on held-out questions it may not: "
                "take a program without 'judge' among its uses"
            )
        if (
            self.memory is not None
            and self.memory.of == "role"
            and self.curriculum
            and "history" in self.curriculum.needs
        ):
            raise ValueError(
                f"curriculum ({type(self.curriculum).__name__}) reads what is remembered of each prompt, and memory "
                f"({type(self.memory).__name__}) keeps something of each role: take another memory, or another curriculum"
            )
        for controller in self.controllers:
            try:
                self.get(controller.field)
            except KeyError as error:
                raise ValueError(
                    f"{_shown(f'controllers.{controller.handle}', controller)} moves a field that is not there: "
                    f"{error.args[0]}; point its field at another one or take the controller out"
                ) from None

    def _check_names(self) -> None:
        """Refuse two parts of one name in a slot: a path could not say which of them it means."""
        for slot in dataclasses.fields(self):
            members = getattr(self, slot.name)
            names = Counter(p.handle for p in members) if isinstance(members, tuple) else Counter()
            for name in (name for name, n in names.items() if n > 1):
                raise ValueError(
                    f"{slot.name} has {names[name]} parts called {name}: tell them apart by labels, as in "
                    f'{type(next(p for p in members if p.handle == name)).__name__}(..., label="first")'
                )

    def _check_spans(self) -> None:
        """Refuse two unlike spans of one name, and a need for a span that no part has."""
        names: dict[str, Span] = {}
        for span in self.spans:
            if (other := names.setdefault(span.column, span)) != span:
                raise ValueError(
                    f"two spans are called {span.handle}: {other} and {span}; tell them apart by labels, as in "
                    f'{type(span).__name__}(..., label="first")'
                )
        for path, p in parts_of(self):
            for name in sorted(p.needs - names.keys()):
                if (schema.split(name) or ("",))[0] != "span":
                    continue
                raise ValueError(
                    f"{_shown(path, p)} needs {name!r}, and the recipe has no span of this name: put the span into a "
                    "field of the part, and its column among the needs"
                )

    def _check_loss(self) -> None:
        """Refuse a loss that is not there, or half of one."""
        if self.surrogate is not None and self.advantage is None:
            raise ValueError(
                f"surrogate ({type(self.surrogate).__name__}) needs an advantage, and the slot is empty: set advantage, "
                "or leave surrogate out and put the loss among the regularizers"
            )
        if self.surrogate is None and self.weight:
            raise ValueError(
                f"weight ({type(self.weight[0]).__name__}) is a factor on the surrogate, and the slot is empty: set "
                "surrogate, or take the weight out"
            )

    def _check_columns(self) -> None:
        """Refuse a need that is no column, or that the recipe alone could fill and does not."""
        for path, p in parts_of(self):
            where = _shown(path, p)
            read = {name for s in (*p.live, *p.fixed) for name in s.columns}
            for verb, names in (("needs", p.needs), ("provides", p.provides), ("reads", read)):
                for name in sorted(names):
                    if schema.find(name) is None:
                        raise ValueError(f"{where} {verb} {name!r}: {schema.unknown(name)}")
            for s in (s for s in p.live if isinstance(s, GroupStatistic)):
                said = "is taken once, when the batch is annotated: list it under fixed"
                raise ValueError(f"{where} has {type(s).__name__} under live, and what a group makes together {said}")
            there = {x.column for x in nested(p) if isinstance(x, Look)}
            for name in sorted(name for name in p.needs if name.startswith("behind[") and name not in there):
                raise ValueError(f"{where} needs {name!r}, and no field of it holds the Look of this name: give it one")
            if p is not self.source:
                self._check_drawn(where, p)
            for column in map(schema.known, sorted(p.needs)):
                if (
                    column.filled_by not in (*schema.ALWAYS, "judge", "environment")
                    and column.name not in self.provides
                ):
                    raise ValueError(f"{where} needs {column.name!r}, which nothing provides: {schema.advice(column)}")

    def _check_drawn(self, where: str, p: Part) -> None:
        """Refuse a need that only drawn and judged responses have, where the source takes given texts."""
        if self.source.services:
            return
        for column in map(schema.known, sorted(p.needs)):
            sampled = column.name in ("rollout_logp", "sampled_entropy")
            if (sampled or column.filled_by in ("verdict", "judge")) and column.name not in self.source.provides:
                raise ValueError(
                    f"{where} needs {column.name!r}, which only responses have that are drawn and judged: take a source "
                    f"that draws, such as Group(), or take the part out (the source is {type(self.source).__name__})"
                )

    @property
    def needs(self) -> frozenset[str]:
        """The union of what the parts read beyond ``logp``: exactly what the engine computes."""
        return frozenset(schema.canonical(name) for _, p in parts_of(self) for name in p.needs)

    @property
    def provides(self) -> frozenset[str]:
        """The union of the columns that parts and programs fill."""
        drawn = (p for path, p in parts_of(self) if path != "decode")
        return frozenset(schema.canonical(name) for p in drawn for name in p.provides)

    @property
    def live(self) -> tuple[Statistic, ...]:
        """The statistics of the policy being trained that the parts read, each once."""
        return tuple({s.key: s for _, p in parts_of(self) for s in p.live}.values())

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        """The statistics that are taken when a batch is annotated, each once."""
        return tuple({s.key: s for _, p in parts_of(self) for s in p.fixed}.values())

    @property
    def looks(self) -> tuple[Look, ...]:
        """What is looked at again behind another context, each once."""
        every = (x for _, p in parts_of(self) for x in nested(p) if isinstance(x, Look) and x.column in p.needs)
        return tuple({x.key: x for x in every}.values())

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of a response's text that stand in the parts, each once."""
        every = (p for _, part in parts_of(self) for p in nested(part) if isinstance(p, Span))
        return tuple(span for _, span in dict.fromkeys((span.column, span) for span in every))

    @property
    def roles(self) -> frozenset[str]:
        """The models beside the policy and the critic that the recipe reads or draws from: "reference", "teacher",
        "previous" (the policy of one step before), and whatever else it names."""
        named = {role for column in self.needs if (role := schema.role_of(column)) is not None}
        named |= {look.role for look in self.looks} - {"policy"}
        return frozenset(named).union(self.sampled_roles, *(s.roles for s in (*self.live, *self.fixed)))

    @property
    def services(self) -> frozenset[str]:
        """What its source and its programs ask of a run: "sampler", "judge"."""
        return self.source.services | (self.decode.services if self.decode is not None else frozenset())

    @property
    def sampled_roles(self) -> frozenset[str]:
        """Those that its programs draw from."""
        return self.source.roles | (self.decode.roles if self.decode is not None else frozenset())

    @property
    def asks(self) -> dict[str, tuple[str, ...]]:
        """What it asks of an engine, by the names of :mod:`policyopt.capability` -> the parts that do."""
        idle = () if "reference" in self.roles else (self.reference,)
        return asks((path, p) for path, p in parts_of(self) if p not in idle)

    @property
    def unit(self) -> Unit:
        """The smallest piece of a mini-batch that the objective may be computed on alone."""
        inside = filter(None, (self.ratio, self.surrogate, *self.weight, *self.regularizers, self.critic))
        return max((p.unit for p in inside), key=UNITS.index)

    @property
    def leaves(self) -> tuple[str, ...]:
        """What carries the gradient, [N, T] each: ``logp``, where asked for ``entropy`` and ``value``, live statistics by
        key."""
        entropy = ("entropy",) if "entropy" in self.needs else ()
        value = ("value",) if self.critic is not None else ()
        return ("logp", *entropy, *(s.key for s in self.live), *value)

    @property
    def gathers(self) -> tuple[str, ...]:
        """The leaves that an engine needs of the whole mini-batch before it can work out the gradient of any row; empty
        where each row has all that its gradient depends on. See :func:`policyopt.engine.plan.accumulate`."""
        return self.leaves if self.unit in ("group", "batch") else ()

    def replace(self, **parts: Any) -> Recipe:
        """The same recipe with some parts exchanged."""
        return dataclasses.replace(self, **parts)

    def get(self, path: str) -> Any:
        """The value at a path such as ``"surrogate.high"`` or, where a slot holds several parts,
        ``"regularizers.KL.coef"``: the name there is a part's label, or its class.

        Raises ``KeyError`` for a path that does not exist, or that fits two parts.
        """
        return paths.get(self, path)

    def set(self, path: str, value: Any) -> Recipe:
        """The same recipe with the field at a path changed. Raises as :meth:`get`."""
        return paths.put(self, path, value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML and JSON; :func:`recipe_from_dict` reads it back."""
        return _plain(self)


def require(found: P | None) -> P:
    """What stands in a slot, for methods that build on it. Raises ``ValueError`` where it is empty."""
    if found is None:
        raise ValueError("the slot is empty: the recipe that this one is made from has no such part")
    return found


def parts_of(recipe: Recipe) -> Iterator[tuple[str, Part]]:
    """Every part of a recipe with its path: ``("surrogate", PPOClip(...))``, ``("regularizers.KL", KL(...))``."""
    for f in dataclasses.fields(recipe):
        value = getattr(recipe, f.name)
        if isinstance(value, tuple):
            yield from ((f"{f.name}.{p.handle}", p) for p in value)
        elif isinstance(value, Part):
            yield f.name, value


def _shown(path: str, p: Part) -> str:
    """A part in a message: its path, and its class where the path does not say it."""
    return path if path.endswith(f".{type(p).__name__}") else f"{path} ({type(p).__name__})"


def _plain(x: Any) -> Any:
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        head = {"part": part_name(type(x))} if isinstance(x, Part) else {}
        fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        return head | {name: _plain(value) for name, value in fields.items() if name != "label" or value is not None}
    return [_plain(v) for v in x] if isinstance(x, tuple) else x


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """Read back what :meth:`Recipe.to_dict` wrote. Raises ``ValueError`` naming the part or field that is unknown."""
    return _build(Recipe, data, "recipe")


def _build(cls: type[R], data: Mapping[str, Any], path: str) -> R:
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    fields = {}
    for name, value in data.items():
        if name == "part":
            continue
        if name not in known:
            raise ValueError(f"{path}: {cls.__name__} has no field {name!r}; {nearest(name, sorted(known))}")
        fields[name] = _value(value, f"{path}.{name}")
    try:
        return cls(**fields)
    except ValidationError as error:
        raise ValueError(explain(error, path)) from error


def _value(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return tuple(_value(v, f"{path}.{paths.named(v) or i}") for i, v in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    if path == "recipe.update":
        return _build(Update, value, path)
    if "part" not in value:
        raise ValueError(f"{path}: expected a part, written as a mapping with `part: NAME` and the part's fields")
    try:
        cls = part_class(str(value["part"]))
    except UserError as error:
        raise ValueError(f"{path}: {error}") from error
    return _build(cls, value, path)
