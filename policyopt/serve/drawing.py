"""Draws for clients: requests of one set of weights in one batch, and what prompts are likely."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from policyopt.engine.local.sampler import LocalSampler
from policyopt.errors import UserError
from policyopt.models.head import at_once
from policyopt.models.stops import Stops
from policyopt.serve.refused import Refused
from policyopt.serve.wire import Drawn, Limits, Table, check_ids, write_sample
from policyopt.sources.truncation import BOUND, Truncation

MAX_SAMPLES = 1024
"""Responses of one request."""
MAX_STOPS = 64
"""Stop sequences of one request, and characters of each 1000."""
MAX_TOP = 128
"""Likeliest tokens that are told of a place."""


@dataclass(frozen=True)
class Order:
    """What a client asks a sampler for, checked."""

    prompt: tuple[int, ...]
    n: int
    max_tokens: int
    temperature: float
    truncation: Truncation
    seed: int
    until: Callable[[Sequence[int]], bool] | None
    """Says whether a response ends, in the place of the model's end tokens."""
    top: int
    prompt_from: int | None
    """The first token of the prompt that is scored; None: none is."""
    prompt_top: int


def read_order(request: Any, policy: Any, limits: Limits) -> Order:
    """The order in a ``SampleRequest``. Raises :class:`~policyopt.serve.refused.Refused` naming the field that is wrong."""
    params = request.sampling_params
    prompt = _prompt(request.prompt, limits)
    room = limits.context - len(prompt) + 1
    budget = max(1, room - 1) if params.max_tokens is None else params.max_tokens
    if not 1 <= budget <= room:
        raise Refused(
            f"sampling_params.max_tokens {budget}: at least 1, and behind a prompt of {len(prompt)} tokens at most {room} in the "
            f"model's context of {limits.context}"
        )
    if not 1 <= request.num_samples <= MAX_SAMPLES:
        raise Refused(f"num_samples {request.num_samples}: 1 to {MAX_SAMPLES} are drawn")
    if not (math.isfinite(params.temperature) and 0 <= params.temperature <= 100):
        raise Refused(f"sampling_params.temperature {params.temperature:g}: 0 (greedy) to 100 is needed")
    if not 0 < params.top_p <= 1:
        raise Refused(f"sampling_params.top_p {params.top_p:g}: more than 0 and at most 1 is needed")
    if not -1 <= params.top_k <= BOUND:
        raise Refused(f"sampling_params.top_k {params.top_k}: -1 for all, or 1 to {BOUND}")
    for name in ("topk_prompt_logprobs", "topk_sample_logprobs"):
        if not 0 <= getattr(request, name) <= min(MAX_TOP, limits.vocab):
            raise Refused(f"{name} {getattr(request, name)}: 0 to {min(MAX_TOP, limits.vocab)} are told")
    for name in ("target_prompt_logprobs", "prompt_alt_tokens_k", "record_stability_info"):
        if getattr(request, name, None):
            raise Refused(f"{name} is not served here; leave it out")
    seed = secrets.randbits(62) if params.seed is None else params.seed
    return Order(
        prompt, request.num_samples, budget, params.temperature, Truncation(params.top_p, max(params.top_k, 0) or None), seed,
        _until(params.stop, policy, limits), request.topk_sample_logprobs, _scored_from(request, prompt),
        request.topk_prompt_logprobs,
    )  # fmt: skip


def _prompt(prompt: Any, limits: Limits) -> tuple[int, ...]:
    for i, chunk in enumerate(prompt.chunks):
        if chunk.type != "encoded_text":
            raise Refused(f"prompt.chunks[{i}] is {chunk.type}: this server reads encoded_text alone")
    tokens = prompt.to_ints()
    check_ids("prompt", np.asarray(tokens, dtype=object), limits)
    return tuple(tokens)


def _scored_from(request: Any, prompt: Sequence[int]) -> int | None:
    last = getattr(request, "prompt_logprobs_last_n", None)
    if last is not None and not (request.prompt_logprobs and 1 <= last < len(prompt)):
        raise Refused(
            f"prompt_logprobs_last_n {last}: it goes with prompt_logprobs, from 1 to {len(prompt) - 1} for this prompt"
        )
    if not request.prompt_logprobs and not request.topk_prompt_logprobs:
        return None
    return 1 if last is None else len(prompt) - last


