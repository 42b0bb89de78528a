"""The next token of every row in flight: processors, temperature, the draw, and what is noted of it."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.local.requests import Row
from policyopt.engine.programs import ended
from policyopt.engine.streams import uniforms
from policyopt.models.stops import Stops
from policyopt.sources.truncation import BOUND, left
from policyopt.spans import span


@span("choose")
def draw(
    logits: Tensor, rows: Sequence[Row], *, eos: Collection[int], version: int, stops: Stops | None = None
) -> tuple[Tensor, np.ndarray]:
    """Draw a token for each row from logits [B, V] and write it down. Returns the tokens [B], and which rows end by it."""
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    logits, heat = adjusted(logits, rows)
    greedy = heat == 0
    logp = torch.log_softmax(logits / torch.where(greedy, 1.0, heat)[:, None], -1)
    supports = truncate(logp, rows, greedy)
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
        note(row, int(t), lp, h, temperature, version, supports.get(i, ()))
        over[i] = ends(row, eos, stops)
    for i, row in enumerate(rows):
        if row.request.top:
            best = logp[i].topk(min(row.request.top, len(supports.get(i, ())) or logp.shape[-1]))
            row.response.top.append((best.indices.tolist(), best.values.tolist()))
    return token, over


def truncate(logp: Tensor, rows: Sequence[Row], greedy: Tensor) -> dict[int, Sequence[int]]:
    """Make log-probabilities [B, V] those of truncated draws, in place, where rows ask for it and are not greedy. Returns
    by row what each is drawn from, where that is not the whole vocabulary."""
    asked = {i: row.request.truncation for i, row in enumerate(rows) if row.request.truncation}
    if not asked:
        return {}
    mine = [i for i, cold in enumerate(greedy.tolist()) if i in asked and not cold]
    if not mine:
        return {}
    bounds = [[t.min_p, t.top_k or BOUND + 1, t.top_p] for t in (asked[i] for i in mine)]
    whole = logp[mine]
    best = whole.topk(min(BOUND, whole.shape[-1]))
    stays = left(best.values.exp(), *torch.tensor(bounds, dtype=logp.dtype, device=logp.device).T)
    support = torch.zeros_like(whole, dtype=torch.bool).scatter_(-1, best.indices, stays)
    for place, i in enumerate(mine):
        at = len(rows[i].response.tokens)
        if at < len(rows[i].request.forced):
            support[place, rows[i].request.forced[at]] = True
    logp[mine] = whole.masked_fill(~support, -torch.inf).log_softmax(-1)
    ids = support.nonzero()[:, 1].tolist()
    ends = support.sum(-1).cumsum(0).tolist()
    found = zip(mine, [0, *ends], ends, strict=False)
    return {i: array("i", ids[start:end]) for i, start, end in found if end - start < whole.shape[-1]}


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


def note(row: Row, token: int, logp: float, entropy: float, heat: float, version: int, support: Sequence[int]) -> None:
    """Write a token down."""
    response = row.response
    if len(support):
        response.support += [()] * (len(response.tokens) - len(response.support))
        response.support.append(support)
    response.tokens.append(token)
    response.logp.append(logp)
    response.entropy.append(entropy)
    response.versions.append(version)
    if callable(row.request.temperature):
        response.heat.append(heat)


def ends(row: Row, eos: Collection[int], texts: Stops | None) -> bool:
    """Whether a response ends by its last token."""
    response, until = row.response, row.request.until
    if until is not None:
        response.stop_reason = "stop" if until(response.tokens) else "length"
    else:
        response.stop_reason = ended(response.tokens, eos, texts, row.request.stop.get(response.tokens[-1], ()))
    return response.stop_reason != "length" or len(response.tokens) >= row.end
