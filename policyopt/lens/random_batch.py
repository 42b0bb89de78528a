"""Random batches on which a recipe can be measured: every column filled, and what the models say of it consistent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from policyopt.part import Statistic
from policyopt.rows import SCORED, TOKEN_COLUMNS, Batch, make_batch, masked

LOGITS = "logits:"
"""Prefix of the keys under which a batch keeps the logits [N, T, V] that it was made from."""

VOCABULARY = 5
BUDGET = 9

ON_DEMAND: Mapping[str, tuple[str, ...]] = {
    "entropy": ("entropy",),
    "ref_logp": ("ref_logp",),
    "prev_logp": ("prev_logp",),
    "teacher_logp": ("teacher_logp",),
    "rollout_logp": ("rollout_logp",),
    "prox_logp": ("prox_logp",),
    "noise": ("noise",),
    "guided": ("guided",),
    "value": ("value", "old_value"),
    "baseline_reward": ("baseline_reward",),
    "correct": ("correct",),
    "formatted": ("formatted",),
    "pass_rate": ("pass_rate",),
    "history": ("history",),
    "step_reward": ("step_reward", "step_end"),
    "step_end": ("step_end",),
}
"""What a part may need, and the columns that are there only then."""


def random_batch(
    seed: int = 0,
    groups: tuple[int, ...] = (4, 3, 2),
    width: int = 6,
    lengths: tuple[int, ...] | None = None,
    gaps: bool = False,
    drift: float = 0.3,
    dtype: torch.dtype = torch.float64,
    live: Iterable[Statistic] = (),
    scored: Iterable[Statistic] = (),
) -> Batch:
    """Groups of the given sizes; ``drift`` is how far the policy has moved, ``gaps`` puts text of others into rows.

    The log-probabilities, entropies and statistics of a role all come from the same logits. Rewards lie in [0, 1], a
    group of two or more has right and wrong answers.
    """
    g = torch.Generator().manual_seed(seed)
    n = sum(groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    length = torch.tensor(lengths) if lengths else torch.randint(1, width + 1, (n,), generator=g)
    mask = (torch.arange(width) < length[:, None]).double()
    if gaps:
        mask[:, 1] *= length <= 2
    group = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor(groups))
    correct = torch.cat([torch.arange(k) % 2 for k in groups]).double()
    old, value = normal(n, width, VOCABULARY), normal(n, width)
    logits = {
        "old": old,
        "policy": old + drift * normal(n, width, VOCABULARY),
        "rollout": old + 0.1 * drift * normal(n, width, VOCABULARY),
        "previous": old + 0.5 * drift * normal(n, width, VOCABULARY),
        "proximal": old + 0.5 * drift * normal(n, width, VOCABULARY),
        "reference": old + drift * normal(n, width, VOCABULARY),
        "teacher": normal(n, width, VOCABULARY),
    }
    tokens = torch.randint(VOCABULARY, (n, width), generator=g)
    history = uniform(len(groups), 4)
    history[-1] = torch.nan  # the last prompt is new
    columns = (
        {
            "mask": mask,
            "present": (torch.arange(width) < length[:, None]).double(),
            "tokens": tokens,
            "prompt": torch.randint(VOCABULARY, (len(groups), 3), generator=g)[group],
            "prompt_mask": torch.ones(n, 3, dtype=torch.float64),
            "group": group,
            "truncated": (length == width).double(),
            "budget": torch.full((n,), BUDGET),
            "version": torch.zeros(n, dtype=torch.long),
            "age": group % 2,
            "new_from": torch.randint(2, (n,), generator=g),
            "turn": torch.randint(2, (n,), generator=g),
            "source": torch.randint(2, (n,), generator=g),
            "temperature": torch.tensor([0.8, 1.0, 1.25], dtype=torch.float64)[torch.randint(3, (n,), generator=g)],
            "reward": 0.7 * correct + 0.3 * uniform(n),
            "correct": correct,
            "formatted": ((correct > 0) | (uniform(n) < 0.5)).double(),
            "pass_rate": (group % 3).double() / 2,
            "consistency": 2 * uniform(n) - 1,
            "history": history[group],
            "baseline_reward": uniform(n),
            "step_reward": uniform(n, 2),
            "step_end": torch.stack([length // 2 - 1, length - 1], dim=1),
            "noise": uniform(n, width),
            "guided": (torch.arange(width) >= length[:, None] // 2).double() * (group % 2)[:, None],
            "old_value": value,
            "value": value + 0.3 * normal(n, width),
        }
        | scores(tokens, logits)
        | tree(group, length)
    )
    batch = make_batch(**{k: x.to(dtype) if x.is_floating_point() else x for k, x in columns.items()})
    wanted = (*live, *scored)
    if any(s.columns for s in wanted):  # kept, because the statistics change with these columns
        batch = batch.with_statistics({LOGITS + role: x for role, x in logits.items()})
    return _with(batch, statistics(live, scored, batch, logits))


def tree(group: Tensor, length: Tensor) -> dict[str, Tensor]:
    """Columns that make the rows of each prompt a tree: two branches, two boughs on each, a leaf for every row; and that
    make every second row an answer from half of the thought of the row before it."""
    same = (group[:, None] == group).long().tril(-1).sum(1)  # place in the group
    node = torch.stack([1 + same % 2, 3 + same % 4, 10 + same], 1)
    end = torch.stack([length // 3, length // 2, length], 1)
    value = (torch.stack([same, same + 1, same + 2], 1) % 3).double() / 2
    cut = torch.where(same % 2 == 0, -1, length // 2)
    return {"node": node, "node_end": end, "node_value": value, "thought": same // 2, "cut": cut}


def rescored(batch: Batch, live: Iterable[Statistic], scored: Iterable[Statistic]) -> Batch:
    """The batch with the statistics that its columns now make of the logits that it was made from."""
    kept = {} if batch.statistics is None else batch.statistics.items()
    logits = {key.removeprefix(LOGITS): x for key, x in kept if key.startswith(LOGITS)}
    return _with(batch, statistics(live, scored, batch, logits)) if logits else batch


def _with(batch: Batch, found: Mapping[str, Tensor]) -> Batch:
    return batch.with_statistics({key: masked(x.to(batch.mask), batch.mask) for key, x in found.items()})


def scores(tokens: Tensor, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The columns [N, T] that the models fill, from the logits [N, T, V] of each role."""
    roles = {
        "logp": "policy",
        "old_logp": "old",
        "rollout_logp": "rollout",
        "prox_logp": "proximal",
        "ref_logp": "reference",
        "prev_logp": "previous",
        "teacher_logp": "teacher",
    }
    log_probs = {role: x.log_softmax(-1) for role, x in logits.items()}
    columns = {name: log_probs[role].gather(-1, tokens[..., None])[..., 0] for name, role in roles.items()}
    for name, role in (("entropy", "policy"), ("sampled_entropy", "old")):
        columns[name] = -(log_probs[role].exp() * log_probs[role]).sum(-1)
    return columns


