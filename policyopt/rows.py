"""The rows of a batch: columns by name and the text record of each row, in one object. Every part is a function of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from policyopt import schema
from policyopt.errors import UserError
from policyopt.schema import FIXED as FIXED
from policyopt.schema import member

Record = dict[str, Any]
"""What the log keeps of a row; JSON-able."""


class _Cut:
    """The records of some rows of a batch. They are picked when somebody reads them: reading row numbers waits for the
    device, and most pieces of a batch are never asked for their texts."""

    __slots__ = ("rows", "whole")

    def __init__(self, whole: list[Record] | _Cut, rows: Any) -> None:
        self.whole, self.rows = whole, rows

    def pick(self) -> list[Record]:
        whole = self.whole.pick() if isinstance(self.whole, _Cut) else self.whole
        if isinstance(self.rows, slice):
            return whole[self.rows]
        rows = self.rows.tolist() if isinstance(self.rows, Tensor) else self.rows
        return [whole[i] for i in rows]


class Batch:
    """Responses of one step, right-padded to a common length T. N rows, P prompt positions.

    The columns and what they mean are in :mod:`policyopt.schema`. A column that is not there is ``None``; a name that is
    none raises ``AttributeError``. Floating columns share one dtype (float32 in training, float64 in gradient tests).
    Padding may hold anything, NaN too; parts cut it off by ``mask`` and never read it.

    A batch is never changed: :meth:`replace` and indexing by rows (numbers, booleans [N], a slice) give others, and
    the records of the rows go with them.
    """

    __slots__ = ("__dict__", "_texts")

    mask: Tensor

    def __init__(self, columns: Mapping[str, Tensor], records: list[Record] | None = None) -> None:
        for name, x in columns.items():
            _check(name, x, len(columns["mask"]))
        if records is not None and len(records) != len(columns["mask"]):
            raise ValueError(f"{len(records)} records for {len(columns['mask'])} rows")
        self.__dict__.update({schema.canonical(name): x for name, x in columns.items()})
        object.__setattr__(self, "_texts", records)

    def __getattr__(self, name: str) -> Any:  # only asked for what is not there
        if name.startswith("__"):
            raise AttributeError(name)
        found = _column(name)
        return self.__dict__.get(found.name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a batch is never changed: batch.replace({name}=...) gives another one")

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.columns(), self.records)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(c.name for c in schema.columns())})

    def __repr__(self) -> str:
        return f"Batch({len(self)} rows: {', '.join(self.__dict__)})"

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: Any) -> Batch:
        """Some of the rows, in the order that is asked for: numbers, booleans [N], or a slice."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        elif isinstance(rows, int):
            raise TypeError(f"batch[{rows}] is no batch: take batch[{rows}:{rows + 1}]")
        texts = None if self._texts is None else _Cut(self._texts, rows)
        return _made({name: x[rows] for name, x in self.__dict__.items()}, texts)

    @property
    def records(self) -> list[Record] | None:
        """One JSON-able record per row (id, prompt, response, answer, correct, reason, formatted); ``None`` for rows
        without texts."""
        if isinstance(self._texts, _Cut):
            object.__setattr__(self, "_texts", self._texts.pick())
        return self._texts

    def columns(self) -> dict[str, Tensor]:
        """The columns that are there, by name; :func:`make_batch` reads them back."""
        return dict(self.__dict__)

    def members(self, family: str) -> dict[str, Tensor]:
        """The columns of a family that are there, by what stands in brackets: ``members("component")``."""
        start = f"{family}["
        return {name[len(start) : -1]: x for name, x in self.__dict__.items() if name.startswith(start)}

    def clean_columns(self) -> dict[str, Tensor]:
        """The columns that hold a number for each token and 0 elsewhere, by name."""
        return {name: x for name, x in self.__dict__.items() if _column(name).clean}

    def replace(self, **columns: Tensor | None) -> Batch:
        """The batch with columns exchanged, added, or taken out (``None``).

        Raises ``AttributeError`` for a name that is no column and ``ValueError`` for a column of other rows.
        """
        new = dict(self.__dict__)
        mask = columns.get("mask")
        size = len(self.mask if mask is None else mask)
        for name, x in columns.items():
            found = _column(name)
            if x is None:
                new.pop(found.name, None)
            else:
                _check(name, x, size)
                new[found.name] = x
        return _made(new, self._texts)

    def with_records(self, records: list[Record] | None) -> Batch:
        """The batch with other records, one per row."""
        return Batch(self.__dict__, records)

    def with_statistics(self, found: Mapping[str, Tensor]) -> Batch:
        """The batch with further statistics by key."""
        return self.replace(**{member("statistic", key): x for key, x in found.items()}) if found else self

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Batch:
        """The batch with leaves in their place: those with the name of a column there, the others as statistics."""
        named = ((name if schema.find(name) else member("statistic", name), x) for name, x in leaves.items())
        return self.replace(**dict(named))

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return _made({name: x.to(device) for name, x in self.__dict__.items()}, self._texts)

    def cpu(self) -> Batch:
        """The batch in main memory."""
        return self.to("cpu")

    def clone(self) -> Batch:
        """The batch with tensors of its own."""
        return _made({name: x.clone() for name, x in self.__dict__.items()}, self._texts)

    # What is read through a function

    def stat(self, statistic: Any) -> Tensor:
        """[N, T] a statistic of the policy being trained, with its gradient."""
        return self.__dict__[member("statistic", statistic.key)]

    def fixed(self, statistic: Any) -> Tensor:
        """[N, T] a statistic as it was when the batch was annotated, without gradient."""
        return self.__dict__[member("statistic", FIXED + statistic.key)]

    def behind(self, look: Any) -> Tensor:
        """[N, T] log-probability of each token behind the context of a :class:`~policyopt.part.Look`, without gradient."""
        return self.__dict__[look.column]

    def logp_of(self, role: str) -> Tensor:
        """[N, T] log-probability of each token under the frozen model in a role; ``ref_logp`` is short for that of
        "reference"."""
        return self.__dict__[member("logp_of", role)]

    def span(self, which: Any) -> Tensor:
        """[N, T] 1 on the tokens of a span, 0 elsewhere and on padding: of a :class:`~policyopt.part.Span`, or of its name."""
        name = member("span", which if isinstance(which, str) else which.handle)
        found = getattr(self, name)
        if found is None:
            raise KeyError(name)
        return masked(found, self.mask)

    def shows(self, which: Any) -> Tensor:
        """[N] bool, whether a span has a token in the response: of a :class:`~policyopt.part.Span`, or of its name."""
        return self.span(which).sum(-1) > 0

    def components(self) -> dict[str, Tensor]:
        """[N] each, what single judges say: the components, NaN where one does not apply to the row, and the columns of one
        number that a judge fills."""
        judged = (c.name for c in schema.columns() if c.filled_by == "judge" and c.axes == "N")
        return self.members("component") | {name: self.__dict__[name] for name in judged if name in self.__dict__}

    def component(self, name: str) -> Tensor:
        """[N] what one of several judges says, 0 where it does not apply to the row; "correct" and "formatted" are the
        verdict's own, whoever judges, and a number that a program gives each row counts too.

        Raises :class:`~policyopt.errors.UserError` for a name that the judge does not give.
        """
        said = self.components()
        column = schema.find(name)
        program = name in self.__dict__ and column is not None and (column.filled_by, column.axes) == ("program", "N")
        if name not in ("correct", "formatted", *said) and not program:
            has = ", ".join(["correct", "formatted", *said])
            raise UserError(
                f"the judge says nothing called {name!r}; it has {has}: name one of these, or take a judge with {name!r} among its parts"
            )
        if name not in said:
            return getattr(self, name)
        return said[name] if name in self.__dict__ else said[name].nan_to_num(0.0)

    def length(self) -> Tensor:
        """[N] number of response tokens, in the dtype of ``mask``."""
        return self.mask.sum(-1) if self.true_length is None else self.true_length

    def own(self) -> Tensor:
        """[N, T] 1 on the tokens of ``mask`` that the policy wrote itself."""
        return self.mask if self.guided is None else masked(1 - self.guided, self.mask)

    def terminal(self) -> Tensor:
        """[N, T] 1 on the last token of each row, 0 elsewhere (a row without tokens has none)."""
        later = self.mask.flip(-1).cumsum(-1).flip(-1)
        return self.mask * (later == 1)

    def total_reward(self) -> Tensor:
        """[N] ``reward`` plus the sum of the token rewards of the row."""
        if self.token_reward is None:
            return self.reward
        return self.reward + masked(self.token_reward, self.mask).sum(-1)


