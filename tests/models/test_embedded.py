"""The embedded model: its tokenizer, its supervised training, and the cache it is kept in."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from policyopt.errors import UserError
from policyopt.items import Example, JudgeSpec, Lesson, Task, user
from policyopt.models import warmstart
from policyopt.models.embedded import Architecture, build_embedded, random_tiny
from policyopt.models.text import encode_prompt
from policyopt.models.tokenizer import ALPHABET, END, UNKNOWN, build_tokenizer
from policyopt.models.warmstart import WarmStart, warm_start

TOKENIZER = build_tokenizer()
SHAPE = Architecture(hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, inner=64, positions=128)
QUICK = WarmStart(steps=6, tokens=100, examples=32)
fork = multiprocessing.get_context("fork")


def additions(n: int = 40, name: str = "additions") -> Task:
    examples = [Example(f"{name}-{i}", user(f"{i}+7"), str(i + 7), f"{i}+7={i + 7}\n#### {i + 7}") for i in range(n)]
    return Task(name, examples, examples[:4], JudgeSpec("number"), 24)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that models are cached in."""
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path))
    return tmp_path / "models"


def build(task: Task | None = None, **options: Any) -> Path:
    return build_embedded(task or additions(), **{"architecture": SHAPE, "settings": QUICK, **options})


def folders(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if p.is_dir())


# The tokenizer


