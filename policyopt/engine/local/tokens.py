"""The next token of every row in flight: processors, temperature, the draw, and what is noted of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.requests import Row
from policyopt.engine.streams import uniforms


def draw(logits: Tensor, rows: Sequence[Row], *, eos: Collection[int], version: int) -> tuple[Tensor, np.ndarray]:
    """Draw a token for each row from logits [B, V] and write it down. Returns the tokens [B], and which rows end by it."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    logits, heat = adjusted(logits, rows)
    greedy = heat == 0
    logp = torch.log_softmax(logits / torch.where(greedy, 1.0, heat)[:, None], -1)
    p = logp.exp()
    token = torch.where(greedy, logits.argmax(-1), sampled(p, rows))
    for i, row in enumerate(rows):
        at = len(row.response.tokens)
        if at < len(row.request.forced):
            token[i] = row.request.forced[at]
    entropy = -(p * torch.where(p > 0, logp, 0.0)).sum(-1)
    numbers = torch.stack(
        [token.double(), logp.gather(-1, token[:, None])[:, 0].double(), entropy.double(), heat.double()]
    )
    over = np.zeros(len(rows), dtype=bool)
    for i, (row, (t, lp, h, temperature)) in enumerate(zip(rows, numbers.T.tolist(), strict=True)):
        note(row, int(t), lp, h, temperature, version)
        over[i] = ends(row, eos)
    for i, row in enumerate(rows):
        if row.request.top:
            best = logp[i].topk(min(row.request.top, logp.shape[-1]))
            row.response.top.append((best.indices.tolist(), best.values.tolist()))
    return token, over


def sampled(p: Tensor, rows: Sequence[Row]) -> Tensor:
    """A token [B] from probabilities [B, V], by the random number of each row at its place."""
    cdf = p.cumsum(-1, dtype=torch.float64)
    u = uniforms(
        np.array([row.key for row in rows], dtype=np.uint64),
        np.array([len(row.response.tokens) for row in rows], dtype=np.uint64),
    )
    target = torch.from_numpy(u).to(p.device)[:, None] * cdf[:, -1:]
    return torch.searchsorted(cdf, target, right=True)[:, 0].clamp(max=p.shape[-1] - 1)


def adjusted(logits: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """The logits after the processors of the requests, and the temperature of each row."""
    by_request: dict[int, list[int]] = {}
    fixed = [0.0 if callable(row.request.temperature) else row.request.temperature for row in rows]
    heat = torch.tensor(fixed, dtype=logits.dtype, device=logits.device)
    for i, row in enumerate(rows):
        if row.request.processor is not None or callable(row.request.temperature):
            by_request.setdefault(id(row.request), []).append(i)
    if by_request:
        logits = logits.clone()
    for places in by_request.values():
        request = rows[places[0]].request
        if request.processor is not None:
            logits[places] = request.processor(logits[places], [rows[i].response.tokens for i in places])
        if callable(request.temperature):
            heat[places] = request.temperature(logits[places]).to(heat)
    return logits, heat


def note(row: Row, token: int, logp: float, entropy: float, heat: float, version: int) -> None:
    """Write a token down."""
    response = row.response
    response.tokens.append(token)
    response.logp.append(logp)
    response.entropy.append(entropy)
    response.versions.append(version)
    if callable(row.request.temperature):
        response.heat.append(heat)


def ends(row: Row, eos: Collection[int]) -> bool:
    """Whether a response ends by its last token."""
    response = row.response
    token = response.tokens[-1]
    stops = row.request.stop.get(token, ())
    if token in eos:
        response.stop_reason = "eos"
    elif any(tuple(response.tokens[-len(stop) :]) == stop for stop in stops):
        response.stop_reason = "stop"
    return response.stop_reason != "length" or len(response.tokens) >= row.end