def _made(columns: dict[str, Tensor], texts: list[Record] | _Cut | None) -> Batch:
    """A batch from columns that are known to be right."""
    batch = Batch.__new__(Batch)
    batch.__dict__.update(columns)
    object.__setattr__(batch, "_texts", texts)
    return batch


def _column(name: str) -> schema.Column:
    found = schema.find(name)
    if found is None:
        raise AttributeError(f"batch.{name}: {schema.unknown(name)}")
    return found


def _check(name: str, x: Tensor, rows: int) -> None:
    _column(name)
    if x.dim() == 0 or len(x) != rows:
        raise ValueError(f"column {name!r} has shape {list(x.shape)}, but the batch has {rows} rows")


def behind(batch: Batch, look: Any) -> Batch:
    """The batch with the context of a :class:`~policyopt.part.Look` in the place of the prompt."""
    ids = batch.columns()[member("context", look.key)]
    there = ids >= 0
    return batch.replace(prompt=ids.clamp(min=0), prompt_mask=there.to(batch.prompt_mask), routes=None)


# Making and joining --------------------------------------------------------------------------------------------------


def make_batch(records: list[Record] | None = None, /, **columns: Tensor | None) -> Batch:
    """A :class:`Batch` from its columns, with the number of rows read off ``mask`` and zeros put on the padding.

    Raises ``AttributeError`` for a name that is no column and ``ValueError`` where rows disagree.
    """
    there = {name: x for name, x in columns.items() if x is not None}
    mask = there["mask"]
    return Batch({name: masked(x, mask) if _column(name).clean else x for name, x in there.items()}, records)


