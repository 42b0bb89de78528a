"""Responses as the rows of a batch, and batches of unlike width as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from policyopt.batch import COMPONENTS, Batch, columns_of, make_batch
from policyopt.engine.streams import stream_key, uniforms
from policyopt.parts.advantage import group_sum
from policyopt.rollout.base import Response
from policyopt.tasks.base import Verdict


def pad(rows: Sequence[Sequence[float]], dtype: torch.dtype, value: float = 0) -> Tensor:
    """Lists of unlike length as one right-padded tensor [N, T] (T at least 1)."""
    width = max(1, max(map(len, rows), default=1))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)


def to_batch(
    prompts: Sequence[Sequence[int]], responses: Sequence[Response], verdicts: Sequence[Verdict], group: Sequence[int], budget: int,
    dtype: torch.dtype = torch.float32,
) -> Batch:  # fmt: skip
    """Responses as a batch; all sequences have one entry per row."""
    others = any(not all(r.own) for r in responses)
    guided = any(any(r.guided) for r in responses)
    asked = [r.context or p for p, r in zip(prompts, responses, strict=True)]
    names = sorted({name for v in verdicts for name in v.parts})
    return make_batch(
        **{COMPONENTS + x: torch.tensor([v.parts.get(x, 0.0) for v in verdicts], dtype=dtype) for x in names},
        **({"present": pad([[1.0] * len(r.tokens) for r in responses], dtype)} if others else {}),
        mask=pad([r.own or [1.0] * len(r.tokens) for r in responses], dtype),
        **({"guided": pad([r.guided or [0.0] * len(r.tokens) for r in responses], dtype)} if guided else {}),
        tokens=pad([r.tokens for r in responses], torch.long),
        prompt=pad(asked, torch.long),
        prompt_mask=pad([[1.0] * len(p) for p in asked], dtype),
        group=torch.tensor(group, dtype=torch.long),
        pass_rate=pass_rate(responses, verdicts, group, dtype),
        truncated=torch.tensor([0.0 if r.finished else 1.0 for r in responses], dtype=dtype),
        budget=torch.full((len(responses),), budget, dtype=torch.long),
        version=torch.tensor([r.version for r in responses], dtype=torch.long),
        reward=torch.tensor([v.score for v in verdicts], dtype=dtype),
        correct=torch.tensor([float(v.correct) for v in verdicts], dtype=dtype),
        formatted=torch.tensor([float(v.formatted) for v in verdicts], dtype=dtype),
        source=torch.tensor([r.source for r in responses], dtype=torch.long),
        new_from=torch.tensor([r.new_from for r in responses], dtype=torch.long),
        thought=torch.tensor([r.thought for r in responses], dtype=torch.long),
        cut=torch.tensor([r.cut for r in responses], dtype=torch.long),
        temperature=heat(responses, dtype),
        old_logp=pad([r.logp for r in responses], dtype),
        sampled_entropy=pad([r.entropy for r in responses], dtype),
        **tree_columns(responses, dtype),
    )


def pass_rate(
    responses: Sequence[Response], verdicts: Sequence[Verdict], group: Sequence[int], dtype: torch.dtype
) -> Tensor:
    """[N] the share of the main program's sampled responses to each row's prompt that are right; 0 where it has none."""
    mine = torch.tensor([float(r.source == 0 and r.role != "baseline") for r in responses], dtype=dtype)
    right = torch.tensor([float(v.correct) for v in verdicts], dtype=dtype)
    prompt = torch.tensor(group, dtype=torch.long)
    return group_sum(mine * right, prompt) / group_sum(mine, prompt).clamp(min=1)


def tree_columns(responses: Sequence[Response], dtype: torch.dtype) -> dict[str, Tensor]:
    """``node``, ``node_end`` and ``node_value`` of responses that form trees; nothing where they do not."""
    if not any(r.nodes for r in responses):
        return {}
    found = {
        "node": pad([r.nodes for r in responses], torch.long),
        "node_end": pad([r.ends for r in responses], torch.long),
    }
    if any(r.values for r in responses):
        found["node_value"] = pad([r.values for r in responses], dtype)
    return found


def heat(responses: Sequence[Response], dtype: torch.dtype) -> Tensor:
    """The temperatures of responses, [N], or [N, T] where they change from token to token (1 on padding)."""
    if not any(r.heat for r in responses):
        return torch.tensor([r.temperature for r in responses], dtype=dtype)
    found = pad([r.heat or [r.temperature] * len(r.tokens) for r in responses], dtype)
    return torch.where(found == 0, 1.0, found)


def noise(keys: Sequence[tuple[int, ...]], like: Tensor) -> Tensor:
    """Random numbers in [0, 1) of the shape of ``like`` [N, T], each from the key of its row and its position alone (and
    from another stream than the tokens)."""
    streams = np.array([stream_key((*key, -1)) for key in keys], dtype=np.uint64)
    return torch.from_numpy(uniforms(streams[:, None], np.arange(like.shape[1]))).to(like)


def with_baseline(batch: Batch, roles: Sequence[str]) -> Batch:
    """The batch with ``baseline_reward``: the mean reward of each prompt's rows in the role "baseline", or of all its
    rows where the program drew none in that role."""
    own = torch.tensor([float(role == "baseline") for role in roles], dtype=batch.reward.dtype)
    counts = own if bool(own.any()) else torch.ones_like(own)
    mean = group_sum(counts * batch.reward, batch.group) / group_sum(counts, batch.group).clamp(min=1)
    return batch.replace(baseline_reward=mean)


PADDING = {"step_end": -1}
"""What stands where a row has no entry, in the columns in which it is not 0."""


def join(pieces: Sequence[Batch]) -> Batch:
    """Batches of unlike width as one. What a judge said in some of them alone is 0 in the others."""
    if len(pieces) == 1:
        return pieces[0]
    columns = [columns_of(p) for p in pieces]
    if any("present" in c for c in columns):
        columns = [{"present": c["mask"], **c} for c in columns]
    if any("guided" in c for c in columns):
        columns = [{"guided": torch.zeros_like(c["mask"]), **c} for c in columns]
    said = {name for c in columns for name in c if name.startswith(COMPONENTS)}
    columns = [{**{name: torch.zeros_like(c["reward"]) for name in said}, **c} for c in columns]
    width = {name: max(c[name].shape[1] for c in columns) for name in columns[0] if columns[0][name].dim() == 2}
    return make_batch(
        **{
            name: torch.cat(
                [
                    nn.functional.pad(c[name], (0, width[name] - c[name].shape[1]), value=PADDING.get(name, 0))
                    for c in columns
                ]
            )
            if name in width
            else torch.cat([c[name] for c in columns])
            for name in columns[0]
        }
    )
