"""A device with a queue is asked for many steps at once: what is drawn is the same, and nobody waits for it token by token."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.local import fixed as graphs
from policyopt.engine.local import lean as decoding
from policyopt.engine.local import sampler as sampling
from policyopt.engine.local.fixed import Steps, rounded
from policyopt.engine.local.lean import Lean
from policyopt.engine.local.tokens import HELD
from policyopt.methods.group.grpo import grpo
from policyopt.models.adapters import LoRA, with_adapters
from policyopt.models.causal import split_model
from policyopt.sources.program import Response
from tests.engine.test_lean import built, changed_in_flight, gap, texts
from tests.tiny import load_tiny, token_batch

READS = ("cpu", "numpy", "tolist", "item", "nonzero", "__bool__", "__int__", "__float__", "__index__")
"""Methods of a tensor that wait for its numbers."""


class Queued(Lean):
    """Steps of fixed shapes, some at once, as on a device that is no CPU."""

    asked: dict[str, Any] = {}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queue(**self.asked)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LocalSampler]:
    """Makes samplers that ask for some steps at once, proven so at load."""

    def make(split: Any, *, ahead: int = 16, fixed: bool = True, **keywords: Any) -> LocalSampler:
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "STEPPERS", ((Queued, None),))
            patch.setattr(Queued, "asked", {"ahead": ahead, "fixed": fixed})
            return LocalSampler(split, **keywords)

    return make


def mixed(sampler: LocalSampler, most: int = 150) -> list[Response]:
    """Groups on three prompts that end at different times, by tokens and budgets, at different temperatures."""

    async def together() -> list[Response]:
        asked = zip(texts(5, 30, 9) * 2, (70, 3, 20, 150, 66, 8), (1.0, 0.7, 0.0, 1.0, 1.0, 0.5), strict=True)
        some = [
            sampler.generate(prompt, n=6, max_tokens=min(budget, most), temperature=heat, key=(i,))
            for i, (prompt, budget, heat) in enumerate(asked)
        ]
        return [r for group in await asyncio.gather(*some) for r in group]

    [found] = sampler.run([together()])
    return found


def same(mine: list[Response], theirs: list[Response], bound: float = 1e-10) -> None:
    for x, y in zip(mine, theirs, strict=True):
        assert (x.tokens, x.stop_reason, x.versions) == (y.tokens, y.stop_reason, y.versions)
        assert len(x.tokens) == len(x.logp) == len(x.entropy) == len(x.versions)
        np.testing.assert_allclose([x.logp, x.entropy], [y.logp, y.entropy], rtol=0, atol=bound)


@pytest.mark.parametrize("worth", [0, 2048], ids=["shared", "copied"])
@pytest.mark.parametrize(("ahead", "fixed"), [(1, True), (16, True), (5, False)])
def test_rows_that_end_at_different_times_draw_what_they_draw_token_by_token(
    ahead: int, fixed: bool, worth: int, queued: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "WORTH", worth)
    split = split_model(built("qwen3", torch.float64))
    plain = mixed(LocalSampler(split, eos=(2, 9), max_rows=11))
    assert {r.stop_reason for r in plain} == {"eos", "length"} and max(len(r.tokens) for r in plain) > HELD
    sampler = queued(split, ahead=ahead, fixed=fixed, eos=(2, 9), max_rows=11)
    same(mixed(sampler), plain)
    tokens = sum(len(r.tokens) for r in plain)
    assert sampler.drawn == tokens if ahead == 1 else tokens < sampler.drawn <= tokens + len(plain) * (ahead - 1)


@pytest.mark.parametrize("fixed", [True, False])
def test_the_same_rows_give_the_same_numbers_to_the_bit(fixed: bool, queued: Any) -> None:
    """However often somebody looks; rows that all have the same budget are the same rows at every token."""
    split = split_model(built("qwen3", torch.float32))

    def numbers(sampler: LocalSampler) -> list[Any]:
        groups = sampler.run([sampler.generate(p, n=5, max_tokens=37, key=p) for p in texts(4, 11)])
        return [(r.tokens, r.logp, r.entropy) for group in groups for r in group]

    each = numbers(queued(split, ahead=1, fixed=fixed, eos=()))
    assert numbers(queued(split, ahead=16, fixed=fixed, eos=())) == each
    assert fixed or numbers(LocalSampler(split, eos=())) == each


# Looking -------------------------------------------------------------------------------------------------------------


class Looks(TorchFunctionMode):
    """Counts what waits for the numbers in a tensor, and what sends some."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS or func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            self.found[name] += 1
        index = args[1] if name in ("__getitem__", "__setitem__") else ()
        if any(
            isinstance(i, Tensor) and i.dtype == torch.bool for i in (index if isinstance(index, tuple) else (index,))
        ):
            self.found["chosen by a mask"] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("ahead", "worth"), [(16, 2048), (16, 0), (4, 0)])
