"""A recipe inside the training loop of somebody else: an advantage function and a loss function on plain tensors.

A :class:`Host` says what a loop has: the columns where it makes advantages and where it makes the loss, the models beside
the policy, the largest piece of a mini-batch that its loss function sees. :func:`serve` gives the recipe of a name where
the loop can carry out all of it, and refuses it with every reason where it cannot; :func:`credited` is what happens between
reward and advantage. ``python -m policyopt.integrations.served`` prints which methods of the library each host serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policyopt.capability import CAPABILITIES
from policyopt.engine.plan import UpdateReport, observe
from policyopt.errors import UserError, nearest
from policyopt.lens.random_batch import random_batch
from policyopt.objective import credit, kept, log_ratios, selected, shaped
from policyopt.own import resolve
from policyopt.part import UNITS, Aggregate, Part, Unit
from policyopt.parts import (
    KL,
    EntropyBonus,
    KLPenalty,
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    TokenMean,
)
from policyopt.recipe import Recipe, parts_of
from policyopt.registry import Method, methods
from policyopt.rows import Batch
from policyopt.schema import split
from policyopt.sources.draw import Group
from policyopt.steering import control
from policyopt.training.metrics import batch_metrics, update_metrics

Reason = tuple[str, str]
"""What a recipe is refused for in two or three words, and in a sentence."""


@dataclass(frozen=True)
class Host:
    """What the training loop of somebody else can do for a recipe."""

    name: str
    """What it is called, with the version that was looked at."""
    credit: frozenset[str]
    """The columns that are there where advantages are made."""
    loss: frozenset[str]
    """The columns that are there where the loss is made, beside ``logp``, ``advantage`` and what parts have filled."""
    capabilities: frozenset[str] = frozenset({"temperature"})
    """Of :data:`policyopt.capability.CAPABILITIES`."""
    credit_unit: Unit = "batch"
    """The largest piece of a batch for which advantages are made at once."""
    unit: Unit = "row"
    """The largest piece of a mini-batch whose loss can be exact."""
    drops: bool = False
    """Rows can leave: filters and selections."""
    controls: bool = False
    """Controllers act between steps."""
    aggregates: tuple[Aggregate, ...] | None = None
    """Those that it can carry out; ``None`` for any."""
    adds: Callable[[Part], bool] = lambda term: False
    """Whether it adds a regularizer to the loss, or a penalty to the reward, itself, so that the recipe's own is left out."""


# Hosts ---------------------------------------------------------------------------------------------------------------

_ROWS = frozenset({"mask", "group", "reward", "version"})
_TRL = _ROWS | {
    "present", "tokens", "truncated", "budget", "temperature", "correct", "formatted", "pass_rate", "noise",
    "old_logp", "rollout_logp", "prox_logp", "ref_logp", "sampled_entropy",
}  # fmt: skip
TRL = Host(
    "TRL 1.16", credit=_TRL, loss=_TRL | {"entropy"}, capabilities=frozenset({"temperature", "entropy", "roles", "sampling entropy"}),
    unit="batch", drops=True, controls=True,
)  # fmt: skip
VERL = Host(
    "verl 0.9.1", credit=_ROWS | {"correct", "pass_rate"}, loss=frozenset({"mask", "old_logp"}),
    aggregates=(TokenMean(), SeqMeanTokenMean(), SeqMeanTokenSum(), SeqMeanTokenSumNorm()),
    adds=lambda term: (isinstance(term, KL) and term.target == "reference" and term.rows is None and term.ratio is None)
    or (isinstance(term, KLPenalty) and term.target == "reference")
    or (isinstance(term, EntropyBonus) and not term.mean),
)  # fmt: skip
PRIME_RL = Host(
    "prime-rl 0.8", credit=_ROWS | {"correct", "pass_rate"}, loss=frozenset({"mask", "old_logp"}),
    credit_unit="group", aggregates=(TokenMean(),),
)  # fmt: skip
HOSTS = (TRL, VERL, PRIME_RL)


# Which recipes -------------------------------------------------------------------------------------------------------


