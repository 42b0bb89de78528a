"""The embedded model: a small Qwen3 that the package makes itself, so that everything runs without a download."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from policyopt.errors import UserError
from policyopt.items import Task
from policyopt.models.kept import kept
from policyopt.models.quiet import quiet
from policyopt.models.tokenizer import build_tokenizer
from policyopt.models.warmstart import WARM_START, Progress, WarmStart, warm_start
from policyopt.part import Count, Positive, part

FORMAT = 2
"""Raised whenever the code that builds a model changes what it builds."""

KEY_EXAMPLES = 64
"""How many training examples, evenly spread, stand for the whole set in the cache key; and how many lessons."""

X = TypeVar("X")


@part
class Architecture:
    """Sizes of the model; the default has 0.87 million parameters."""

    hidden: Count = 128
    layers: Count = 4
    heads: Count = 4
    kv_heads: Count = 4
    head_dim: Count = 32
    inner: Count = 384
    """Width of the gated feed-forward layer."""
    positions: Count = 1024
    """Tokens that the model reads at most, prompt and response together."""
    init: Positive = 0.06
    """Standard deviation of the initial weights: near 1/sqrt(hidden), without which a narrow model is slow to begin."""
    rope: Positive = 100.0
    """Base of the rotary positions: small, so that neighbouring characters of a short text are easy to tell apart."""

    def build(self, vocabulary: PreTrainedTokenizerBase, seed: int) -> Qwen3ForCausalLM:
        """An untrained model in float32 for a tokenizer; the global random state is left as it was."""
        config = Qwen3Config(
            vocab_size=len(vocabulary),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            intermediate_size=self.inner,
            max_position_embeddings=self.positions,
            tie_word_embeddings=True,
            initializer_range=self.init,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope},
            pad_token_id=vocabulary.pad_token_id,
            eos_token_id=vocabulary.eos_token_id,
            bos_token_id=None,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Qwen3ForCausalLM(config).eval()


ARCHITECTURE = Architecture()


def random_tiny(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    """An untrained model of the same kind with 22 thousand parameters, and its tokenizer."""
    tokenizer = build_tokenizer(256)
    shape = Architecture(hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=64, positions=256)
    model = shape.build(tokenizer, seed)
    return model.to(dtype=dtype), tokenizer  # type: ignore[call-arg]


def build_embedded(
    task: Task,
    *,
    seed: int = 0,
    architecture: Architecture = ARCHITECTURE,
    settings: WarmStart | None = None,
    progress: Progress | None = None,
) -> Path:
    """The folder of a model that is warm-started on the task's worked solutions; built at the first call, then cached.

    An ordinary transformers folder: ``AutoModelForCausalLM`` and ``AutoTokenizer`` load it. Its name holds a hash of
    all that made it. Two processes that ask at once build it once: the second waits for the first. A process that is
    killed or interrupted leaves nothing that looks like a model. Without ``settings``, the task's own are taken.

    Raises :class:`~policyopt.errors.UserError` for a task without worked solutions, and for a cache folder
    that cannot be written.
    """
    if not len(task.train):
        raise UserError(
            f"task {task.name!r} has no training examples, so the embedded model cannot be warm-started for it"
        )
    settings = settings or replace(WARM_START, **task.warm_start)
    name = f"{re.sub('[^A-Za-z0-9_-]+', '-', task.name)}-{_key(task, seed, architecture, settings)}"
    if task.train[0].solution is None:
        raise UserError(
            f"task {task.name!r} has no worked solutions, so the embedded model cannot be warm-started for it: "
            "give --model a folder or a hub id"
        )

    @quiet()
    def write(folder: Path) -> None:
        tokenizer = build_tokenizer(architecture.positions)
        model = architecture.build(tokenizer, seed)
        with one_thread():
            warm_start(model, tokenizer, task.train, settings, lessons=task.lessons, seed=seed, progress=progress)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return kept(name, write, "the embedded model")


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one core in each thread: products of so small a model gain little from a second one and lose much where
    they must share it, and the result is then the same on any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spread(items: Sequence[X]) -> list[X]:
    """Some of many, evenly spread."""
    n = len(items)
    return [items[i * n // KEY_EXAMPLES] for i in range(min(n, KEY_EXAMPLES))]


def _key(task: Task, seed: int, architecture: Architecture, settings: WarmStart) -> str:
    """A hash of everything that decides what is built."""
    made_of: dict[str, Any] = {
        "format": FORMAT,
        "task": [
            task.name,
            len(task.train),
            [[list(e.prompt), e.solution, *filter(None, [e.hasty])] for e in spread(task.train)],
        ],
        "seed": seed,
        "architecture": TypeAdapter(Architecture).dump_python(architecture),
        "settings": TypeAdapter(WarmStart).dump_python(settings),
        "tokenizer": build_tokenizer(architecture.positions).backend_tokenizer.to_str(),
        "torch": torch.__version__.split(".")[0],
    }
    share = made_of["settings"].pop("lessons")
    if task.lessons:
        made_of["lessons"] = [
            share,
            len(task.lessons),
            [[list(x.prompt), x.given, x.reply, *filter(None, [x.then])] for x in spread(task.lessons)],
        ]
    return hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=8).hexdigest()
