"""Responses and their verdicts as the rows of a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from policyopt import schema
from policyopt.engine.streams import stream_key, uniforms
from policyopt.errors import UserError, nearest
from policyopt.groups import group_sum
from policyopt.items import Verdict
from policyopt.part import Span
from policyopt.recipe import Recipe, parts_of
from policyopt.rows import Batch, make_batch, masked, pad
from policyopt.schema import Column, Row, member
from policyopt.sources.program import Response

Located = tuple[str, list[tuple[int, int]]]
"""A text, and where that of each token begins and ends in it."""


def to_batch(
    prompts: Sequence[Sequence[int]], responses: Sequence[Response], verdicts: Sequence[Verdict], group: Sequence[int], budget: int,
    dtype: torch.dtype = torch.float32, needs: frozenset[str] = frozenset(),
) -> Batch:  # fmt: skip
    """Responses as a batch; all sequences have one entry per row.

    A column that no row fills is there only if a response or a verdict may fill it and it is among ``needs``. Raises
    :class:`~policyopt.errors.UserError` where a response or a judge gives what is no column, or has another shape.
    """
    rows = [Row(*cells) for cells in zip(responses, verdicts, prompts, group, [budget] * len(responses), strict=True)]
    _known(rows)
    named = {name for row in rows for given in (row.response.columns, row.verdict.parts) for name in given}
    needs = needs.union(*(schema.known(name).brings for name in needs if schema.find(name) is not None))
    found = {}
    for column in schema.columns():
        asked = (
            column.name in needs
            and column.filled_by in ("program", "judge", "environment")
            and column.absent is not None
        )
        if column.read is None and not asked and column.name not in named:
            continue
        entries = [column.entry(row) for row in rows]
        if asked or any(x is not None for x in entries):
            found[column.name] = _tensor(column, entries, rows, dtype)
    said = components(verdicts, needs, dtype)
    said |= turn_numbers(responses, needs, dtype) | supports(responses) | routes(prompts, responses)
    return make_batch(**found, **said, pass_rate=pass_rate(responses, verdicts, group, dtype))


def supports(responses: Sequence[Response]) -> dict[str, Tensor]:
    """The columns that say from which tokens each token was drawn; none where every draw was from the whole vocabulary."""
    if not any(len(ids) for r in responses for ids in r.support):
        return {}
    counts = [[len(ids) for ids in r.supports] for r in responses]
    rows = [np.array([*itertools.chain(*r.support)], dtype=np.int32) for r in responses]
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
    return {"support": pad(counts, torch.long), "support_ids": padded}


def routes(prompts: Sequence[Sequence[int]], responses: Sequence[Response]) -> dict[str, Tensor]:
    """The column that says which experts the tokens of each row went to, as far as its text is the one that was recorded; none
    where nothing was."""
    first = next((r.routes for r in responses if r.routes is not None), None)
    if first is None:
        return {}
    none = first.experts[:0]
    found = [
        none if r.routes is None else r.routes.of((*(r.context or prompt), *r.tokens))
        for prompt, r in zip(prompts, responses, strict=True)
    ]
    return {"routes": torch.nn.utils.rnn.pad_sequence(found, batch_first=True).flatten(1)}


def check_filled(recipe: Recipe, judge: str, provides: frozenset[str]) -> None:
    """Refuse a recipe that needs a column which a judge has to fill and this one does not.

    Raises :class:`~policyopt.errors.UserError` with the part, the column, and what would fill it.
    """
    given = recipe.provides.union(map(schema.canonical, provides))
    for path, part in parts_of(recipe):
        for column in map(schema.known, sorted(part.needs)):
            if column.filled_by == "judge" and column.name not in given:
                raise UserError(
                    f"{path} ({type(part).__name__}) needs {column.name!r}, which the judge {judge!r} does not give: "
                    f"{schema.advice(column)}"
                )


def _known(rows: Sequence[Row]) -> None:
    """Refuse what a program gives for a column that is none, or that a program does not fill."""
    for name in sorted({name for row in rows for name in row.response.columns}):
        found = schema.find(name)
        if found is None or found.read is not None or found.filled_by not in schema.OPEN:
            takes = [c.name for c in schema.columns() if c.read is None and c.filled_by in schema.OPEN]
            raise UserError(
                f"the rollout program fills the column {name!r}, which is none that a program may fill; "
                f"{nearest(name, takes)}; policyopt.column({name!r}, ...) declares one of your own"
            )


def _tensor(column: Column, entries: Sequence[Any], rows: Sequence[Row], dtype: torch.dtype) -> Tensor:
    """One column from its entries: numbers, or lists that are padded; ``None`` is filled up as the column says."""
    if column.read is None:
        for x, row in zip(entries, rows, strict=True):
            _fits(column, x, row)
    kind = torch.long if column.dtype == "int" else dtype
    if any(x is None for x in entries):
        entries = [_absent(column, row) if x is None else x for x, row in zip(entries, rows, strict=True)]
    lists = [x for x in entries if isinstance(x, list | tuple)]
    if column.axes == "N" and not lists:
        return torch.tensor(entries, dtype=kind)
    longest = max(map(len, lists), default=1)
    tokens = column.axes in ("N", "NT")  # one number stands for all tokens of the row
    sizes = [len(row.response.tokens) if tokens else longest for row in rows]
    whole = [x if isinstance(x, list | tuple) else [x] * size for x, size in zip(entries, sizes, strict=True)]
    return pad(whole, kind, column.padding)


def _absent(column: Column, row: Row) -> Any:
    if isinstance(column.absent, str):
        return schema.known(column.absent).entry(row)
    if column.absent is None:
        raise ValueError(f"a response fills the column {column.name!r} and another one does not")
    return column.absent


def _fits(column: Column, x: Any, row: Row) -> None:
    """Refuse what a judge or a program gave in another shape than the column has."""
    several, tokens = isinstance(x, list | tuple), len(row.response.tokens)
    wrong = ""
    if column.axes == "N" and several:
        wrong = f"a list of {len(x)}, expected one number for the response"
    elif column.axes == "NK" and x is not None and not several:
        wrong = "one number, expected a list"
    elif column.axes == "NT" and several and len(x) != tokens:
        wrong = f"a list of {len(x)}, expected one number for each of {tokens} tokens"
    if wrong:
        raise UserError(f"the column {column.name!r} was given {wrong} ({column.shape})")


def components(verdicts: Sequence[Verdict], needs: frozenset[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """What each of several judges says, [N], by the name of its column: the parts of verdicts that are no columns of their
    own, and those among ``needs``; 0 where a verdict has none."""
    asked = {parts[1] for name in needs if (parts := schema.split(name)) and parts[0] == "component"}
    names = sorted(asked.union(name for v in verdicts for name in v.parts if not _judged(name)))
    for name in names:
        if any(isinstance(v.parts.get(name), list | tuple) for v in verdicts):
            raise UserError(
                f"the judge gives a list as its part {name!r}, which is no column: declare it with "
                f"policyopt.column({name!r}, axes='NK', ...)"
            )
    said = {x: [v.parts.get(x, 0.0) for v in verdicts] for x in names}
    return {member("component", x): torch.tensor(numbers, dtype=dtype) for x, numbers in said.items()}


def turn_numbers(responses: Sequence[Response], needs: frozenset[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """What environments counted turn by turn, [N, K], by the name of its column: of what they counted, those among ``needs``; 0 in
    turns and rows without."""
    names = sorted(name for name in needs if (parts := schema.split(name)) and parts[0] == "turn_number")
    ends = [cast("list[float]", r.columns.get("turn_end") or []) for r in responses]
    none = [[0.0] * len(turns) for turns in ends]
    given = {name: [r.columns.get(name) or x for r, x in zip(responses, none, strict=True)] for name in names}
    return {name: pad(cast("list[list[float]]", rows), dtype) for name, rows in given.items()}


def _judged(name: str) -> bool:
    """Whether a part of a verdict is a column of its own."""
    found = schema.find(name)
    return found is not None and found.read is None and found.filled_by in schema.OPEN


def with_steps(
    batch: Batch, responses: Sequence[Response], verdicts: Sequence[Verdict], lines: Sequence[Sequence[int]]
) -> Batch:
    """The batch with ``step_end``: where nobody has said where steps end, the index of the last token of each line.

    A response whose steps nobody has rewarded beside others has none. Raises
    :class:`~policyopt.errors.UserError` where rewards and ends of a response differ in number.
    """
    rewards, ends = ([_given(name, r, v) for r, v in zip(responses, verdicts)] for name in ("step_reward", "step_end"))
    if batch.step_end is None:
        ends = [line if batch.step_reward is None or given else [] for line, given in zip(lines, rewards, strict=True)]
        batch = batch.replace(step_end=pad(ends, torch.long, -1))
    for given, found in zip(rewards, ends, strict=True):
        if batch.step_reward is not None and len(given) != len(found):
            raise UserError(
                f"{len(given)} steps of a response are rewarded, and it has {len(found)}: give one 'step_reward' for each "
                "line, or 'step_end' too, the index of each step's last token"
            )
    return batch


def with_spans(
    batch: Batch, spans: Sequence[Span], responses: Sequence[Response], located: Callable[[Sequence[int]], Located]
) -> Batch:
    """The batch with the columns of spans: 1 on the policy's own tokens whose text shares a character with one of their places.
    ``located`` says what the text of a response is, and where that of each token stands in it."""
    found: dict[str, list[list[float]]] = {span.column: [] for span in spans}
    for response in responses:
        text, places = located(response.tokens)
        first, last = (np.array(ends, dtype=np.int64) for ends in (zip(*places, strict=True) if places else ((), ())))
        for span in spans:
            inside = np.zeros(len(text) + 1, dtype=np.int64)
            for start, end in span(text):
                inside[start:end] = 1
            before = np.concatenate([[0], inside.cumsum()])  # characters of the span before each place
            found[span.column].append((before[last] > before[first]).astype(float).tolist())
    wide = [0.0] * batch.mask.shape[1]
    columns = {name: pad([*rows, wide], batch.mask.dtype)[:-1] for name, rows in found.items()}
    return batch.replace(**{name: masked(x, batch.mask) for name, x in columns.items()})


def _given(name: str, response: Response, verdict: Verdict) -> Sequence[float]:
    found: Sequence[float] | None = response.columns.get(name) or verdict.parts.get(name)  # type: ignore[assignment]
    return found or ()


def pass_rate(
    responses: Sequence[Response], verdicts: Sequence[Verdict], group: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """[N] the share of the main program's sampled responses to each row's prompt that are right; 0 where it has none."""
    mine = torch.tensor([float(r.origin == 0 and r.use != "baseline") for r in responses], dtype=dtype)
    right = torch.tensor([float(v.correct) for v in verdicts], dtype=dtype)
    prompt = torch.tensor(group, dtype=torch.long)
    return group_sum(mine * right, prompt) / group_sum(mine, prompt).clamp(min=1)


def unjudged(batch: Batch, version: int) -> Batch:
    """A batch of given texts without what only drawn and judged responses have; ``version`` is that of the policy whose
    ``old_logp`` they have."""
    return batch.replace(
        rollout_logp=None, sampled_entropy=None, correct=None, formatted=None, pass_rate=None,
        version=torch.full_like(batch.version, version),
    )  # fmt: skip


def noise(keys: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
    """Random numbers in [0, 1) of the shape of ``like`` [N, T], each from the key of its row and its position alone (and
    from another stream than the tokens)."""
    streams = np.array([stream_key((*key, -1)) for key in keys], dtype=np.uint64)
    return torch.from_numpy(uniforms(streams[:, None], np.arange(like.shape[1]))).to(like)


def with_baseline(batch: Batch, roles: Sequence[str]) -> Batch:
    """The batch with ``baseline_reward``: the mean reward of each prompt's rows in the role "baseline", or of all its
    rows where the program drew none in that role."""
    own = torch.tensor([float(role == "baseline") for role in roles]).to(batch.reward)
    counts = own if bool(own.any()) else torch.ones_like(own)
    mean = group_sum(counts * batch.reward, batch.group) / group_sum(counts, batch.group).clamp(min=1)
    return batch.replace(baseline_reward=mean)