def serve(
    recipe: str | Path | Recipe | Method, host: Host, instead: Aggregate | None = None, /, **hyper: Any
) -> Recipe:
    """The recipe of a name (``"gspo"``, ``"my.py:name"``, ``"recipe.yaml"``) or method, with hyper-parameters, or the recipe itself;
    ``instead`` is an aggregation in the place of its own.

    Raises :class:`~policyopt.errors.UserError` for what is none, and with every reason why the host cannot serve it.
    """
    if isinstance(recipe, Recipe):
        if hyper:
            raise UserError(
                f"{', '.join(hyper)}: the recipe is made already; give a method's name, or recipe.set(path, value)"
            )
        made = recipe
    else:
        made = _made(recipe if isinstance(recipe, Method) else resolve(recipe), hyper)
    made = made if instead is None else made.replace(aggregate=instead)
    reasons = refusals(made, host)
    if reasons:
        said = "; ".join(sentence for _, sentence in reasons)
        raise UserError(f"{made.name} cannot be carried out by the loop of {host.name}: {said}")
    return made


def _made(method: Method, hyper: Mapping[str, Any]) -> Recipe:
    for name in hyper:
        if name not in method.hyperparameters:
            raise UserError(f"{method.name} has no hyper-parameter {name!r}; {nearest(name, method.hyperparameters)}")
    return method(**hyper)


def refusals(recipe: Recipe, host: Host) -> list[Reason]:
    """Why a host cannot serve a recipe: each part and what it asks for; empty where it can."""
    mine = left(recipe, host)
    if mine.shape != recipe.shape:  # rewards then come with the penalty in them, and say no more what is right
        host = replace(host, credit=host.credit - {"correct", "pass_rate"})
    found = [*_slots(recipe), *_asked(mine, host), *_loop(recipe, mine, host), *_settings(mine, host)]
    if not found:
        found += _tried(mine, host)
    return found


def left(recipe: Recipe, host: Host) -> Recipe:
    """The recipe without the terms that the host adds itself, and without what moves them."""
    terms = tuple(r for r in recipe.regularizers if not host.adds(r))
    shape = tuple(s for s in recipe.shape if not host.adds(s))
    gone = tuple(f"regularizers.{r.handle}." for r in recipe.regularizers if r not in terms)
    gone += tuple(f"shape.{s.handle}." for s in recipe.shape if s not in shape)
    stay = tuple(c for c in recipe.controllers if not c.field.startswith(gone or ("/",)))
    return recipe.replace(regularizers=terms, shape=shape, controllers=stay)


def _slots(recipe: Recipe) -> Iterator[Reason]:
    source = type(recipe.source)
    if source is not Group:
        yield (
            "rows of a program",
            f"source ({source.__name__}) is a program of its own, and the loop draws independent responses",
        )
    for slot, what in (("memory", "keeps nothing of a prompt"), ("curriculum", "takes prompts in an order of its own"),
                       ("decode", "does not answer held-out questions"), ("probes", "does not measure them")):  # fmt: skip
        if found := getattr(recipe, slot):
            named = found[0] if isinstance(found, tuple) else found
            yield slot, f"{slot} ({type(named).__name__}): the loop {what}"
    if recipe.update.replay:
        yield "replay", f"update.replay is {recipe.update.replay}: the loop keeps no earlier batches"


def _loop(recipe: Recipe, mine: Recipe, host: Host) -> Iterator[Reason]:
    if recipe.controllers and not host.controls:
        moved = ", ".join(f"{c.handle} ({c.field})" for c in recipe.controllers)
        yield (
            "controllers",
            f"controllers {moved}: its functions see no step; recipe.replace(controllers=()) holds the fields still",
        )
    if not host.drops:
        for slot, _ in parts_of(recipe):
            if slot.partition(".")[0] in ("filter", "select"):
                yield "rows that leave", f"{slot} drops rows, and its functions cannot"
    for path, p in parts_of(mine):
        if path.partition(".")[0] in ("ratio", "surrogate", "weight", "regularizers") and UNITS.index(
            p.unit
        ) > UNITS.index(host.unit):
            yield (
                "coupled rows",
                f"{path} ({type(p).__name__}) couples the rows of a {p.unit}, and its loss function sees a micro-batch",
            )


