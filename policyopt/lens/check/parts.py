"""What is wrong with a part, in plain words."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt import part as slots
from policyopt import schema
from policyopt.errors import explain
from policyopt.lens.check.derivative import TOLERANCE, derivative_error
from policyopt.lens.check.sound import EXACT, POISONS, pieces
from policyopt.lens.random_batch import VOCABULARY, declared, poisoned, random_batch
from policyopt.parts import SequenceRatio, TokenRatio
from policyopt.parts.statistic.group import GroupStatistic, from_logits
from policyopt.rows import Batch

LIBRARY = Path(__file__).parents[2]

ON_BATCHES = (
    slots.Shape,
    slots.Filter,
    slots.Advantage,
    slots.Ratio,
    slots.Surrogate,
    slots.Weight,
    slots.Aggregate,
    slots.Regularizer,
    slots.Critic,
    slots.Memory,
)
IN_THE_LOSS = (slots.Ratio, slots.Surrogate, slots.Weight, slots.Regularizer, slots.Critic)
ALONE = (*ON_BATCHES, slots.Statistic, slots.Reference)

Outputs = dict[str, Tensor]


def faults(part: slots.Part) -> list[str]:
    """Everything that is wrong with a part, as sentences that begin with its class; empty where nothing is found.

    Parts that draw, control or probe are not functions of a batch and are not looked at.
    """
    name = type(part).__name__
    if "__dataclass_fields__" not in type(part).__dict__:
        return [f"{name} is not a frozen part, so its fields are not its own: put @part above the class"]
    found = _misnamed(part)
    if wrong := [f"{name} {said}" for said in found]:
        return wrong
    if isinstance(part, ON_BATCHES):
        found = _on_batches(part)
    elif isinstance(part, GroupStatistic):
        found = _group_statistic(part)
    elif isinstance(part, slots.Statistic):
        found = _statistic(part)
    elif isinstance(part, slots.Reference):
        found = _reference(part)
    return [f"{name} {said}" for said in found]


def _misnamed(part: slots.Part) -> Iterator[str]:
    """Needs and promises that are no columns."""
    for verb, names in (("needs", part.needs), ("provides", part.provides)):
        yield from (f"{verb} {name!r}: {schema.unknown(name)}" for name in sorted(names) if schema.find(name) is None)


def remarks(part: slots.Part) -> list[str]:
    """What a part declares wrongly without harm: advantages, shapes and filters are worked out on whole batches."""
    if not isinstance(part, slots.Advantage | slots.Shape | slots.Filter):
        return []
    return [
        f"{type(part).__name__} {said} (no harm is done: it is worked out on whole batches)" for said in _couples(part)
    ]


def sample(part: slots.Part, seed: int = 0, **shape: Any) -> Batch:
    """A random batch with credit, and with the columns and statistics that the part asks for and no others."""
    batch = random_batch(seed, **shape, live=part.live, fixed=part.fixed, needs=part.needs)
    g = torch.Generator().manual_seed(seed + 1)
    credit = {x: torch.randn(batch.mask.shape, generator=g, dtype=torch.float64) for x in ("advantage", "returns")}
    batch = batch.replace(**{x: y * batch.mask for x, y in credit.items()})
    return declared(batch, _asked(part))


def _asked(part: slots.Part) -> frozenset[str]:
    return part.needs | ({"history"} if isinstance(part, slots.Memory) else frozenset())


def outputs(part: Any, batch: Batch) -> Outputs:
    """What a part makes of a batch, by what it is."""
    if isinstance(part, slots.Shape):
        after = part(batch)
        if not isinstance(after, Batch):
            raise TypeError(f"a shape returns the batch, not {type(after).__name__}")
        names = ("reward", "token_reward", *sorted(part.provides))
        return {x: getattr(after, x) for x in names if getattr(after, x) is not None}
    if isinstance(part, slots.Surrogate | slots.Weight):
        ratio = TokenRatio() if "token" in part.levels else SequenceRatio()
        log_ratio = ratio(batch)
        metrics = {f"the metric {k}": x for k, x in part.metrics(log_ratio, batch).items()}
        return {"result": part(log_ratio, batch), **metrics}
    if isinstance(part, slots.Critic):
        return {"target": part.target(batch), "result": part(batch)}
    return {"result": part(batch)}


def _on_batches(part: slots.Part) -> Iterator[str]:
    """Checks of a part that is a function of a batch. What keeps it from running, its shape, NaN and side effects end
    the list: what comes after would only repeat them."""
    batch = sample(part, gaps=True)
    before = batch.clone()
    try:
        found = outputs(part, batch)
    except Exception as error:
        yield _unasked(part) or _raised(error)
        return
    fatal = (
        [*_misshapen(part, batch, found)]
        or [*_impure(part, batch, before, found)]
        or [*_not_a_number(part, batch, found)]
    )
    if fatal:
        yield from fatal
        return
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "where responses have no token": lambda: _empty_rows(part),
        "with more padding": lambda: _reads_padding(part, batch, found),
        "on the rows in another order": lambda: _order(part),
    }
    if isinstance(part, IN_THE_LOSS):
        checks |= {"on a piece of the batch": lambda: _couples(part), "with a gradient": lambda: _gradient(part)}
    if isinstance(part, slots.Aggregate):
        checks["on other rewards"] = lambda: _shares(part, batch, found)
    for situation, look in checks.items():
        try:
            yield from look()
        except Exception as error:
            yield f"{situation} {_raised(error)}"


def _unasked(part: slots.Part) -> str:
    """The one column without which the part does not run and for which it does not ask."""
    for need in sorted({c.name for c in schema.columns() if c.on_demand} - _asked(part)):
        full = declared(sample_all(part), _asked(part) | {need})
        try:
            outputs(part, full)
        except Exception:
            continue
        columns = " and ".join(f"batch.{c}" for c in schema.on_demand(need))
        needs = ", ".join(map(repr, sorted(part.needs | {need})))
        return f"reads {columns}, which is None unless asked for: needs = frozenset({{{needs}}})"
    return ""


def sample_all(part: slots.Part) -> Batch:
    """As :func:`sample`, with every column."""
    mine = sample(part, gaps=True)
    full = random_batch(0, gaps=True, live=part.live, fixed=part.fixed, needs=part.needs)
    return full.replace(advantage=mine.advantage, returns=mine.returns)


def _raised(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((str(LIBRARY), str(Path(torch.__file__).parent.parent)))]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    if isinstance(error, NotImplementedError):
        return "has no __call__ of its own, so it does nothing"
    if any(f.name in ("stat", "fixed") and Path(f.filename).name == "rows.py" for f in frames):
        return f"reads a statistic that it lists neither under live nor under fixed{where}"
    words = explain(error) if isinstance(error, ValidationError) else str(error)
    return f"raises {type(error).__name__}: {words}{where}"


def _misshapen(part: slots.Part, batch: Batch, found: Outputs) -> Iterator[str]:
    n, t = batch.mask.shape
    rows, tokens, number = ("[N]", (n,)), ("[N, T]", (n, t)), ("one number", ())
    for name, x in found.items():
        expected: list[tuple[str, tuple[int, ...]]] = [tokens]
        if isinstance(part, slots.Filter) or name == "reward":
            expected = [rows]
        elif isinstance(part, slots.Shape) and name != "token_reward":
            column = schema.known(name)
            expected = [(column.shape, {"N": (n,), "NT": (n, t)}.get(column.axes, (n, *x.shape[1:])))]
            if column.dtype == "int":
                continue
        elif isinstance(part, slots.Memory):
            expected = [("[N, width]", (n, part.width))]
        elif isinstance(part, slots.Regularizer | slots.Critic) and name == "result":
            expected.append(number)
        what = "returns" if name == "result" else f"makes {name} of"
        if not isinstance(x, Tensor):
            yield f"{what} {type(x).__name__}, where a tensor {expected[0][0]} is expected"
            continue
        if tuple(x.shape) not in [size for _, size in expected]:
            words = " or ".join(f"{letters} = {list(size)}" for letters, size in expected)
            yield f"{what} shape {list(x.shape)}, where {words} is expected"
        elif isinstance(part, slots.Filter) and x.dtype != torch.bool:
            yield f"{what} {x.dtype}, where booleans are expected"
        elif not isinstance(part, slots.Filter) and x.dtype != batch.mask.dtype:
            yield f"{what} {x.dtype} from a batch of {batch.mask.dtype}: make its tensors like batch.mask"
        elif isinstance(part, slots.Regularizer | slots.Critic) and x.dim() == 0 and part.unit != "batch":
            yield f"returns one number for the whole mini-batch but has unit {part.unit!r}: set unit = 'batch'"


def _same(got: Outputs, wanted: Outputs) -> bool:
    def close(a: Tensor, b: Tensor) -> bool:
        return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=EXACT, atol=1e-12, equal_nan=True)

    return got.keys() == wanted.keys() and all(close(got[name], x) for name, x in wanted.items())


def _visible(part: slots.Part, batch: Batch, found: Outputs) -> Outputs:
    """The outputs with zeros on the padding, which is of no account, except where a part promises the zeros itself."""
    promised = isinstance(part, slots.Advantage | slots.Aggregate)
    token = tuple(batch.mask.shape)
    return {k: x if promised or x.shape != token else torch.where(batch.mask.bool(), x, 0.0) for k, x in found.items()}


def _impure(part: slots.Part, batch: Batch, before: Batch, found: Outputs) -> Iterator[str]:
    old, new = before.columns(), batch.columns()
    for name, x in old.items():
        if not torch.equal(x.nan_to_num(), new[name].nan_to_num()):
            yield f"changes batch.{name} in place: work on a new tensor"
            return
    again = outputs(part, batch)
    if not _same(_visible(part, batch, again), _visible(part, batch, found)):
        yield "gives another result when it is called again: a part is a function of its fields and the batch alone"


def _not_a_number(part: slots.Part, batch: Batch, found: Outputs) -> Iterator[str]:
    if not all(x.isfinite().all() for x in _visible(part, batch, found).values()):
        yield "returns NaN or infinity on an ordinary batch"


def _empty_rows(part: slots.Part) -> Iterator[str]:
    batch = sample(part, groups=(3, 2), lengths=(0, 4, 0, 2, 6))
    if not all(x.isfinite().all() for x in _visible(part, batch, outputs(part, batch)).values()):
        yield "returns NaN or infinity where a response has no token: keep divisors away from 0, clamp(min=1)"


def _reads_padding(part: slots.Part, batch: Batch, found: Outputs) -> Iterator[str]:
    if isinstance(part, slots.Advantage | slots.Aggregate) and (found["result"] * (1 - batch.mask)).any():
        yield "is not 0 on the padding: multiply by batch.mask"
        return
    wanted, width = _visible(part, batch, found), batch.mask.shape[1]
    for poison in POISONS:
        wide = poisoned(batch, poison, extra=2)
        got = _visible(part, wide, outputs(part, wide))
        got = {k: x[:, :width] if x.shape == wide.mask.shape else x for k, x in got.items()}
        if not _same(got, wanted):
            kind = "NaN on the padding spreads" if poison != poison else "numbers on the padding change the result"
            yield f"reads padding: {kind}; cut it off with masked(x, batch.mask) before summing"
            return


def _order(part: slots.Part) -> Iterator[str]:
    batch = sample(part)
    shuffled = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(3))
    other = batch.replace(group=40 - 7 * batch.group)[shuffled]
    wanted = {k: x[shuffled] if x.dim() else x for k, x in _visible(part, batch, outputs(part, batch)).items()}
    if not _same(_visible(part, other, outputs(part, other)), wanted):
        yield "depends on the order of the rows or on the numbers of the groups"


def _couples(part: slots.Part) -> Iterator[str]:
    """Whether the part gives other numbers on the pieces that its ``unit`` names; a critic's target is made on the
    whole batch."""
    if part.unit == "batch":
        return
    batch = sample(part)

    def compute(b: Batch) -> Outputs:
        return {k: x for k, x in _visible(part, b, outputs(part, b)).items() if k != "target"}

    whole = compute(batch)
    for rows in pieces(part.unit, batch):
        if not _same(compute(batch[rows]), {k: x[rows] for k, x in whole.items()}):
            piece, wider = ("prompt", "'batch'") if part.unit == "group" else ("row", "'group' or 'batch'")
            yield (
                f"has unit {part.unit!r} but looks beyond the {piece}: a piece of the batch gives other numbers than "
                f"the whole; set unit = {wider}"
            )
            return


def _gradient(part: slots.Part) -> Iterator[str]:
    batch = sample(part, groups=(4, 2), width=4, gaps=True)
    columns = {name: getattr(batch, name) for name in ("logp", "entropy", "value")}
    at = {name: x for name, x in columns.items() if x is not None} | {s.key: batch.stat(s) for s in part.live}
    free = batch.with_leaves({name: x.clone().requires_grad_() for name, x in at.items()})
    result = outputs(part, free)["result"]
    if isinstance(part, slots.Weight):
        if result.requires_grad:
            yield "lets a gradient flow through its weights, which the objective cuts off: end with .detach()"
        return
    if not result.requires_grad:
        if isinstance(part, slots.Surrogate) and result.any():
            yield "gives a loss that no gradient can leave: keep logp, or the ratio, in the graph"
        return

    def total(leaves: dict[str, Tensor]) -> Tensor:
        found = outputs(part, batch.with_leaves(leaves))["result"]
        return torch.where(batch.mask.bool(), found, 0.0).sum() if found.dim() else found

    if not derivative_error(total, at, batch.mask) <= TOLERANCE:  # type: ignore[arg-type]
        yield (
            "has a gradient that is not the derivative of its value: something left the graph without detach() "
            "(item(), float(), numpy), or a backward of its own is wrong"
        )


def _shares(part: slots.Part, batch: Batch, found: Outputs) -> Iterator[str]:
    g = torch.Generator().manual_seed(9)
    names = ("logp", "old_logp", "advantage", "reward")
    other = batch.replace(**{x: torch.randn(getattr(batch, x).shape, generator=g, dtype=torch.float64) for x in names})
    if not _same(outputs(part, other), found):
        yield "makes shares from more than masks and lengths: what depends on rewards or policies belongs into a weight"


def _statistic(part: slots.Statistic) -> Iterator[str]:
    g = torch.Generator().manual_seed(0)
    roles = {
        role: torch.randn(12, VOCABULARY, generator=g, dtype=torch.float64) for role in ("policy", *sorted(part.roles))
    }
    logits, target = roles.pop("policy"), torch.randint(VOCABULARY, (12,), generator=g)
    roles |= {column: torch.rand(12, generator=g, dtype=torch.float64) for column in part.columns}

    def of(rows: slice) -> Tensor:
        return part(logits[rows], target[rows], {role: x[rows] for role, x in roles.items()})

    try:
        found = of(slice(None))
    except KeyError as error:
        yield f"reads the logits of {error.args[0]!r}, which its roles do not name"
        return
    except Exception as error:
        yield _raised(error)
        return
    if not isinstance(found, Tensor) or tuple(found.shape) != (12,):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        yield f"returns shape {shape}, where one number per token, [M] = [12], is expected"
    elif not found.isfinite().all():
        yield "returns NaN or infinity on ordinary logits"
    elif not torch.allclose(torch.cat([of(slice(0, 5)), of(slice(5, 12))]), found):
        yield "looks at other tokens: worked out in chunks it gives other numbers"


def _group_statistic(part: GroupStatistic) -> Iterator[str]:
    batch = random_batch(0, gaps=True)
    logits = torch.randn(*batch.mask.shape, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        found = from_logits(part, batch, logits)
        turned = from_logits(part, batch[[*reversed(range(len(batch)))]], logits.flip(0)).flip(0)
    except Exception as error:
        yield _raised(error)
        return
    if not found.isfinite().all():
        yield "returns NaN or infinity on ordinary logits"
    elif not torch.allclose(found, turned):
        yield "depends on the order of the responses"


def _reference(part: slots.Reference) -> Iterator[str]:
    try:
        found = [part(step) for step in range(1, 21)]
    except Exception as error:
        yield _raised(error)
        return
    wrong = [f for f in found if not (isinstance(f, float | int) and 0 <= f <= 1)]
    if wrong:
        yield f"returns {wrong[0]!r}, where a fraction from 0 to 1 is expected"
