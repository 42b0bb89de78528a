"""The floor: the bare loop in torch and transformers, on exactly the needed tokens.

No judge, no metrics, no log, and it knows what no trainer may know: the length of every response before it is drawn, and that
all prompts are equally long. Rows stand in the order of their lengths, so that those which have ended leave the batch without a
copy; keys and values are written in place; a distinct prompt is read once in drawing and once in training; rows go side by
side with others of like length, so that little padding is computed; the head is applied to predicted tokens alone, and its
gradient taken chunk by chunk without computing anything twice.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from policyopt.items import user
from policyopt.models.text import encode_prompt
from speed.workloads import BETA, LR, Workload

LIKE = 0.9
"""Rows go side by side where the shortest has at least so much of the longest."""
CHUNK = 64 << 20
"""Logits that are held at once."""


class Places(DynamicLayer):
    """Keys and values of a layer with room for all that comes, written in place. The first rows can go on without the others."""

    def __init__(self, layer: DynamicLayer, group: int, room: int) -> None:
        super().__init__()
        rows, heads, self.length, width = layer.keys.shape
        shape = (rows * group, heads, self.length + room, width)
        self.room = tuple(layer.keys.new_empty(shape) for _ in range(2))
        for there, came in zip(self.room, (layer.keys, layer.values), strict=True):
            there[:, :, : self.length] = came.repeat_interleave(group, 0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows, end = len(key_states), self.length + key_states.shape[2]
        for there, came in zip(self.room, (key_states, value_states), strict=True):
            there[:rows, :, self.length : end] = came
        self.length = end
        keys, values = (there[:rows, :, :end] for there in self.room)
        return keys, values

    def get_seq_length(self, *_: Any) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int, *_: Any) -> tuple[int, int]:
        return self.length + query_length, 0


class Floor:
    """The model, and what trains it."""

    def __init__(self, workload: Workload, folder: str, dtype: torch.dtype = torch.float32) -> None:
        self.workload = workload
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.prompt = torch.tensor([encode_prompt(tokenizer, user(q)) for q in workload.questions()])
        self.reference = copy.deepcopy(model) if workload.reference and not workload.lora else None
        if workload.lora:
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, settings)
        self.whole = model
        self.model: Any = model.get_base_model() if workload.lora else model
        trained = [p for p in model.parameters() if p.requires_grad]
        self.critic = nn.ModuleList()
        if workload.critic:
            head = nn.Linear(self.model.config.hidden_size, 1, dtype=dtype)
            self.critic = nn.ModuleList([copy.deepcopy(self.model.model), head])
        self.trained = [*trained, *self.critic.parameters()]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LR, fused=True)

    def held(self) -> int:
        """Bytes of models, gradients and moments."""
        frozen = [*self.whole.parameters(), *(self.reference.parameters() if self.reference else ())]
        trained = {id(p) for p in self.trained}
        models = sum(p.nbytes for p in frozen if id(p) not in trained)
        return models + 4 * sum(p.nbytes for p in self.trained)

    def step(self, number: int) -> dict[str, float]:
        """Draw and update. Returns seconds."""
        start = time.perf_counter()
        lengths = self.workload.lengths(number)
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        tokens, logp = self.draw(order, [lengths[i] for i in order])
        drawn = time.perf_counter()
        self.update(order, [lengths[i] for i in order], tokens, logp)
        end = time.perf_counter()
        return {"step": end - start, "rollout": drawn - start, "update": end - drawn}

    # Drawing ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, order: Sequence[int], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens and their log-probabilities [N, T] for rows in the ``order`` of their ``lengths``, longest first."""
        if self.workload.lora:
            self.whole.merge_adapter()
        body, head, group = self.model.model, self.model.lm_head, self.workload.group
        cache: Any = DynamicCache(config=self.model.config)
        hidden = body(input_ids=self.prompt, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        rows = torch.tensor(order)
        cache = Cache(layers=[Places(layer, group, lengths[0]) for layer in cache.layers])
        for layer in cache.layers:  # rows of one prompt stand together no longer
            for x in layer.room:
                x[:, :, : layer.length] = x[rows, :, : layer.length]
        hidden = hidden.repeat_interleave(group, 0)[rows]
        tokens = torch.zeros(len(lengths), lengths[0], dtype=torch.long)
        logp = torch.zeros(len(lengths), lengths[0])
        alive = [sum(n > t for n in lengths) for t in range(lengths[0])]
        for t, n in enumerate(alive):
            if t:
                ids = tokens[:n, t - 1, None]
                hidden = body(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            likely = head(hidden[:n]).float().softmax(-1)
            chosen = torch.multinomial(likely, 1)
            tokens[:n, t], logp[:n, t] = chosen[:, 0], likely.gather(-1, chosen)[:, 0].log()
        if self.workload.lora:
            self.whole.unmerge_adapter()
        return tokens, logp

    # Updating --------------------------------------------------------------------------------------------------------

    def pieces(self, lengths: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows that go side by side."""
        piece: list[int] = []
        for row in rows:
            if piece and lengths[row] + self.prompt.shape[1] < LIKE * (lengths[piece[0]] + self.prompt.shape[1]):
                yield piece
                piece = []
            piece.append(row)
        if piece:
            yield piece

    def hidden(self, body: Any, owner: Tensor, tokens: Tensor) -> Tensor:
        """[n, T, H] the states that predict tokens [n, T] of rows whose prompts have numbers ``owner``."""
        length = self.prompt.shape[1]
        distinct, place = torch.unique(owner, return_inverse=True)
        if len(distinct) == len(owner) or tokens.shape[1] < 2:
            ids = torch.cat([self.prompt[owner], tokens[:, :-1]], 1)
            return body(input_ids=ids, use_cache=False).last_hidden_state[:, length - 1 :]
        cache: Any = DynamicCache(config=self.model.config)
        first = body(input_ids=self.prompt[distinct], past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
        cache.batch_select_indices(place)
        rest = body(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state
        return torch.cat([first[place], rest], 1)

    def logp(self, hidden: Tensor, target: Tensor, head: Any) -> Tensor:
        """[M] of targets [M], given hidden states [M, H]."""
        return head(hidden).float().log_softmax(-1).gather(-1, target[:, None])[:, 0]

    @torch.no_grad()
    def compared(self, owner: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """[N, T] what the reference thinks."""
        found = torch.zeros(tokens.shape)
        other = self.model if self.reference is None else self.reference
        with self.whole.disable_adapter() if self.workload.lora else nullcontext():
            for rows in self.pieces(lengths, range(len(lengths))):
                width = lengths[rows[0]]
                hidden = self.hidden(other.model, owner[rows], tokens[rows, :width]).flatten(0, 1)
                size = max(1, CHUNK // (4 * other.lm_head.weight.shape[0]))
                pieces = zip(hidden.split(size), tokens[rows, :width].flatten().split(size), strict=True)
                logp = torch.cat([self.logp(h, y, other.lm_head) for h, y in pieces])
                found[rows, :width] = logp.view(len(rows), width)
        return found

    @torch.no_grad()
    def valued(self, owner: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """[N, T] what the critic thinks."""
        found = torch.zeros(tokens.shape)
        for rows in self.pieces(lengths, range(len(lengths))):
            body, head = self.critic
            width = lengths[rows[0]]
            found[rows, :width] = head(self.hidden(body, owner[rows], tokens[rows, :width]))[..., 0].float()
        return found

    def update(self, order: Sequence[int], lengths: Sequence[int], tokens: Tensor, old: Tensor) -> None:
        """All optimiser steps on what was drawn; rewards are made up."""
        work = self.workload
        owner = torch.tensor(order) // work.group
        advantage = torch.where(torch.arange(len(order)) % 2 == 0, 1.0, -1.0)
        asked = torch.tensor(lengths)
        mask = (torch.arange(tokens.shape[1]) < asked[:, None]).float()
        share = mask / mask.sum(1, keepdim=True) / (len(order) / work.minibatches)
        reference = self.compared(owner, tokens, lengths) if work.reference else old
        value = self.valued(owner, tokens, lengths) if work.critic else old
        for _ in range(work.epochs):
            for part in range(work.minibatches):
                mine = [i for i in range(len(order)) if int(owner[i]) % work.minibatches == part]
                for rows in self.pieces(lengths, mine):
                    width = lengths[rows[0]]
                    at = (rows, slice(width))
                    told = (share[at], old[at], reference[at], advantage[rows, None].expand(-1, width))
                    self.accumulate(owner[rows], tokens[at], told)
                    if work.critic:
                        body, head = self.critic
                        found = head(self.hidden(body, owner[rows], tokens[at]))[..., 0].float()
                        (share[at] * (found - value[at] - advantage[rows, None]).square()).sum().backward()
                nn.utils.clip_grad_norm_(self.trained, 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()

    def accumulate(self, owner: Tensor, tokens: Tensor, told: Sequence[Tensor]) -> None:
        """Add the gradient of some rows: of the head chunk by chunk, then once of the backbone."""
        hidden = self.hidden(self.model.model, owner, tokens)
        leaf = hidden.detach().flatten(0, 1).requires_grad_()
        head, size = self.model.lm_head, max(1, CHUNK // (4 * self.model.lm_head.weight.shape[0]))
        there = told[0].flatten().nonzero()[:, 0]  # padding beside the longest row is not predicted
        for places in there.split(size):
            share, old, reference, advantage = (x.flatten()[places] for x in told)
            logp = self.logp(leaf[places], tokens.flatten()[places], head)
            ratio = (logp - old).exp()
            loss = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            if self.workload.reference:
                gap = reference - logp
                loss = loss + BETA * (gap.exp() - gap - 1)
            (share * loss).sum().backward()
        assert leaf.grad is not None
        hidden.backward(leaf.grad.view_as(hidden))