def _settings(mine: Recipe, host: Host) -> Iterator[Reason]:
    """What a change of the recipe would mend."""
    if mine.filter and mine.source.rounds > 1:
        yield (
            "draws again",
            (
                f"source.rounds is {mine.source.rounds}: what a filter drops is drawn again, and the loop draws once; "
                "recipe.set('source.rounds', 1) trains on what is left"
            ),
        )
    if host.aggregates is not None and mine.aggregate not in host.aggregates and not _normed(mine.aggregate, host):
        known = ", ".join(map(str, host.aggregates))
        yield "aggregation", f"aggregate is {mine.aggregate}, and the loop has {known}: recipe.replace(aggregate=...)"


def _normed(aggregate: Aggregate, host: Host) -> bool:
    """Whether it is one of the host's with a constant of its own."""
    return isinstance(aggregate, SeqMeanTokenSumNorm) and SeqMeanTokenSumNorm() in (host.aggregates or ())


def _asked(mine: Recipe, host: Host) -> Iterator[Reason]:
    for capability, who in mine.asks.items():
        if capability not in host.capabilities:
            yield capability, f"{', '.join(who)}: {CAPABILITIES[capability]}"
    others = mine.roles - {"reference"}
    if others and "roles" in host.capabilities:
        yield (
            "other models",
            f"{', '.join(sorted(others))}: the loop has no other model beside the policy than the reference",
        )


# A trial on random numbers -------------------------------------------------------------------------------------------


class _Asked(Batch):
    """A batch that remembers which columns it was asked for and has not."""

    __slots__ = ("asked",)

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        super().__init__(columns)
        object.__setattr__(self, "asked", [])

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if found is None:
            self.asked.append(name)
        return found


class _Missing(Exception):
    """A part reads a column that is not there."""


def _tried(mine: Recipe, host: Host) -> Iterator[Reason]:
    """Carry out a step on random numbers that has the host's columns and no other."""
    size = mine.source.size
    whole = random_batch(groups=(size, size), needs=mine.needs | {name for name in host.credit if split(name)})
    try:
        start = _only(whole, host.credit)
        for path, p in _in(mine, "shape"):
            start = _tell(path, p, start)
        for path, p in _in(mine, "filter"):
            _tell(path, p, start)
        if mine.advantage is not None:
            start = start.replace(advantage=_tell("advantage", mine.advantage, start))
        for path, p in _in(mine, "select"):
            _tell(path, p, start)
        if host.credit_unit == "group":
            yield from _by_group(mine, _only(whole, host.credit), start)
        there = start.columns() if host.drops else {"advantage": start.advantage}
        batch = _only(whole, host.loss | {"logp"})
        batch = batch.replace(**{**batch.columns(), **{k: x for k, x in there.items() if x is not None}})
        for path, p in _in(mine, "ratio", "aggregate" if host.drops else "ratio", "regularizers"):
            _tell(path, p, batch)
        ratio = log_ratios(mine, batch)
        for path, p in _in(mine, "surrogate", "weight"):
            _tell(path, p, batch, ratio)
        if host.controls and mine.controllers:
            measured = _measured(mine, start, batch)
            yield from (("controllers", _unmeasured(name)) for name in _followed(mine) if name not in measured)
            control(mine, measured, {})
    except _Missing as missing:
        yield "columns", str(missing)
    except KeyError as error:
        yield "controllers", _unmeasured(error.args[0])


def _unmeasured(name: str) -> str:
    return f"a controller follows {name!r}, which the loop does not measure"


def _followed(recipe: Recipe) -> list[str]:
    """The metrics that controllers name."""
    return [name for c in recipe.controllers if isinstance(name := getattr(c, "metric", None), str)]


def _by_group(mine: Recipe, batch: Batch, start: Batch) -> Iterator[Reason]:
    """Whether advantages are the same where each group is credited alone."""
    first = batch.group == 0
    alone = credit(mine.replace(critic=None), shaped(mine, batch[first])).advantage
    if start.advantage is not None and not torch.allclose(alone, start.advantage[first]):
        name = type(mine.advantage).__name__
        yield "batch statistics", f"advantage ({name}) depends on other groups of the batch, and its function sees one"