def test_nobody_waits_for_a_token(ahead: int, worth: int, queued: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs what it costs, and between two looks nothing is read or sent."""
    sampler = queued(split_model(built("qwen3", torch.float32)), ahead=ahead, eos=(40,))
    monkeypatch.setattr(decoding, "WORTH", worth)

    def looks(budget: int) -> Counter[str]:
        with Looks() as seen:
            sampler.run([sampler.generate(p, n=4, max_tokens=budget, temperature=0.8, key=p) for p in texts(7, 12)])
        return seen.found

    steps = Lean._run
    inside: list[Counter[str]] = []

    def watched(stepper: Lean, inputs: Any) -> Tensor:
        with Looks() as seen:
            out = steps(stepper, inputs)
        inside.append(seen.found)
        return out

    monkeypatch.setattr(sampler.stepper._steps, "run", lambda inputs: watched(sampler.stepper, inputs))
    sampler.eos = frozenset()
    few, many = looks(2 * ahead), looks(12 * ahead)
    assert few["cpu"] == 2 and many["cpu"] == 12
    assert len(inside) == 14 * ahead - 2 and not any(inside)
    grown = 12 * ahead // decoding.ROOM + 1  # the rows' own keys become longer: another shape, whose inputs are sent
    assert sum((many - few).values()) <= 10 * 4 + grown * 8


def test_what_the_counter_of_looks_knows() -> None:
    with Looks() as seen:
        x = torch.tensor([1.0, 0.0])
        assert bool(x[0]) and x.tolist() and x.cpu().numpy().any()
        float(x[0])
        x[x > 0] = 2
    assert seen.found == Counter(tensor=1, __bool__=1, tolist=1, cpu=1, numpy=1, __float__=1, **{"chosen by a mask": 1})


# Graphs --------------------------------------------------------------------------------------------------------------


class Tape(TorchDispatchMode):
    """Operations with the tensors they had, to be run again on these: what a CUDA graph is, but on the CPU. What was recorded
    reads and writes where it did, whatever has become of the names since."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[tuple[Any, Any, Any, Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique"), "no graph has this"
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self.before.append((args[0], args[0].clone()))
        out = func(*args, **kwargs)
        self.ops.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        """As if nothing had been run."""
        for x, old in reversed(self.before):
            x.copy_(old)

    def replay(self) -> None:
        """Run all again."""
        for func, args, kwargs, out in self.ops:
            for kept, new in zip(flat(out), flat(func(*args, **kwargs)), strict=True):
                if kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


def flat(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, tuple | list):
        yield from itertools.chain.from_iterable(map(flat, out))


@pytest.fixture
def tapes(queued: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[LocalSampler, Counter[str]]]:
    """Makes samplers whose steps are recorded on the CPU and run from the record, and counts both."""
    counted: Counter[str] = Counter()

    def record(once: Callable[[], Tensor], pool: object) -> tuple[Callable[[], None], Tensor]:
        counted["recorded"] += 1
        with Tape() as tape:
            out = once()
        tape.undo()
        out.fill_(torch.nan)  # a graph that is recorded has not run

        def replay() -> None:
            counted["run"] += 1
            tape.replay()

        return replay, out

    def make(split: Any, **keywords: Any) -> tuple[LocalSampler, Counter[str]]:
        sampler = queued(split, **keywords)
        sampler.stepper._steps._records = True
        monkeypatch.setattr(graphs, "record", record)
        return sampler, counted

    return make