def _until(stop: Any, policy: Any, limits: Limits) -> Callable[[Sequence[int]], bool] | None:
    """What ends a response: None leaves it to the model's end tokens; an empty list lets nothing end it; texts or ids do so
    beside the end tokens."""
    if stop is None:
        return None
    stops = [stop] if isinstance(stop, str) else list(stop)
    if not stops:
        return lambda tokens: False
    if len(stops) > MAX_STOPS or any(isinstance(s, str) and not 0 < len(s) <= 1000 for s in stops):
        raise Refused(f"sampling_params.stop: at most {MAX_STOPS}, texts of 1 to 1000 characters")
    ids = frozenset(policy.eos) | {s for s in stops if not isinstance(s, str)}
    check_ids("sampling_params.stop", np.asarray(sorted(ids), dtype=object), limits, context=False)
    texts = [s for s in stops if isinstance(s, str)]
    ends = _stops(policy.tokenizer, tuple(texts)) if texts else lambda tokens: False
    return lambda tokens: tokens[-1] in ids or ends(tokens)


@lru_cache(maxsize=MAX_STOPS)
def _stops(tokenizer: Any, texts: tuple[str, ...]) -> Stops:
    return Stops(tokenizer, texts)


# Drawing --------------------------------------------------------------------------------------------------------------


async def fulfil(sampler: LocalSampler, split: Any, order: Order) -> bytes:
    """A ``SampleResponse``. Prompts are scored at temperature 1, whole; responses have the log-probabilities that they were
    drawn with, behind temperature and truncation (greedy ones at temperature 1)."""
    drawn = await sampler.generate(
        order.prompt, n=order.n, max_tokens=order.max_tokens, temperature=order.temperature,
        key=(order.seed, *order.prompt), top=order.top, truncation=order.truncation, until=order.until,
    )  # fmt: skip
    prompt: list[float] = []
    if order.prompt_from is not None and len(order.prompt) > 1:
        read = await sampler.logprobs(order.prompt[:1], order.prompt[1:], temperature=1.0)
        prompt = [math.nan, *read.logp]
        prompt[: order.prompt_from] = [math.nan] * order.prompt_from
    elif order.prompt_from is not None:
        prompt = [math.nan]
    table = likeliest(split, order.prompt, order.prompt_from or 1, order.prompt_top) if order.prompt_top else ()
    responses = [
        Drawn(r.tokens, r.logp, r.stop_reason != "length", [list(zip(ids, logp, strict=True)) for ids, logp in r.top])
        for r in drawn
    ]
    return write_sample(responses, top=order.top, prompt=prompt, prompt_table=table, prompt_top=order.prompt_top)


@torch.no_grad()
def likeliest(split: Any, prompt: Sequence[int], start: int, k: int) -> Table:
    """The ``k`` likeliest tokens at each place of a prompt from ``start`` on, at temperature 1."""
    device = next(split.hidden.parameters()).device
    hidden = split.hidden(input_ids=torch.tensor([prompt], device=device), use_cache=False).last_hidden_state[0]
    table: list[list[tuple[int, float]] | None] = [None] * start
    for states in hidden[start - 1 : -1].split(at_once(split.vocab)):
        best = split.logits(states).float().log_softmax(-1).topk(k)
        table += [
            list(zip(i, v, strict=True)) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return table


@dataclass(frozen=True)
class Wanted:
    """An order that waits, and what becomes of it."""

    order: Order
    done: Callable[[bytes], None]
    failed: Callable[[BaseException], None]


def draw_together(
    sampler: LocalSampler, split: Any, first: Sequence[Wanted], more: Callable[[], Sequence[Wanted]],
    stopping: Callable[[], bool],
) -> None:  # fmt: skip
    """Carry out orders of one set of weights; what ``more`` gives meanwhile joins them, between two tokens. What is
    cut short by ``stopping`` is left without an answer."""

    async def one(wanted: Wanted) -> None:
        try:
            answer = await fulfil(sampler, split, wanted.order)
        except (UserError, ValueError) as error:
            wanted.failed(Refused(str(error)))
        except Exception as error:  # whatever it is, the others go on
            wanted.failed(error)
        else:
            wanted.done(answer)

    async def all_of_them() -> None:
        tasks: set[asyncio.Task[None]] = set()

        def start(some: Sequence[Wanted]) -> None:
            for wanted in some:
                work: Coroutine[Any, Any, None] = one(wanted)
                tasks.add(task := asyncio.create_task(work))
                task.add_done_callback(tasks.discard)

        start(first)
        while tasks:
            start(more())
            await asyncio.sleep(0)  # one token of every row in flight
            if stopping():
                for task in tasks:
                    task.cancel()

    sampler.run([all_of_them()])