def statistics(
    live: Iterable[Statistic], scored: Iterable[Statistic], batch: Batch, logits: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The statistics [N, T] by their key in the batch: live ones of the policy now, the others of the policy that wrote
    the tokens."""
    shape = batch.tokens.shape
    flat = {role: x.reshape(-1, x.shape[-1]) for role, x in logits.items()}

    def of(statistic: Statistic, role: str) -> Tensor:
        others = {name: flat[name] for name in statistic.roles}
        rows = {name: getattr(batch, name)[:, None].expand(shape).reshape(-1) for name in statistic.columns}
        return statistic(flat[role], batch.tokens.reshape(-1), others | rows).reshape(shape)

    return {s.key: of(s, "policy") for s in live} | {SCORED + s.key: of(s, "old").detach() for s in scored}


def declared(batch: Batch, needs: frozenset[str]) -> Batch:
    """The batch without the columns that come only where a part needs them and that are not among ``needs``."""
    asked = {name for need in needs & ON_DEMAND.keys() for name in ON_DEMAND[need]}
    unasked = {name for names in ON_DEMAND.values() for name in names} - asked
    return batch.replace(**dict.fromkeys(unasked))


def poisoned(batch: Batch, poison: float, extra: int = 0) -> Batch:
    """The same batch with ``extra`` columns of padding, and ``poison`` on all of the padding."""
    mask = torch.nn.functional.pad(batch.mask, (0, extra))

    def spoil(x: Tensor) -> Tensor:
        wide = torch.nn.functional.pad(x, (*[0, 0] * (x.dim() - 2), 0, extra))
        return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)) == 0, poison, wide)

    columns = {name: getattr(batch, name) for name in TOKEN_COLUMNS}
    wide = {name: spoil(x) for name, x in columns.items() if x is not None}
    for name in ("tokens", "present"):
        if getattr(batch, name) is not None:
            wide[name] = torch.nn.functional.pad(getattr(batch, name), (0, extra))
    stats = {} if batch.statistics is None else {key: spoil(x) for key, x in batch.statistics.items()}
    return batch.replace(mask=mask, statistics=None, **wide).with_statistics(stats)
