"""What the log says of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from policyopt.engine.protocol import UpdateReport
from policyopt.groups import group_mean, group_std, group_sum
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.rows import Batch, masked, masked_mean
from policyopt.spans import span
from policyopt.training.mixture import source_metrics


@span("metrics")
def batch_metrics(batch: Batch) -> dict[str, float]:
    """Of the responses that the rollout's main program drew: reward, accuracy, length, entropy, signal, distance from
    the reference."""
    if batch.origin is not None and bool((batch.origin > 0).any()):
        batch = batch[batch.origin == 0]
    if not len(batch):
        return {}
    if batch.correct is None:  # nobody was asked about them
        return text_metrics(batch) | source_metrics(batch)
    length = batch.length().double()
    spread = group_std(length, batch.group, 1) / group_mean(length, batch.group).clamp(min=1)
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
        "length/p99": float(length.quantile(0.99)),
        "length/cv": float(spread[first].mean()),
        "length/truncated": float(batch.truncated.mean()),
    }
    entropy = float(masked_mean(batch.sampled_entropy, batch.own()))
    if not math.isnan(entropy):  # a sampler that does not know it
        out["entropy"] = entropy
    if batch.wins is not None and len(wins := batch.wins[~batch.wins.isnan()]):
        out |= {"wins/mean": float(wins.mean()), "wins/std": float(wins.std(unbiased=False))}
    said = {name: x[~x.isnan()] for name, x in sorted(batch.components().items())}
    out |= {f"component/{name}": float(x.mean()) for name, x in said.items() if len(x)}
    if batch.ref_logp is not None:
        out["kl/ref"] = float(masked_mean(kl_estimate(batch.old_logp, batch.ref_logp, "k3"), batch.mask))
        out["kl/ref_response"] = float((kl_estimate(batch.old_logp, batch.ref_logp, "k1") * batch.mask).sum(1).mean())
    return out | source_metrics(batch)


def text_metrics(batch: Batch) -> dict[str, float]:
    """Of given texts: how likely they are before the update, in nats per token, and how those to the same prompt compare. Rows
    of another origin are left out."""
    if batch.origin is not None:
        batch = batch[batch.origin == 0]
    length, logp = batch.length(), masked(batch.old_logp, batch.mask).sum(1)
    out = {
        "length/mean": float(length.mean()),
        "length/max": float(length.max()),
        "length/truncated": float(batch.truncated.mean()),
        "loglik": float(logp.sum() / length.sum().clamp(min=1)),
    }
    if batch.ref_logp is not None:
        out["kl/ref_response"] = float((logp - masked(batch.ref_logp, batch.mask).sum(1)).mean())
    gain = logp if batch.ref_logp is None else logp - masked(batch.ref_logp, batch.mask).sum(1)
    sides = {} if batch.chosen is None else side_metrics(batch, logp, gain)
    return out | sides | pair_metrics(batch, gain)


def side_metrics(batch: Batch, logp: torch.Tensor, gain: torch.Tensor) -> dict[str, float]:
    r"""Of the texts that were chosen and of those that were rejected, apart: ``loglik``, log-probability in nats per token;
    ``logp``, in nats per text, :math:`\log\pi(y)`; ``gain``, their implicit reward without its factor beta,
    :math:`\log\frac{\pi(y)}{\pi_{ref}(y)}`, where the recipe reads a reference; ``length`` in tokens. Both log-probabilities may
    fall while the margin between them grows."""
    out, length = {}, batch.length()
    for name, side in (("chosen", batch.chosen > 0.5), ("rejected", batch.chosen <= 0.5)):
        if bool(side.any()):
            out[f"loglik/{name}"] = float(logp[side].sum() / length[side].sum().clamp(min=1))
            out[f"logp/{name}"] = float(logp[side].mean())
            out[f"length/{name}"] = float(length[side].mean())
            if batch.ref_logp is not None:
                out[f"gain/{name}"] = float(gain[side].mean())
    return out


def pair_metrics(batch: Batch, gain: torch.Tensor) -> dict[str, float]:
    r"""How the texts of pairs compare: of all two texts to a prompt that differ in reward, y+ being the better one. The margin
    of a pair is :math:`\log\frac{\pi(y^+)}{\pi_{ref}(y^+)} - \log\frac{\pi(y^-)}{\pi_{ref}(y^-)}` in nats, without
    :math:`\pi_{ref}` where the recipe reads no reference; the accuracy is the share of pairs whose margin is above 0."""
    order = batch.group.argsort(stable=True)
    group, reward, gain = batch.group[order], batch.total_reward()[order], gain[order]
    margins = [gain[:0]]
    for k in range(1, int(group.bincount().max())):  # a row and the k-th one after it in its group
        better = (reward[:-k] - reward[k:]) * (group[:-k] == group[k:])
        margins.append((better.sign() * (gain[:-k] - gain[k:]))[better != 0])
    margin = torch.cat(margins)
    if not len(margin):
        return {}
    return {"pairs/margin": float(margin.mean()), "pairs/accuracy": float((margin > 0).double().mean())}


def first_of_group(batch: Batch) -> torch.Tensor:
    """Boolean [N]: the first row of each group."""
    seen: set[int] = set()
    flags = []
    for g in batch.group.tolist():
        flags.append(g not in seen)
        seen.add(g)
    return torch.tensor(flags, device=batch.mask.device)


@span("metrics")
def update_metrics(reports: Sequence[UpdateReport]) -> dict[str, float]:
    """Of the optimiser steps on one batch: means over them, weighted by tokens where tokens are counted."""
    applied = [r for r in reports if r.applied]
    tokens = sum(r.sums["tokens"] for r in applied)
    out: dict[str, float] = {"update/skipped": float(len(reports) - len(applied)), "update/count": float(len(applied))}
    if not applied:
        return out
    for name in dict.fromkeys(name for r in applied for name in r.sums):
        total = sum(r.sums.get(name, 0.0) for r in applied)
        if name.startswith("signal/"):
            out[name] = total / len(applied)
        elif name.startswith("span[") and name.endswith("/weight"):
            if mass := sum(r.sums["signal/positive"] + r.sums["signal/negative"] for r in applied):
                out[name] = total / mass
        elif name != "tokens" and not name.startswith(("mismatch/", "moved/")):  # what a part says of each token
            out[name] = total / max(1.0, tokens)
    fresh = sum(r.sums["mismatch/tokens"] for r in applied)
    if fresh:  # nothing to compare where every response is older than the policy
        out["mismatch/mean"] = sum(r.sums["mismatch/sum"] for r in applied) / fresh
        out["mismatch/max"] = max(r.sums["mismatch/max"] for r in applied)
    out["loss"] = sum(r.loss for r in applied) / len(applied)
    out["grad_norm"] = sum(r.grad_norm for r in applied) / len(applied)
    told = [r.noise for r in applied if r.noise is not None and not math.isnan(r.noise[1])]
    if told:
        out["gradient/signal"], out["gradient/noise"] = (sum(x) / len(told) for x in zip(*told, strict=True))
    return out


def movement_metrics(last: Sequence[UpdateReport]) -> dict[str, float]:
    r"""How far the policy went from the one that drew while it learned from a batch, from the optimiser steps of the last pass
    over it.

    ``update/kl`` is the mean of :math:`k_3 = r - 1 - \log r` over the tokens that the policy drew, r being the ratio of the new policy
    to the one that drew: without bias the KL of the two in nats per token. Each mini-batch says it at its last pass, which
    costs no pass of its own, and so leaves out the steps from there on: with M mini-batches and E epochs it has
    seen between (E - 1) M and E M - 1 of the E M steps. ``update/data_per_kl`` is the number of these tokens over it. After
    arXiv:2603.06009, whose definition is not established; this is ours.
    """
    tokens, total = (sum(r.sums.get(name, 0.0) for r in last if r.applied) for name in ("moved/tokens", "moved/sum"))
    if not tokens:
        return {}
    kl = total / tokens
    return {"update/kl": kl} | ({"update/data_per_kl": tokens / kl} if kl > 0 else {})