@given(st.text(ALPHABET))
def test_decode_gives_back_every_text_of_the_alphabet(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(ids) == text
    assert "<|" in text or len(ids) == len(text)


def test_the_tokenizer_is_the_same_after_saving_beside_a_model(tmp_path: Path) -> None:
    model, tokenizer = random_tiny()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (ALPHABET, " don 't , x .\n\n  y ", f"a{END}b", "1 + 2 ( 3 )"):
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(again.encode(text)) == text
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert encode_prompt(again, user("2+2")) == encode_prompt(tokenizer, user("2+2"))


def test_characters_outside_the_alphabet_are_unknown_one_by_one() -> None:
    ids = TOKENIZER.encode("a\u00e9\u00e9\U0001f600\tb")
    unknown = TOKENIZER.convert_tokens_to_ids(UNKNOWN)
    assert [i == unknown for i in ids] == [False, True, True, True, True, False]


def test_chat_template_closes_turns_and_opens_the_answer() -> None:
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1"}]
    assert (
        TOKENIZER.decode(encode_prompt(TOKENIZER, messages)) == "<|system|>Add.<|end|><|user|>1+1<|end|><|assistant|>"
    )
    done = [*messages, {"role": "assistant", "content": "2"}]
    closed = TOKENIZER.apply_chat_template(done, add_generation_prompt=False, return_dict=False)
    assert closed[-1] == TOKENIZER.eos_token_id
    assert closed[: len(closed) - 2] == encode_prompt(TOKENIZER, messages)


# The model and its training


def test_the_architecture_is_small_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    model = Architecture().build(TOKENIZER, 0)
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 1.2e6
    assert torch.equal(before, torch.get_rng_state())
    first, second, other = (random_tiny(seed)[0].model.layers[0].mlp.up_proj.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert random_tiny(dtype=torch.float64)[0].dtype == torch.float64


def test_the_loss_counts_response_tokens_alone() -> None:
    model, tokenizer = random_tiny(dtype=torch.float64)
    task = additions()
    rows = [warmstart._row(task.train[i], tokenizer, 256) for i in (3, 38)]
    assert len({len(ids) for ids, _ in rows}) == 2  # one row is padded
    loss = warmstart._loss(model, *warmstart._pad(rows))
    terms = []
    for ids, taught in rows:
        logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        terms += [-logp[t - 1, ids[t]] for t in range(len(ids)) if taught[t]]
        assert ids[-1] == tokenizer.eos_token_id
    torch.testing.assert_close(loss, torch.stack(terms).sum())


def test_every_reply_of_a_lesson_is_taught_and_nothing_that_is_read() -> None:
    _, tokenizer = random_tiny()
    lesson = Lesson(user("a"), "bc", given="x", then=(("yy", "d"), ("", "ef")))
    ids, taught = warmstart._join("one", lesson, tokenizer, 256)
    said = [tokenizer.decode([i]) for i, own in zip(ids, taught, strict=True) if own]
    assert said == ["b", "c", END, "d", END, "e", "f", END]
    assert tokenizer.decode(ids).endswith(f"xbc{END}yyd{END}ef{END}")
    tokens, labels = warmstart._pad([(ids, taught), (ids[:-2], taught[:-2])])
    assert labels.shape == tokens.shape
    assert (labels[0] != warmstart.IGNORED).tolist() == taught
    assert (labels[1] != warmstart.IGNORED).tolist() == [*taught[:-2], False, False]


@pytest.mark.parametrize("count", [1, 5])
def test_the_gradient_of_a_batch_is_the_sum_of_its_shares_on_any_number_of_cores(count: int) -> None:
    model, tokenizer = random_tiny(dtype=torch.float64)
    task = additions()
    tokens, labels = warmstart._pad([warmstart._row(task.train[i], tokenizer, 256) for i in range(3, 3 + count)])
    found = []
    for workers in (1, 2):
        with ThreadPoolExecutor(workers) as pool:
            loss = warmstart._gradient(model, tokens, labels, pool)
        found.append(
            [
                torch.tensor(loss, dtype=torch.float64),
                *(p.grad.clone() for p in model.parameters() if p.grad is not None),
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    whole = warmstart._loss(model, tokens, labels) / (labels[:, 1:] != warmstart.IGNORED).sum()
    expected = [whole, *torch.autograd.grad(whole, list(model.parameters()))]
    for ours, exact in zip(found[0], expected, strict=True):
        torch.testing.assert_close(ours, exact.detach(), rtol=1e-9, atol=1e-12, check_dtype=False)


def test_every_example_is_seen_once_before_any_is_seen_twice() -> None:
    rows = [([i] * (1 + i % 5), [False] * (1 + i % 5)) for i in range(96)]
    batches = warmstart._batches(rows, 6, random.Random(0))
    seen = [int(tokens[i, 0]) for tokens, _ in (next(batches) for _ in range(16)) for i in range(6)]
    assert sorted(seen) == list(range(96))
    assert seen != sorted(seen)


class Curve:
    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, step: int, total: int, loss: float) -> None:
        self.losses.append(loss)


def test_training_is_reproducible_and_learns() -> None:
    weights, losses = [], []
    for _ in range(2):
        model, tokenizer = random_tiny()
        curve = Curve()
        warm_start(
            model, tokenizer, additions(8).train, WarmStart(steps=60, tokens=200, examples=8, terse=0.0), progress=curve
        )
        weights.append(model.model.layers[0].mlp.up_proj.weight)
        losses.append(curve.losses)
    assert torch.equal(*weights)
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.5 * losses[0][0]


def test_examples_that_cannot_be_trained_on_are_refused() -> None:
    model, tokenizer = random_tiny()
    good = additions(3).train
    with pytest.raises(UserError, match="additions-1 has no worked solution"):
        warm_start(model, tokenizer, [good[0], replace(good[1], solution=None)], QUICK)
    with pytest.raises(UserError, match="tokens, and the model reads 256"):
        warm_start(model, tokenizer, [replace(good[0], solution="9" * 300)], QUICK)


# The cache


def test_an_ordinary_folder_is_built_once(cache: Path) -> None:
    steps: list[tuple[int, int]] = []
    folder = build(progress=lambda step, total, loss: steps.append((step, total)))
    assert steps == [(i, 6) for i in range(1, 7)]
    assert folder.parent == cache
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert build(progress=lambda *_: pytest.fail("it was built again")) == folder
    assert folders(cache) == [folder.name]


@pytest.mark.usefixtures("cache")
def test_the_key_changes_with_everything_that_makes_the_model() -> None:
    names = [
        build().name,
        build(seed=1).name,
        build(settings=replace(QUICK, lr=1e-3)).name,
        build(architecture=replace(SHAPE, inner=48)).name,
        build(additions(39)).name,
        build(additions(name="sums")).name,
    ]
    assert len({name.rsplit("-", 1)[1] for name in names}) == len(names)
    assert build().name == names[0]


def _build_slowly(log: Path, here: Any, other: Any) -> None:
    here.set()

    def progress(step: int, total: int, loss: float) -> None:
        other.wait(10)  # until the other process is about to ask for the model too
        time.sleep(0.05)
        with log.open("a") as file:
            file.write(f"{os.getpid()} {step}\n")

    build(progress=progress)


def test_two_processes_build_one_model(cache: Path, tmp_path: Path) -> None:
    log, one, two = tmp_path / "log", fork.Event(), fork.Event()
    processes = [fork.Process(target=_build_slowly, args=(log, *events)) for events in ((one, two), (two, one))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    builders, steps = zip(*(line.split() for line in log.read_text().splitlines()), strict=True)
    assert len(set(builders)) == 1
    assert steps == tuple("123456")
    folder = build()
    assert folders(cache) == [folder.name]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_build_that_stops_leaves_nothing(cache: Path, error: type[BaseException]) -> None:
    def stop(step: int, total: int, loss: float) -> None:
        if step == 3:
            raise error

    with pytest.raises(error):
        build(progress=stop)
    assert folders(cache) == []
    folder = build()
    assert folders(cache) == [folder.name]


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_build_leaves_no_model_and_the_next_one_sweeps_up(cache: Path) -> None:
    process = fork.Process(target=build, kwargs={"progress": _die})
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert [name for name in folders(cache) if not name.startswith("tmp-")] == []
    assert len(folders(cache)) == 1
    folder = build()
    assert folders(cache) == [folder.name]
    AutoModelForCausalLM.from_pretrained(folder)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POLICYOPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set POLICYOPT_CACHE"):
        build()


@pytest.mark.usefixtures("cache")
def test_tasks_that_cannot_warm_a_model_are_refused() -> None:
    task = additions(2)
    with pytest.raises(UserError, match="no training examples"):
        build(replace(task, train=[]))
    with pytest.raises(UserError, match="no worked solutions"):
        build(replace(task, train=[replace(task.train[0], solution=None)]))
