"""Random batches on which a recipe can be measured: every column filled, and what the models say of it consistent."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from policyopt import schema
from policyopt.part import Statistic
from policyopt.parts.statistic.group import GroupStatistic, from_logits
from policyopt.rows import FIXED, Batch, make_batch, masked

LOGITS = "logits:"
"""Prefix of the keys under which a batch keeps the logits [N, T, V] that it was made from."""

VOCABULARY = 5
BUDGET = 9
ROLES = ("old", "policy", "rollout", "previous", "proximal", "reference", "teacher")
"""Models that every batch knows of."""


class Scene:
    """What the invented columns of one random batch have in common, and where they get their numbers from.

    :attr:`Column.invent <policyopt.schema.Column.invent>` makes a column from it: ``lambda s: s.uniform(s.n)``.
    """

    def __init__(
        self, seed: int, groups: tuple[int, ...], width: int, lengths: tuple[int, ...] | None, gaps: bool, drift: float
    ) -> None:
        self.seed, self.groups, self.n, self.width = seed, len(groups), sum(groups), width
        self.budget = BUDGET
        self.draws = torch.Generator().manual_seed(seed)
        self.length = torch.tensor(lengths) if lengths else torch.randint(1, width + 1, (self.n,), generator=self.draws)
        self.there = (torch.arange(width) < self.length[:, None]).double()
        self.mask = self.there.clone()
        if gaps:
            self.mask[:, 1] *= self.length <= 2
        self.group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups))
        self.correct = torch.cat([torch.arange(k) % 2 for k in groups]).double()
        old, self._value = self.normal(self.n, width, VOCABULARY), self.normal(self.n, width)
        apart = {
            "policy": drift,
            "rollout": 0.1 * drift,
            "previous": 0.5 * drift,
            "proximal": 0.5 * drift,
            "reference": drift,
        }
        self.logits = {"old": old}
        self.logits |= {role: old + d * self.normal(self.n, width, VOCABULARY) for role, d in apart.items()}
        self.logits["teacher"] = self.normal(self.n, width, VOCABULARY)
        self.tokens = torch.randint(VOCABULARY, (self.n, width), generator=self.draws)
        self._history = self.uniform(len(groups), 4)
        self._history[-1] = torch.nan  # the last prompt is new

    # Numbers

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers in float64."""
        return torch.randn(*shape, generator=self.draws, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1) in float64."""
        return torch.rand(*shape, generator=self.draws, dtype=torch.float64)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to below ``high``, one for each row unless a shape is given."""
        return torch.randint(high, shape or (self.n,), generator=self.draws)

    def zeros(self) -> Tensor:
        """[N] whole zeros."""
        return torch.zeros(self.n, dtype=torch.long)

    def column(self, column: schema.Column) -> Tensor:
        """A column that is none of the library's own, from random numbers of its own: those of other columns do not change
        with it."""
        draws, self.draws = self.draws, torch.Generator().manual_seed(self.seed + zlib.crc32(column.name.encode()))
        shape = {"N": (self.n,), "NT": (self.n, self.width)}.get(column.axes, (self.n, 2))
        if column.invent is not None:
            found: Tensor = column.invent(self)
        else:
            found = self.integers(2, *shape) if column.dtype == "int" else self.uniform(*shape)
        self.draws = draws
        return found

    # What the library's columns are made of

    def logp(self, role: str) -> Tensor:
        """[N, T] log-probability of each token under a role."""
        if role not in self.logits:  # a role that a recipe names
            old = self.logits["old"]
            self.logits[role] = (old + 0.3 * self.normal(*old.shape)).log_softmax(-1)
        return token_logp(self.logits[role], self.tokens)

    def entropy(self, role: str) -> Tensor:
        """[N, T] entropy of the distributions of a role, in nats."""
        return entropy(self.logits[role])

    def tree(self, name: str) -> Tensor:
        """A column of the tree that the rows form."""
        return self._tree[name]

    @cached_property
    def _tree(self) -> dict[str, Tensor]:
        return tree(self.group, self.length)

    def guided(self) -> Tensor:
        """[N, T] the second half of each response to every other prompt."""
        return (torch.arange(self.width) >= self.length[:, None] // 2).double() * (self.group % 2)[:, None]

    def prompts(self) -> Tensor:
        """[N, 3] the same ids for all rows of a group."""
        return self.integers(VOCABULARY, self.groups, 3)[self.group]

    def prompt_mask(self) -> Tensor:
        """[N, 3] all of them."""
        return torch.ones(self.n, 3, dtype=torch.float64)

    def cut_off(self) -> Tensor:
        """[N] 1 for the longest responses."""
        return (self.length == self.width).double()

    def temperature(self) -> Tensor:
        """[N] one of three."""
        return torch.tensor([0.8, 1.0, 1.25], dtype=torch.float64)[self.integers(3)]

    def reward(self) -> Tensor:
        """[N] numbers in [0, 1], higher where the answer is right."""
        return 0.7 * self.correct + 0.3 * self.uniform(self.n)

    def wins(self) -> Tensor:
        """[N] the mean of each row of :meth:`beats`; 1/2 for a row alone."""
        return self.beats().nanmean(1).nan_to_num(0.5)

    def beats(self) -> Tensor:
        """[N, G] how likely each row is better than those of its group, by how right they are and by chance; the two of a
        pair add up to 1."""
        return self._beats

    @cached_property
    def _beats(self) -> Tensor:
        draws = torch.Generator().manual_seed(self.seed + 1)  # other columns do not change with it
        strength = 2 * self.correct + torch.randn(self.n, generator=draws, dtype=torch.float64)
        noise = torch.randn(self.n, self.n, generator=draws, dtype=torch.float64)
        table = torch.sigmoid(strength[:, None] - strength + noise - noise.T).fill_diagonal_(torch.nan)
        rows = [table[i, self.group == self.group[i]] for i in range(self.n)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)

    def formatted(self) -> Tensor:
        """[N] 1 for right answers and half of the others."""
        return ((self.correct > 0) | (self.uniform(self.n) < 0.5)).double()

    def pass_rate(self) -> Tensor:
        """[N] 0, a half or 1 by prompt."""
        return (self.group % 3).double() / 2

    def history(self) -> Tensor:
        """[N, 4] the same for all rows of a group, NaN for the last one."""
        return self._history[self.group]

    def step_end(self) -> Tensor:
        """[N, 2] two steps, of half of the response each."""
        return torch.stack([self.length // 2 - 1, self.length - 1], dim=1)

    def states(self) -> Tensor:
        """[N, 2] two turns: all rows of a group begin in one state, and go on in one of two."""
        return torch.stack([self.zeros(), 1 + torch.arange(self.n) % 2], dim=1)

    def episodes(self) -> Tensor:
        """[N] two rows for each episode of a group."""
        return (self.group[:, None] == self.group).long().tril(-1).sum(1) // 2

    def value(self) -> Tensor:
        """[N, T] what the critic said."""
        return self._value

    def new_value(self) -> Tensor:
        """[N, T] what it says now."""
        return self._value + 0.3 * self.normal(self.n, self.width)


def invented(scene: Scene, needs: Iterable[str] = ()) -> dict[str, Tensor]:
    """Every column that the schema can invent for a scene, and what ``needs`` names of families."""
    own = [c for c in schema.columns() if not c.file and c.invent is not None]
    found: dict[str, Tensor] = {c.name: c.invent(scene) for c in own if c.invent is not None}
    others = [c for c in schema.columns() if c.file]
    others += [schema.known(name) for name in sorted(needs) if schema.split(name) is not None]
    return found | {c.name: scene.column(c) for c in others if c.name not in found}


def random_batch(
    seed: int = 0,
    groups: tuple[int, ...] = (4, 3, 2),
    width: int = 6,
    lengths: tuple[int, ...] | None = None,
    gaps: bool = False,
    drift: float = 0.3,
    dtype: torch.dtype = torch.float64,
    live: Iterable[Statistic] = (),
    fixed: Iterable[Statistic] = (),
    needs: Iterable[str] = (),
) -> Batch:
    """Groups of the given sizes; ``drift`` is how far the policy has moved, ``gaps`` puts text of others into rows.

    The log-probabilities, entropies and statistics of a role all come from the same logits. Rewards lie in [0, 1], a
    group of two or more has right and wrong answers. Columns of families are those that ``needs`` names.
    """
    scene = Scene(seed, groups, width, lengths, gaps, drift)
    columns = invented(scene, needs)
    batch = make_batch(**{k: x.to(dtype) if x.is_floating_point() else x for k, x in columns.items()})
    wanted = (*live, *fixed)
    if any(s.columns for s in wanted):  # kept, because the statistics change with these columns
        batch = batch.with_statistics({LOGITS + role: x for role, x in scene.logits.items()})
    return _with(batch, statistics(live, fixed, batch, scene.logits))


def tree(group: Tensor, length: Tensor) -> dict[str, Tensor]:
    """Columns that make the rows of each prompt a tree: two branches, two boughs on each, a leaf for every row; and that
    make every second row an answer from half of the thought of the row before it."""
    same = (group[:, None] == group).long().tril(-1).sum(1)  # place in the group
    node = torch.stack([1 + same % 2, 3 + same % 4, 10 + same], 1)
    end = torch.stack([length // 3, length // 2, length], 1)
    value = (torch.stack([same, same + 1, same + 2], 1) % 3).double() / 2
    cut = torch.where(same % 2 == 0, -1, length // 2)
    return {"node": node, "node_end": end, "node_value": value, "thought": same // 2, "cut": cut}


def rescored(batch: Batch, live: Iterable[Statistic], fixed: Iterable[Statistic]) -> Batch:
    """The batch with the statistics that its columns now make of the logits that it was made from."""
    kept = batch.members("statistic").items()
    logits = {key.removeprefix(LOGITS): x for key, x in kept if key.startswith(LOGITS)}
    return _with(batch, statistics(live, fixed, batch, logits)) if logits else batch


def _with(batch: Batch, found: Mapping[str, Tensor]) -> Batch:
    return batch.with_statistics({key: masked(x.to(batch.mask), batch.mask) for key, x in found.items()})


def token_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """[N, T] log-probability of each token under logits [N, T, V]."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def entropy(logits: Tensor) -> Tensor:
    """[N, T] entropy in nats of the distributions of logits [N, T, V]."""
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp).sum(-1)


def scores(tokens: Tensor, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns [N, T] that the models fill, from the logits [N, T, V] of each role."""
    roles = {
        "logp": "policy",
        "old_logp": "old",
        "rollout_logp": "rollout",
        "prox_logp": "proximal",
        **{schema.member("logp_of", role): role for role in logits if role not in ROLES[:3] and role != "proximal"},
    }
    columns = {name: token_logp(logits[role], tokens) for name, role in roles.items()}
    return columns | {"entropy": entropy(logits["policy"]), "sampled_entropy": entropy(logits["old"])}


def statistics(
    live: Iterable[Statistic], fixed: Iterable[Statistic], batch: Batch, logits: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The statistics [N, T] by their key in the batch: live ones of the policy now, the others of the policy that wrote
    the tokens."""
    now = {s.key: statistic_of(s, batch, logits["policy"], logits) for s in live}
    return now | {FIXED + s.key: statistic_of(s, batch, logits["old"], logits).detach() for s in fixed}


def statistic_of(statistic: Statistic, batch: Batch, own: Tensor, logits: Mapping[str, Tensor]) -> Tensor:
    """[N, T] of a statistic of the logits ``own`` [N, T, V], laid out as the engine lays them out: one row for each token.
    ``logits`` has those of the roles that it compares with."""
    if isinstance(statistic, GroupStatistic):
        return from_logits(statistic, batch, own)
    shape = batch.tokens.shape
    others = {role: logits[role].flatten(0, 1) for role in sorted(statistic.roles)}
    others |= {name: getattr(batch, name)[:, None].expand(shape).reshape(-1) for name in statistic.columns}
    return statistic(own.flatten(0, 1), batch.tokens.reshape(-1), others).reshape(shape)


def declared(batch: Batch, needs: Iterable[str]) -> Batch:
    """The batch without the columns that come only where a part needs them and that are not among ``needs``."""
    asked = {name for need in needs for name in schema.on_demand(need)}
    brought = {name for c in schema.columns() for name in schema.on_demand(c.name)}
    there = {name for name in batch.columns() if schema.split(name) and schema.known(name).on_demand}
    return batch.replace(**dict.fromkeys((brought | there) - asked))


def poisoned(batch: Batch, poison: float, extra: int = 0) -> Batch:
    """The same batch with ``extra`` columns of padding, and ``poison`` on all of the padding."""
    mask = torch.nn.functional.pad(batch.mask, (0, extra))

    def spoil(x: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(x, (*[0, 0] * (x.dim() - 2), 0, extra))
        return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)) == 0, poison, wide)

    wide = {name: spoil(x) for name, x in batch.clean_columns().items()}
    for name in ("tokens", "present"):
        if getattr(batch, name) is not None:
            wide[name] = torch.nn.functional.pad(getattr(batch, name), (0, extra))
    return batch.replace(mask=mask, **wide)
