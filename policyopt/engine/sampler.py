"""The local sampler: everything in flight runs as one batch, and prompts that requests share are computed once."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from policyopt.engine.cache import growing_cache
from policyopt.errors import UserError
from policyopt.models.load import Policy
from policyopt.models.logprobs import SplitModel, split_model
from policyopt.rollout.base import Response

X = TypeVar("X")


def stream_key(key: Iterable[int]) -> int:
    """A 64-bit key from numbers such as (seed, step, prompt, sample)."""
    data = ",".join(str(int(k)) for k in key).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def uniforms(keys: np.ndarray, position: int) -> np.ndarray:
    """One uniform number in [0, 1) for each 64-bit key at a position: splitmix64, so it depends on nothing else."""
    with np.errstate(over="ignore"):
        x = keys + np.uint64(position + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@dataclass
class _Row:
    """A response under way."""

    prompt: tuple[int, ...]
    key: int
    budget: int
    temperature: float
    response: Response = field(default_factory=lambda: Response([], [], [], False))


class LocalSampler:
    """Samples from a model in this process.

    Every row draws from its own stream of random numbers, so a request gives the same tokens whatever else is in flight, up to the
    float noise of matrix products of another shape (a draw that falls within it of a boundary between two tokens can differ).

    Raises :class:`~policyopt.errors.UserError` for a model that cannot be decoded step by step from a key-value cache.
    """

    def __init__(
        self, split: SplitModel, eos: Sequence[int], device: torch.device | str = "cpu", max_rows: int = 512
    ) -> None:
        self.split, self.device, self.max_rows, self.version = split, torch.device(device), max_rows, 0
        self.eos = frozenset(eos)
        self.computed = 0
        """Tokens that went through the model so far, prompts included (each shared prompt once)."""
        self._waiting: list[tuple[list[_Row], asyncio.Future[list[Response]]]] = []
        self._positions = "position_ids" in inspect.signature(getattr(split.hidden, "forward", split.hidden)).parameters
        self._prove()

    @classmethod
    def of(cls, policy: Policy) -> LocalSampler:
        """The sampler of a policy."""
        return cls(split_model(policy.model), policy.eos, next(policy.model.parameters()).device)

    @torch.no_grad()
    def _prove(self) -> None:
        """Decode two short prompts of unlike length step by step, and compare with passing them whole.

        Layers that keep another state than keys and values (recurrent ones) fail here, before any work is lost.
        """
        rows = [_Row(prompt, i, 3, 1.0) for i, prompt in enumerate([(0,), (1, 2, 3)])]
        name = type(self.split.hidden).__name__
        try:
            self._decode(rows)
        except Exception as error:  # whatever a model raises that takes no such cache
            raise UserError(
                f"{name} cannot be sampled from with a key-value cache ({error}); it is not supported"
            ) from error
        self.computed = 0
        for row in rows:
            ids = torch.tensor([[*row.prompt, *row.response.tokens]], device=self.device)
            hidden = self.split.hidden(input_ids=ids, use_cache=False).last_hidden_state[0, len(row.prompt) - 1 : -1]
            logp = self.split.logits(hidden).float().log_softmax(-1).gather(-1, ids[0, len(row.prompt) :, None])[:, 0]
            tolerance = 1e-3 if hidden.dtype in (torch.float32, torch.float64) else 0.5
            # "not <=" rather than ">", so that NaN fails too
            if not float((logp.cpu() - torch.tensor(row.response.logp)).abs().max()) <= tolerance:
                raise UserError(
                    f"{name} in {hidden.dtype} gives other probabilities step by step than at once; it is not supported"
                )

    async def generate(
        self, tokens: tuple[int, ...], *, n: int, max_tokens: int, temperature: float, key: tuple[int, ...]
    ) -> list[Response]:
        """``n`` continuations of at most ``max_tokens`` tokens; temperature 0 is greedy. See :class:`~policyopt.rollout.base.Sampler`."""
        rows = [_Row(tuple(tokens), stream_key((*key, i)), max_tokens, temperature) for i in range(n)]
        for row in rows:
            row.response.temperature = temperature or 1.0
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Response]] = loop.create_future()
        # What programs asked for in a loop that has ended since, cut short by an error, is nobody's any more.
        self._waiting = [(group, other) for group, other in self._waiting if other.get_loop() is loop]
        if not self._waiting:
            # Runs after every program that is ready now has had its turn to ask.
            loop.call_soon(loop.call_soon, self._run_waiting)
        self._waiting.append((rows, done))
        return await done

    def run(self, programs: Sequence[Awaitable[X]]) -> list[X]:
        """Run rollout programs to their end, together, and return what each returned, in order."""

        async def together() -> list[X]:
            return await asyncio.gather(*programs)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(together())
        with ThreadPoolExecutor(1) as pool:  # a notebook's own event loop is running in this thread
            return pool.submit(asyncio.run, together()).result()

    def _run_waiting(self) -> None:
        # A request whose program was cancelled meanwhile is done already.
        waiting = [(group, done) for group, done in self._waiting if not done.done()]
        self._waiting = []
        try:
            rows = [row for group, _ in waiting for row in group]
            for start in range(0, len(rows), self.max_rows):
                self._decode(rows[start : start + self.max_rows])
        except BaseException as error:  # hand it to whoever waits, rather than to the event loop
            for _, done in waiting:
                if not done.done():
                    done.set_exception(error)
            return
        for group, done in waiting:
            done.set_result([row.response for row in group])

    @torch.no_grad()
    def _decode(self, rows: list[_Row]) -> None:
        """Fill the responses of some rows."""
        rows = [row for row in rows if row.budget > 0]
        if not rows:
            return
        hidden, cache, owner, padding = self._prefill(rows)
        longest = int(padding.shape[1])
        keys = np.array([row.key for row in rows], dtype=np.uint64)
        temperature = torch.tensor([row.temperature for row in rows], dtype=torch.float64, device=self.device)
        budget = np.array([row.budget for row in rows])
        eos = torch.tensor(sorted(self.eos), device=self.device)
        cache.batch_select_indices(owner)
        hidden, padding = hidden[owner], padding[owner]
        ragged = not bool(padding.all())
        active = np.arange(len(rows))
        out: list[tuple[np.ndarray, Tensor]] = []
        for step in range(int(budget.max())):
            token, logp, entropy = self._pick(hidden, temperature, uniforms(keys[active], step))
            out.append((active, torch.stack([token.double(), logp.double(), entropy.double()])))
            finished = torch.isin(token, eos).cpu().numpy() | (budget[active] <= step + 1)
            if finished.all():
                break
            if finished.any():
                stay = torch.from_numpy(np.flatnonzero(~finished)).to(self.device)
                cache.batch_select_indices(stay)
                token, temperature, padding, active = token[stay], temperature[stay], padding[stay], active[~finished]
            length = longest + step
            keywords: dict[str, Any] = {}
            if ragged:
                ones = padding.new_ones(len(active), step + 1)
                keywords["attention_mask"] = torch.cat([padding, ones], 1)
            if self._positions:
                keywords["position_ids"] = (
                    (padding.sum(1) + step)[:, None] if ragged else torch.full((1, 1), length, device=self.device)
                )
            hidden = self.split.hidden(
                input_ids=token[:, None], past_key_values=cache, use_cache=True, **keywords
            ).last_hidden_state[:, -1]
            self.computed += len(active)
        self._collect(rows, out)

    def _prefill(self, rows: list[_Row]) -> tuple[Tensor, Any, Tensor, Tensor]:
        """Run each distinct prompt once, left-padded. Returns last hidden states, cache, row -> prompt, and the padding mask."""
        distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
        longest = max(map(len, distinct))
        ids = torch.zeros(len(distinct), longest, dtype=torch.long)
        mask = torch.zeros(len(distinct), longest, dtype=torch.long)
        for prompt, i in distinct.items():
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        config = getattr(self.split.hidden, "config", None)
        cache: Any = growing_cache(config)
        keywords: dict[str, Any] = {} if bool(mask.all()) else {"attention_mask": mask}
        if self._positions and keywords:
            # Left padding without explicit positions would shift every shorter prompt.
            keywords["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.split.hidden(input_ids=ids, past_key_values=cache, use_cache=True, **keywords)
        self.computed += int(mask.sum())
        owner = torch.tensor([distinct[row.prompt] for row in rows], device=self.device)
        return out.last_hidden_state[:, -1], cache, owner, mask

    def _pick(self, hidden: Tensor, temperature: Tensor, u: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Draw one token for each row by inverting its distribution function. Returns tokens, log-probabilities, entropies."""
        logits = self.split.logits(hidden)
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        greedy = temperature == 0
        logp = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature).to(logits)[:, None], -1)
        p = logp.exp()
        cdf = p.cumsum(-1, dtype=torch.float64)
        target = torch.from_numpy(u).to(self.device)[:, None] * cdf[:, -1:]
        drawn = torch.searchsorted(cdf, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
        token = torch.where(greedy, logits.argmax(-1), drawn)
        entropy = -(p * logp).sum(-1)
        return token, logp.gather(-1, token[:, None])[:, 0], entropy

    def _collect(self, rows: list[_Row], out: list[tuple[np.ndarray, Tensor]]) -> None:
        for row in rows:
            row.response.version = self.version
        for active, values in out:
            tokens, logps, entropies = values.tolist()
            for i, token, logp, entropy in zip(active.tolist(), tokens, logps, entropies, strict=True):
                response = rows[i].response
                response.tokens.append(int(token))
                response.logp.append(logp)
                response.entropy.append(entropy)
        for row in rows:
            row.response.finished = bool(row.response.tokens) and row.response.tokens[-1] in self.eos
