"""What a recipe is: its parts, how they differ from another recipe's, what it costs, and the weight it gives to each token."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policyopt import schema
from policyopt.claims import came_of
from policyopt.docs import field_docs, first_sentence, paragraphs
from policyopt.lens.cost import Cost, take
from policyopt.lens.drawn_rows import Drawn, drawn_rows
from policyopt.lens.probe_batch import Picture, picture
from policyopt.methods.group.grpo import grpo
from policyopt.part import Look, nested
from policyopt.recipe import Recipe, parts_of
from policyopt.registry import Method, methods


@dataclass(frozen=True)
class Difference:
    """A place where two recipes are not the same."""

    path: str
    """Dotted path of a part or of a field of one, such as ``aggregate`` or ``surrogate.low``."""
    here: str | None
    """What stands there in the recipe that is explained; None where there is nothing."""
    there: str | None
    """What stands there in the other one."""


@dataclass(frozen=True)
class FieldView:
    """A hyper-parameter of a part."""

    name: str
    value: str
    doc: str
    elsewhere: Mapping[str, str]
    """Its value in the recipes that have another: name of the recipe -> value."""


@dataclass(frozen=True)
class PartView:
    """A part of the recipe, as it is shown."""

    path: str
    kind: str
    """Name of its class."""
    doc: str
    """First sentence of its docstring, with its markup."""
    fields: tuple[FieldView, ...]
    elsewhere: Mapping[str, str | None]
    """What the recipes that have no such part have in its place: name of the recipe -> part, or None for nothing."""


@dataclass(frozen=True)
class Need:
    """Something that the recipe reads beyond the log-probabilities of its own tokens."""

    name: str
    doc: str
    parts: tuple[str, ...]
    """Paths of the parts that read it."""
    beyond_grpo: bool
    """GRPO does not need it."""


@dataclass(frozen=True)
class Facts:
    """What the registry knows of a method."""

    name: str
    family: str = ""
    parent: str | None = None
    source: str = ""
    code: str | None = None
    confidence: str = ""
    summary: str = ""
    """First paragraph of its docstring, with its markup."""
    formulas: tuple[str, ...] = ()
    """LaTeX."""
    notes: tuple[str, ...] = ()
    """The other paragraphs."""
    claim: str = ""
    """What its paper says that it does better."""
    came: str = ""
    """What came of that where it was put to the test, or why it cannot be."""


@dataclass(frozen=True)
class Explanation:
    """All that is known of a recipe. Plain data: how it looks is for others to decide."""

    recipe: Recipe
    facts: Facts
    parts: tuple[PartView, ...]
    differences: Mapping[str, tuple[Difference, ...]]
    """Name of each recipe that it is compared with (its parent, and the other one) -> where they differ."""
    needs: tuple[Need, ...]
    costs: Mapping[str, Cost]
    """Name of the recipe, and of GRPO -> measured costs."""
    picture: Picture
    other: Picture | None
    """The token weights of the recipe that it is compared with; None where there is none."""
    drawn: Drawn
    """Rows that it drew in the step whose costs were counted."""
    other_drawn: Drawn | None

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain data for JSON."""
        return {
            "facts": dataclasses.asdict(self.facts),
            "recipe": self.recipe.to_dict(),
            "differences": {name: [dataclasses.asdict(d) for d in found] for name, found in self.differences.items()},
            "needs": [dataclasses.asdict(need) for need in self.needs],
            "costs": {name: cost.to_dict() for name, cost in self.costs.items()},
            "picture": self.picture.to_dict(),
            "other": self.other.to_dict() if self.other else None,
            "drawn": dataclasses.asdict(self.drawn),
            "other_drawn": dataclasses.asdict(self.other_drawn) if self.other_drawn else None,
        }


def explain(recipe: Recipe, other: Recipe | None = None, *, method: Method | None = None) -> Explanation:
    """Explain a recipe, and compare it with its parent and with ``other`` (unset: its parent alone).

    ``method`` is what made it; unset: the library's method of the recipe's name. Models of a few thousand parameters take some steps with it, so that its costs are counted, not claimed.
    """
    method = methods().get(recipe.name) if method is None else method
    parent = method.base() if method is not None and method.base is not None else None
    other = parent if other is None else other
    base = grpo()
    own = method is not None and method.family == "own"
    if own and any(r is not None and r.name == recipe.name for r in (parent, other, base)):
        recipe = recipe.replace(name=f"{recipe.name} (own)")  # one of one's own under a name of the library's
    compared = {r.name: r for r in (parent, other) if r is not None}
    found = {name: tuple(differences(recipe, r)) for name, r in compared.items()}
    cost, drawn = _step(recipe)
    return Explanation(
        recipe=recipe,
        facts=_facts(method) if method else Facts(recipe.name),
        parts=tuple(_view(path, p, found) for path, p in slots(recipe)),
        differences=found,
        needs=tuple(_needs(recipe, base)),
        costs={recipe.name: cost} | {base.name: _step(base)[0]},
        picture=picture(recipe),
        other=picture(other) if other is not None else None,
        drawn=drawn,
        other_drawn=_step(other)[1] if other is not None else None,
    )