def join(pieces: Sequence[Batch]) -> Batch:
    """Batches of unlike width, and with unlike columns, as one.

    What a piece lacks is made up as the column says (``absent``). Raises ``ValueError`` for a column of the first piece
    that nothing can stand in for; such a column of a later piece alone is left out.
    """
    if len(pieces) == 1:
        return pieces[0]
    columns = [p.columns() for p in pieces]
    names = dict.fromkeys(name for c in columns for name in c)
    joined = {name: _joined(name, columns) for name in names if name in columns[0] or _column(name).absent is not None}
    texts = [p.records for p in pieces]
    records = [r for piece in texts for r in piece or ()] if all(t is not None for t in texts) else None
    return make_batch(records, **joined)


def _joined(name: str, columns: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """One column of several batches, those without it filled up."""
    column = _column(name)
    width = max(c[name].shape[1] if c[name].dim() == 2 else 0 for c in columns if name in c)
    pieces = []
    for c in columns:
        x = c[name] if name in c else _stand_in(column, c, width)
        if width and x.dim() == 1:  # one number for the whole row
            x = x[:, None].expand(-1, c["mask"].shape[1])
        pieces.append(nn.functional.pad(x, (0, width - x.shape[1]), value=column.padding) if width else x)
    return torch.cat(pieces)


def _stand_in(column: schema.Column, columns: Mapping[str, Tensor], width: int) -> Tensor:
    if column.absent is None:
        raise ValueError(
            f"batches cannot be joined: one of them has no column {column.name!r}, and nothing stands in for it"
        )
    if isinstance(column.absent, str):
        return columns[column.absent]
    mask = columns["mask"]
    wide = mask.shape[1] if column.axes == "NT" else width
    dtype = torch.long if column.dtype == "int" else mask.dtype
    return torch.full((len(mask), wide) if wide else (len(mask),), column.absent, dtype=dtype, device=mask.device)


def pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, value: float = 0) -> Tensor:
    """Lists of unlike length as one right-padded tensor [N, T] (T at least 1)."""
    width = max(1, max(map(len, rows), default=1))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)


BOUND = 20.0
"""What log-ratios are held to on both sides, as in verl: beyond it their exponentials grow until they overflow, and a gradient
of 0 times infinity is NaN."""


def held(log_ratio: Tensor) -> Tensor:
    """Log-ratios held to plus and minus :data:`BOUND`, before an exponential is taken of them; without gradient beyond."""
    return log_ratio.clamp(-BOUND, BOUND)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` where ``mask`` is 1, else 0, whatever stood there (a product with the mask would keep NaN and infinity)."""
    return torch.where(mask.bool(), x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Mean of ``x`` over the places where ``mask`` is 1; 0 where there is none."""
    kept = masked(x, mask)
    if dim is None:
        return kept.sum() / mask.sum().clamp(min=1)
    return kept.sum(dim, keepdim=keepdim) / mask.sum(dim, keepdim=keepdim).clamp(min=1)
