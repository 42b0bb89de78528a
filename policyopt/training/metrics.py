"""What the log says of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from policyopt.engine.protocol import UpdateReport
from policyopt.groups import group_sum
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.rows import Batch, masked_mean


def batch_metrics(batch: Batch) -> dict[str, float]:
    """Of the responses that the rollout's main program drew: reward, accuracy, length, entropy, signal, distance from
    the reference."""
    if batch.source is not None and bool((batch.source > 0).any()):
        batch = batch[batch.source == 0]
    if not len(batch):
        return {}
    length = batch.length()
    advantage = batch.advantage
    signal = group_sum((advantage.abs() * batch.mask).sum(1), batch.group) > 0
    first = first_of_group(batch)
    out = {
        "reward/mean": float(batch.total_reward().mean()),
        "reward/std": float(batch.total_reward().std(unbiased=False)),
        "accuracy": float(batch.correct.mean()),
        "format": float(batch.formatted.double().mean()),
        "advantage/std": float(masked_mean((advantage - masked_mean(advantage, batch.mask)) ** 2, batch.mask).sqrt()),
        "signal/groups": float(signal[first].float().mean()),
        "length/mean": float(length.mean()),
        "length/max": float(length.max()),
        "length/truncated": float(batch.truncated.mean()),
        "entropy": float(masked_mean(batch.sampled_entropy, batch.own())),
    }
    out |= {f"component/{name}": float(x.mean()) for name, x in sorted(batch.components().items())}
    if batch.ref_logp is not None:
        out["kl/ref"] = float(masked_mean(kl_estimate(batch.old_logp, batch.ref_logp, "k3"), batch.mask))
        out["kl/ref_response"] = float((kl_estimate(batch.old_logp, batch.ref_logp, "k1") * batch.mask).sum(1).mean())
    return out


def first_of_group(batch: Batch) -> torch.Tensor:
    """Boolean [N]: the first row of each group."""
    seen: set[int] = set()
    flags = []
    for g in batch.group.tolist():
        flags.append(g not in seen)
        seen.add(g)
    return torch.tensor(flags, device=batch.mask.device)


def update_metrics(reports: Sequence[UpdateReport]) -> dict[str, float]:
    """Of the optimiser steps on one batch: means over them, weighted by tokens where tokens are counted."""
    applied = [r for r in reports if r.applied]
    tokens = sum(r.sums["tokens"] for r in applied)
    out: dict[str, float] = {"update/skipped": float(len(reports) - len(applied)), "update/count": float(len(applied))}
    if not applied:
        return out
    for name in applied[0].sums:
        if name.startswith("signal/"):
            out[name] = sum(r.sums[name] for r in applied) / len(applied)
        elif name != "tokens" and not name.startswith("mismatch/"):  # what a part says of each token
            out[name] = sum(r.sums[name] for r in applied) / max(1.0, tokens)
    fresh = sum(r.sums["mismatch/tokens"] for r in applied)
    if fresh:  # nothing to compare where every response is older than the policy
        out["mismatch/mean"] = sum(r.sums["mismatch/sum"] for r in applied) / fresh
        out["mismatch/max"] = max(r.sums["mismatch/max"] for r in applied)
    out["loss"] = sum(r.loss for r in applied) / len(applied)
    out["grad_norm"] = sum(r.grad_norm for r in applied) / len(applied)
    return out