@functools.lru_cache(16)
def _step(recipe: Recipe) -> tuple[Cost, Drawn]:
    """What a step costs, and rows that it drew; those of parents and of GRPO are asked for again and again."""
    cost, step = take(recipe)
    return cost, drawn_rows(step)


def differences(recipe: Recipe, other: Recipe) -> Iterator[Difference]:
    """Where two recipes differ. Parts of a slot that holds several are matched by class, those of one name first."""
    for slot in dataclasses.fields(Recipe):
        if not slot.compare:
            continue
        here, there = getattr(recipe, slot.name), getattr(other, slot.name)
        if here == there:
            continue
        if not isinstance(here, tuple):
            yield from _unlike(slot.name, here, there)
            continue
        left = list(there)
        found: list[Difference] = []
        names = {p.handle for p in here}
        for p in here:
            like = [q for q in left if type(q) is type(p) and (q.handle == p.handle or q.handle not in names)]
            match = min(like, key=lambda q: q.handle != p.handle, default=None)
            left = [q for q in left if q is not match]
            found += _unlike(f"{slot.name}.{p.handle}", p, match)
        found += [Difference(slot.name, None, written(q)) for q in left]
        yield from found or [Difference(slot.name, written(here), written(there))]  # the same parts in another order


def _unlike(path: str, here: Any, there: Any) -> Iterator[Difference]:
    if here == there:
        return
    if type(here) is not type(there):
        yield Difference(path, *(None if x is None else written(x) for x in (here, there)))
        return
    for f in dataclasses.fields(here):
        if not f.compare:
            continue
        mine, theirs = getattr(here, f.name), getattr(there, f.name)
        if mine != theirs:
            yield Difference(f"{path}.{f.name}", written(mine), written(theirs))


def slots(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """What stands in the slots of a recipe, by path, in the order in which it acts; empty slots are left out."""
    for slot in dataclasses.fields(recipe):
        value = getattr(recipe, slot.name)
        if slot.name == "reference" and slot.name not in recipe.roles:
            continue
        if isinstance(value, tuple):
            yield from ((f"{slot.name}.{p.handle}", p) for p in value)
        elif dataclasses.is_dataclass(value):
            yield slot.name, value


def written(value: Any) -> str:
    """A value as people write it: ``0.2``, ``none``, ``KL(coef=0.1)`` (fields that have their defaults left out)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        set_ = [
            f"{f.name}={written(getattr(value, f.name))}"
            for f in dataclasses.fields(value)
            if getattr(value, f.name) != f.default
        ]
        return type(value).__name__ + (f"({', '.join(set_)})" if set_ else "")
    if isinstance(value, tuple):
        return ", ".join(map(written, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _view(path: str, p: Any, found: Mapping[str, tuple[Difference, ...]]) -> PartView:
    at = {name: {d.path: d.there for d in there} for name, there in found.items()}
    docs = field_docs(type(p))
    fields = tuple(
        FieldView(
            f.name,
            written(getattr(p, f.name)),
            docs.get(f.name, ""),
            {name: places[place] or "none" for name, places in at.items() if (place := f"{path}.{f.name}") in places},
        )
        for f in dataclasses.fields(p)
        if f.compare
    )
    elsewhere = {name: places[path] for name, places in at.items() if path in places}
    return PartView(path, type(p).__name__, first_sentence(inspect.getdoc(type(p)) or ""), fields, elsewhere)


def _facts(method: Method) -> Facts:
    formulas, texts = paragraphs(inspect.getdoc(method.make) or "")
    return Facts(
        method.name, method.family, method.parent, method.source, method.code, method.confidence,
        texts[0] if texts else "", tuple(formulas), tuple(texts[1:]),
        *(() if (c := method.claim) is None else (c.says, f"cannot show here: {c.beyond}" if c.beyond else came_of(method.name))),
    )  # fmt: skip


def _needs(recipe: Recipe, base: Recipe) -> Iterator[Need]:
    asked: dict[str, list[str]] = {}
    about: dict[str, str] = {}
    for path, p in parts_of(recipe):
        looks = {look.column: look for look in nested(p) if isinstance(look, Look)}
        for column in sorted(p.needs):
            look = looks.get(column)
            name = column if look is None else written(look)
            asked.setdefault(name, []).append(path)
            said = (
                f"{schema.known(column).sentence}."
                if look is None
                else first_sentence(inspect.getdoc(type(look)) or "")
            )
            about[name] = said
        for statistic in (*p.live, *p.fixed):
            name = written(statistic)
            asked.setdefault(name, []).append(path)
            about[name] = first_sentence(inspect.getdoc(type(statistic)) or "")
    usual = {*base.needs, *map(written, (*base.live, *base.fixed))}
    for name, paths in asked.items():
        yield Need(name, about[name], tuple(dict.fromkeys(paths)), name not in usual)