def _only(batch: Batch, names: frozenset[str]) -> Batch:
    return Batch({name: x for name, x in batch.columns().items() if name in names})


def _in(recipe: Recipe, *slots: str) -> list[tuple[str, Part]]:
    return [(path, p) for path, p in parts_of(recipe) if path.partition(".")[0] in slots]


def _tell(path: str, p: Any, batch: Batch, *ratio: Tensor) -> Any:
    watched = _Asked(batch.columns())
    try:
        return p(*ratio, watched)
    except UserError as error:
        raise _Missing(f"{path} ({type(p).__name__}): {error}") from error
    except (TypeError, AttributeError, KeyError, RuntimeError) as error:
        name = watched.asked[-1] if watched.asked else str(error)
        raise _Missing(f"{path} ({type(p).__name__}) reads {name!r}, which the loop does not give it") from error


def _measured(recipe: Recipe, drawn: Batch, batch: Batch) -> dict[str, float]:
    """The metrics of a step on random numbers."""
    report = UpdateReport(0.0, 0.0, True, torch.zeros_like(batch.mask))
    batch = batch.replace(share=recipe.aggregate(batch))
    observe(report, recipe, batch, torch.zeros(()), torch.zeros_like(batch.mask), version=-1)
    return metrics_of(drawn, [report])


def metrics_of(drawn: Batch, reports: list[UpdateReport]) -> dict[str, float]:
    """What controllers can follow: the metrics of a credited batch and of the updates that were made on it."""
    counts = {"responses": float(len(drawn)), "tokens": float(drawn.mask.sum())}
    return counts | batch_metrics(drawn) | update_metrics(reports)


# Advantages ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def credited(recipe: Recipe, batch: Batch) -> tuple[Batch, Tensor]:
    """From rewards to advantages: a whole batch, and which of its rows go on, boolean [N].

    A row whose reward is NaN leaves before anything is computed over its group; then the recipe shapes, filters, credits and
    selects. The rows that have left are zeros in all columns.
    """
    rows = (~batch.reward.isnan()).nonzero()[:, 0]
    some = batch[rows]
    for step in (shaped, kept, credit, selected):
        if not len(some):
            break
        found = step(recipe, some)
        if isinstance(found, Batch):
            some = found
        else:
            some, rows = some[found], rows[found]
    if not len(some):
        some = some.replace(advantage=torch.zeros_like(some.mask))
    keep = torch.zeros(len(batch), dtype=torch.bool, device=batch.mask.device)
    keep[rows] = True
    return spread(some, rows, len(batch)), keep


def spread(some: Batch, rows: Tensor, n: int) -> Batch:
    """Rows of a batch back in their places among ``n``, zeros in the others."""
    columns = {}
    for name, x in some.columns().items():
        columns[name] = x.new_zeros((n, *x.shape[1:]))
        columns[name][rows] = x
    return Batch(columns)


def shares(recipe: Recipe, batch: Batch, keep: Tensor) -> Tensor:
    """[N, T] the share of each token in the loss of a whole mini-batch; 0 in rows that have left, which are no rows."""
    found = torch.zeros_like(batch.mask)
    if bool(keep.any()):
        found[keep] = recipe.aggregate(batch[keep])
    return found


# The table -----------------------------------------------------------------------------------------------------------


def table(host: Host) -> str:
    """Which methods of the library, at their defaults, a host serves and which it does not, in Markdown."""
    whys = {name: refusals(method(), host) for name, method in methods().items()}
    fine = [name for name, reasons in whys.items() if not reasons]
    kinds: dict[str, list[str]] = {}
    for name, reasons in whys.items():
        if reasons:
            kinds.setdefault(reasons[0][0], []).append(name)
    rows = [
        f"| {kind} | {len(names)} | {', '.join(names)} |"
        for kind, names in sorted(kinds.items(), key=lambda k: -len(k[1]))
    ]
    head = f"{host.name} serves {len(fine)} of {len(whys)}: {', '.join(fine)}."
    return "\n".join([head, "", "| refused for (the first reason) | methods | |", "| --- | --- | --- |", *rows])


def main() -> None:
    """Print the tables of all hosts."""
    print("\n\n".join(map(table, HOSTS)))


if __name__ == "__main__":
    main()