def test_recorded_steps_draw_what_others_draw(tapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While rows come and go, and keys move to where there is more room; when all have their places nothing is recorded again."""
    split = split_model(built("qwen3", torch.float64))
    sampler, counted = tapes(split, eos=(2, 9), max_rows=11)
    monkeypatch.setattr(decoding, "WORTH", 60)  # some are worth it
    plain = mixed(LocalSampler(split, eos=(2, 9), max_rows=11), most=40)
    steps: list[int] = []
    for _ in range(4):
        before = counted.copy()
        same(mixed(sampler, most=40), plain)
        steps.append((counted - before)["run"])
    assert counted["recorded"] > 3 and steps == sorted(steps) and steps[0] > 20
    assert (counted - before)["recorded"] == 0


def test_recorded_steps_read_adapters_as_they_are(tiny_model: Path, tapes: Any) -> None:
    """Every version is merged into where the first one was, so that what was recorded holds."""
    policy = load_tiny(tiny_model, lora=LoRA(rank=4))
    engine = LocalEngine(policy, grpo(kl_coef=0.0), lr=3e-2)
    sampler, counted = tapes(policy.likelihood(), eos=())
    module = policy.model.get_base_model().model.layers[0].self_attn.q_proj
    batch = token_batch().replace(advantage=token_batch().mask)
    [prompt] = texts(8)
    recorded, responses = [], []
    for version in range(1, 4):
        engine.update(grpo(kl_coef=0.0), batch.replace(old_logp=torch.zeros_like(batch.mask)))
        sampler.version = version
        [group] = sampler.run([sampler.generate(prompt, n=3, max_tokens=20, key=(0,))])
        assert max(gap(policy.model, prompt, r) for r in group) < 1e-10
        recorded.append(counted["recorded"])
        responses.append(group[0])
    assert float(module.lora_B["default"].weight.detach().abs().max()) > 1e-3, "the adapters have moved"
    assert gap(policy.model, prompt, responses[0]) > 1e-3
    assert recorded[0] == recorded[1] == recorded[2] > 0


def test_recorded_steps_are_made_anew_where_weights_have_moved(tapes: Any) -> None:
    model = built("qwen3", torch.float64)
    sampler, counted = tapes(split_model(model), eos=())
    [prompt] = texts(8)
    for version in range(3):
        sampler.version = version
        [group] = sampler.run([sampler.generate(prompt, n=3, max_tokens=20, key=(0,))])
        assert max(gap(model, prompt, r) for r in group) < 1e-10
        assert counted["recorded"] == version + 1
        held = [p.data for p in model.parameters()]  # nothing may take their place by chance
        for p in model.parameters():
            p.data = p.data * 1.1
    assert len(held)


def test_a_device_that_records_nothing_says_so_and_goes_on(queued: Any) -> None:
    """As this build of torch, whose graphs cannot be made."""
    model = built("qwen3", torch.float64)
    sampler = queued(split_model(model), eos=())
    assert sampler.stepper.note == ""
    sampler.stepper._steps._records = True
    [prompt] = texts(6)
    [[response]] = sampler.run([sampler.generate(prompt, max_tokens=20, key=(0,))])
    assert gap(model, prompt, response) < 1e-10
    assert "no CUDA graph of a decoding step can be made" in sampler.stepper.note


def test_that_nothing_is_recorded_is_known_when_a_sampler_is_made(queued: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Steps.__init__

    def on_a_card(steps: Steps, *args: Any) -> None:
        begin(steps, *args)
        steps._records = True

    monkeypatch.setattr(Steps, "__init__", on_a_card)
    monkeypatch.setattr(sampling, "STEPPERS", ((Queued, None),))
    sampler = LocalSampler(split_model(built("qwen3", torch.float32)), eos=())
    assert type(sampler.stepper) is Queued and "draws more slowly" in sampler.slow


# Beside it -----------------------------------------------------------------------------------------------------------


def test_what_is_kept_ends_where_its_row_ended(queued: Any) -> None:
    """A row that ended within some steps has passed what nobody asked for; a continuation begins behind its last token."""
    model = built("qwen3", torch.float64)
    sampler = queued(split_model(model), eos=())
    [prompt] = texts(9)

    async def grown() -> list[Response]:
        short = sampler.generate(prompt, n=2, max_tokens=3, key=(0,), keep=True)
        long = sampler.generate(prompt, max_tokens=40, key=(1,))
        first, _ = await asyncio.gather(short, long)
        before = sampler.computed
        stems = [(*prompt, *r.tokens) for r in first]
        leaves = await asyncio.gather(*(sampler.generate(s, n=2, max_tokens=1, key=(2, *s)) for s in stems))
        assert sampler.computed - before == 2, "all but the last token of each stem was held"
        return [Response([*a.tokens, *b.tokens], [*a.logp, *b.logp], []) for a, bs in zip(first, leaves) for b in bs]

    [whole] = sampler.run([grown()])
    assert max(gap(model, prompt, r) for r in whole) < 1e-10


def test_what_is_in_flight_goes_on_with_new_weights(queued: Any) -> None:
    model = with_adapters(built("qwen3", torch.float64), LoRA(rank=2), "model")
    sampler = queued(split_model(model), ahead=8, eos=())
    assert changed_in_flight(model, sampler, tokens=60, turns=5) % 8 == 0


def test_a_row_that_more_decides_on_is_looked_at_after_every_token(queued: Any) -> None:
    sampler = queued(split_model(built("qwen3", torch.float32)), eos=())
    seen: list[int] = []

    def until(tokens: Any) -> bool:
        seen.append(len(tokens))
        return len(tokens) == 7

    plain, [response] = sampler.run(
        [
            sampler.generate(texts(5)[0], n=2, max_tokens=40, key=(0,)),
            sampler.generate(texts(5)[0], max_tokens=40, key=(1,), until=until),
        ]
    )
    assert seen == list(range(1, 8)) and response.stop_reason == "stop"
    assert [len(r.tokens) for r in plain] == [40, 40]
    assert sampler.drawn == 2 * 40 + 7


def test_sizes_are_few_and_near() -> None:
    sizes = {rounded(n) for n in range(1, 1025)}
    assert len(sizes) <= 4 * 10 and all(n <= rounded(n) <= 1.25 * n for n in range(1, 1025))
    assert {rounded(n, 32) for n in range(1, 257)} == {32 * k for k in range(1, 9)}
