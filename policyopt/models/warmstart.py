"""Supervised training on worked solutions: what a policy learns before reinforcement learning begins."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from policyopt.errors import UserError
from policyopt.items import Example, Lesson
from policyopt.models.text import encode_prompt
from policyopt.part import Count, Fraction, NonNegative, Positive, part

Progress = Callable[[int, int, float], None]
"""Called after each step with the step, the number of steps, and the loss in nats per token."""

IGNORED = -100
"""The label of a position without loss, as ``cross_entropy`` knows it."""

POOL = 16
"""How many batches are drawn together and sorted by length, so that rows of a batch are about equally long."""


SHARES = 2
"""Into how many shares a batch is dealt, which are worked out at the same time where there are so many cores. Their number
does not depend on the machine, so the result does not either."""


@part
class WarmStart:
    """Settings of supervised training.

    The number of steps is fixed, so that the result does not depend on the machine's speed.
    """

    steps: Count = 1000
    """Optimiser steps."""
    tokens: Count = 1100
    """About how many tokens of prompts and solutions are in a step, so that a step costs the same for every task."""
    examples: Count = 12_288
    """How many different solutions are drawn from the task; they are passed over as often as the steps need."""
    lr: Positive = 3e-3
    """Peak learning rate of AdamW; it rises linearly during ``warmup`` and falls linearly to zero after it."""
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.1
    """Decoupled weight decay, on matrices only."""
    beta2: Fraction = 0.95
    """Decay of AdamW's second moment."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    terse: Fraction = 0.3
    """Share of the solutions that are hasty, an answer line alone: what people write is not always worked out. The
    model then knows both ways; that working a question out pays is left to be learned from rewards."""
    lessons: NonNegative = 0.5
    """How many lessons are drawn for each solution, where the task has any."""


WARM_START = WarmStart()


def warm_start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: WarmStart = WARM_START,
    *,
    lessons: Sequence[Lesson] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train ``model`` in place to answer each prompt with its worked solution and the end token, and each lesson with
    its reply.

    The loss is the mean cross-entropy over response tokens; prompts carry none. The result is a function of the
    arguments and of the number of threads alone.

    Raises :class:`~policyopt.errors.UserError` when there is no example, or one without a worked solution or longer
    than the model's context.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.lr,
        betas=(0.9, settings.beta2),
        fused=True,
    )
    rising = max(1, round(settings.warmup * settings.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (settings.steps - step) / (settings.steps - rising + 1))
    )
    shuffle = random.Random(seed)
    drawn = shuffle.sample(range(len(examples)), min(settings.examples, len(examples)))
    longest = model.config.max_position_embeddings
    rows = [_row(examples[i], tokenizer, longest, terse=shuffle.random() < settings.terse) for i in drawn]
    taught = shuffle.sample(range(len(lessons)), min(len(lessons), round(settings.lessons * len(rows))))
    rows += [_join(f"lesson {i}", lessons[i], tokenizer, longest) for i in taught]
    size = max(1, round(settings.tokens * len(rows) / sum(len(ids) for ids, _ in rows)))
    model.train()
    with ThreadPoolExecutor(SHARES) as pool:
        for step, (tokens, labels) in enumerate(islice(_batches(rows, size, shuffle), settings.steps), 1):
            loss = _gradient(model, tokens, labels, pool)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            schedule.step()
            if progress:
                progress(step, settings.steps, loss)
    model.eval()


def _gradient(model: PreTrainedModel, tokens: Tensor, labels: Tensor, pool: Executor) -> float:
    """Put the gradient of the loss on a batch into ``.grad``. Returns the loss.

    The batch is dealt into :data:`SHARES`, each worked out in a thread of its own, and their gradients are added in order.
    """
    total = int((labels[:, 1:] != IGNORED).sum())
    shares = [(tokens[i::SHARES], labels[i::SHARES]) for i in range(min(SHARES, len(tokens)))]
    parameters = list(model.parameters())

    def share(given: tuple[Tensor, Tensor]) -> tuple[float, tuple[Tensor, ...]]:
        loss = _loss(model, *given) / total
        return loss.item(), torch.autograd.grad(loss, parameters)

    losses, gradients = zip(*pool.map(share, shares), strict=True)
    for p, *found in zip(parameters, *gradients, strict=True):
        p.grad = sum(found[1:], found[0])
    return float(sum(losses))


def _loss(model: PreTrainedModel, tokens: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy in nats, summed over the tokens with a label."""
    # Rows are padded on the right and attention is causal, so no real token ever looks at padding: no mask is needed.
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    counted = labels[:, 1:] != IGNORED
    logits = model.get_output_embeddings()(hidden[counted])
    return F.cross_entropy(logits, labels[:, 1:][counted], reduction="sum")


Row = tuple[list[int], list[bool]]
"""Ids of a talk, and which of them are taught: those of the replies."""


def _row(example: Example, tokenizer: PreTrainedTokenizerBase, longest: int, *, terse: bool = False) -> Row:
    if example.solution is None:
        raise UserError(
            f"example {example.id} has no worked solution, which a warm start trains on: give a model of your own"
        )
    written = example.hasty or example.solution.splitlines()[-1] if terse else example.solution
    return _join(f"example {example.id}", Lesson(example.prompt, written), tokenizer, longest)


def _join(name: str, lesson: Lesson, tokenizer: PreTrainedTokenizerBase, longest: int) -> Row:
    ids = list(encode_prompt(tokenizer, lesson.prompt))
    taught = [False] * len(ids)
    for given, reply in ((lesson.given, lesson.reply), *lesson.then):
        read = tokenizer.encode(given, add_special_tokens=False)
        written = [*tokenizer.encode(reply, add_special_tokens=False), tokenizer.eos_token_id]
        ids += [*read, *written]
        taught += [False] * len(read) + [True] * len(written)
    if len(ids) > longest:
        raise UserError(f"{name} has {len(ids)} tokens, and the model reads {longest}")
    return ids, taught


def _batches(rows: Sequence[Row], size: int, shuffle: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless: all rows in a random order, then all again in another, in batches of rows about equally long."""
    drawn = (row for _ in itertools.count() for row in shuffle.sample(rows, len(rows)))
    while True:
        pool = sorted(islice(drawn, size * POOL), key=lambda row: len(row[0]))
        for start in shuffle.sample(range(0, len(pool), size), POOL):
            yield _pad(pool[start : start + size])


def _pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Ids and labels, both [rows, longest]."""
    longest = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, (ids, taught) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
        labels[i, : len(ids)] = torch.where(torch.tensor(taught), tokens[i, : len(ids)], IGNORED)
    return tokens, labels
