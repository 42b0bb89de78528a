"""The local sampler: what it says it drew is what the model gives, and a request's tokens are its own."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.stats
import torch

from policyopt.engine.local import LocalEngine, LocalSampler
from policyopt.engine.local.flight import Flight
from policyopt.engine.local.lean import Lean
from policyopt.engine.local.level import Level, Whole
from policyopt.engine.local.prefixes import Prefixes
from policyopt.engine.local.stepper import Stepper
from policyopt.engine.streams import stream_key, uniforms
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.models.causal import SplitModel, split_model
from policyopt.models.kept import cache_folder
from policyopt.models.likelihood import Wanted
from policyopt.models.load import Policy, load_policy
from policyopt.sources.draw import GroupWithGreedy
from policyopt.sources.program import Response
from policyopt.training.rows import to_batch
from tests.asking import ask as question
from tests.tiny import ENDS, FAMILIES, UNUSUAL, family_model, load_tiny, token_batch, unusual_model

Request = tuple[tuple[int, ...], int, int, float, tuple[int, ...]]
"""Prompt, number of responses, budget, temperature, key."""

NOTHING = Verdict(0.0, False, False, "")


def prompts(lengths: tuple[int, ...], vocab: int = 102, seed: int = 0) -> list[tuple[int, ...]]:
    g = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(6, vocab, (n,), generator=g).tolist()) for n in lengths]


def ask(sampler: LocalSampler, requests: list[Request]) -> list[list[Response]]:
    return sampler.run(
        [
            sampler.generate(tokens, n=n, max_tokens=budget, temperature=temperature, key=key)
            for tokens, n, budget, temperature, key in requests
        ]
    )


def differences(sampler: LocalSampler, requests: list[Request], groups: list[list[Response]]) -> tuple[float, float]:
    """Largest difference in log-probability and entropy between the sampler and the trainer, over all tokens."""
    worst = [0.0, 0.0]
    for (tokens, _, budget, _, _), group in zip(requests, groups, strict=True):
        dtype = torch.float64 if next(sampler.split.hidden.parameters()).dtype == torch.float64 else torch.float32
        batch = to_batch([tokens] * len(group), group, [NOTHING] * len(group), [0] * len(group), budget, dtype)
        with torch.no_grad():
            found = sampler.split.leaves(batch, Wanted(entropy=True))
        mask = batch.mask.bool()
        worst[0] = max(worst[0], *(found["logp"] - batch.old_logp)[mask].abs().tolist())
        worst[1] = max(worst[1], *(found["entropy"] - batch.sampled_entropy)[mask].abs().tolist())
    return worst[0], worst[1]


def within(seconds: float, f: Callable[[], Any]) -> Any:
    """The result of ``f``, or a failure where it hangs."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(f()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs or has raised"
    return found[0]


# Sampler and trainer agree


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-12)])
def test_sampler_and_trainer_agree_on_prompts_of_unlike_length(dtype: str, bound: float, tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model, dtype))
    requests = [
        (p, 4, 24, temperature, (i,))
        for i, (p, temperature) in enumerate(zip(prompts((1, 9, 30, 4)), (1.0, 0.7, 1.3, 0.0), strict=True))
    ]
    groups = ask(sampler, requests)
    assert len({len(r.tokens) for group in groups for r in group}) > 4, "unequal lengths"
    assert max(differences(sampler, requests, groups)) < bound


def test_the_embedded_model_agrees_too() -> None:
    cached = sorted(cache_folder().glob("chain_sum-*/config.json"))  # models of others may lie there too
    if not cached:
        pytest.skip("no embedded model in the cache")
    policy = load_policy(str(cached[0].parent), device="cpu")
    sampler = LocalSampler.of(policy)
    questions = [tuple(policy.tokenizer.encode(q)) for q in ("1+1=?", "12+70-16=?", "make 7 from 3 5 9")]
    requests = [(q, 8, 40, 1.0, (i,)) for i, q in enumerate(questions)]
    assert max(differences(sampler, requests, ask(sampler, requests))) < 5e-5, "float32, on logits of a trained model"


def test_what_others_wrote_is_scored_in_one_batch(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model, "float64"))
    requests = [
        (p, 3, n, 0.7, (i,)) for i, (p, n) in enumerate(zip(prompts((1, 9, 30, 4)), (2, 9, 17, 5), strict=True))
    ]
    groups = ask(sampler, requests)
    rows = [(tokens, r) for (tokens, *_), group in zip(requests, groups, strict=True) for r in group]
    with mock.patch.object(SplitModel, "leaves", autospec=True, side_effect=SplitModel.leaves) as passes:
        scored = sampler.run([sampler.logprobs(tokens, tuple(r.tokens), temperature=0.7) for tokens, r in rows])
    assert passes.call_count == 1
    for (_, own), other in zip(rows, scored, strict=True):
        assert (other.tokens, other.finished, other.versions) == (own.tokens, own.finished, own.versions)
        assert other.logp == pytest.approx(own.logp, abs=1e-10)
        assert other.entropy == pytest.approx(own.entropy, abs=1e-10)


def test_a_score_that_fails_reaches_whoever_asked(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    with pytest.raises(IndexError):
        sampler.run([sampler.logprobs((5, 10_000), (6,), temperature=1.0)])
    [again] = sampler.run([sampler.logprobs((5, 6), (7,), temperature=1.0)])
    assert again.tokens == [7]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_families_agree(family: str) -> None:
    """Unequal prompts, some longer than the attention window; positions by index, by rotation, by bias."""
    sampler = LocalSampler(split_model(family_model(family)), eos=(2, 3, 4, 5))
    requests = [(p, 3, 20, 0.7, (i,)) for i, p in enumerate(prompts((1, 4, 11, 7), vocab=41))]
    assert max(differences(sampler, requests, ask(sampler, requests))) < 1e-5


def test_it_agrees_after_an_update_and_stamps_the_version(tiny_model: Path) -> None:
    recipe = grpo(kl_coef=0.0)
    engine = LocalEngine(load_tiny(tiny_model), recipe, lr=1e-2)
    requests = [(p, 2, 12, 1.0, (i,)) for i, p in enumerate(prompts((3, 8)))]
    before = ask(engine.sampler, requests)
    batch = token_batch().replace(advantage=token_batch().mask)
    engine.update(recipe, batch.replace(old_logp=torch.zeros_like(batch.mask)))
    after = ask(engine.sampler, requests)
    assert {r.version for group in before for r in group} == {0}
    assert {r.version for group in after for r in group} == {1}
    assert max(differences(engine.sampler, requests, after)) < 1e-12
    assert max(differences(engine.sampler, requests, before)) > 1e-3, "the policy has moved"


# A request's tokens are its own


def test_the_same_request_gives_the_same_tokens_whatever_else_is_in_flight(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    a, b, c, d = prompts((5, 2, 17, 5))
    mine: Request = (a, 3, 20, 0.9, (7, 1))
    [alone] = ask(sampler, [mine])
    others: list[Request] = [
        (b, 2, 40, 1.0, (7, 2)),
        (c, 5, 3, 0.0, (7, 3)),
        (a, 2, 9, 1.5, (8, 1)),
        (d, 1, 20, 0.9, (7, 1)),
    ]
    surrounded = ask(sampler, [*others[:2], mine, *others[2:]])
    by_fives = ask(LocalSampler(sampler.split, policy.eos, max_rows=5), [*others, mine])
    more = ask(sampler, [(a, 6, 20, 0.9, (7, 1))])[0][:3]
    for again in (surrounded[2], by_fives[4], more):
        assert [r.tokens for r in again] == [r.tokens for r in alone]
        for x, y in zip(again, alone, strict=True):
            assert x.logp == pytest.approx(y.logp, abs=1e-12)
            assert x.finished == y.finished
    assert [r.tokens for r in ask(sampler, [(a, 3, 20, 0.9, (7, 2))])[0]] != [r.tokens for r in alone], "another key"
    assert len({tuple(r.tokens) for r in alone}) == 3, "responses of one request differ"
    shorter = ask(sampler, [(a, 3, 4, 0.9, (7, 1))])[0]
    assert [r.tokens for r in shorter] == [r.tokens[:4] for r in alone], "a budget only cuts"


def test_random_numbers_are_uniform_and_unrelated() -> None:
    keys = np.array(
        [stream_key((0, step, prompt, i)) for step in range(5) for prompt in range(20) for i in range(20)], np.uint64
    )
    assert len(set(keys.tolist())) == len(keys)
    table = np.stack([uniforms(keys, position) for position in range(8)])
    assert table.min() >= 0 and table.max() < 1
    assert scipy.stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    correlation = np.corrcoef(table) - np.eye(8)
    assert np.abs(correlation).max() < 5 / math.sqrt(len(keys))
    lagged = np.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]
    assert abs(lagged) < 5 / math.sqrt(8 * len(keys))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_what_is_drawn_follows_the_models_distribution(temperature: float) -> None:
    """Chi-square over all pairs of a first and a second token."""
    model = family_model("llama", vocab_size=6, scale=8.0)
    [prompt] = prompts((4,), vocab=6 + 1)
    prompt = tuple(t % 6 for t in prompt)
    sampler = LocalSampler(split_model(model), eos=())
    n = 6000
    [responses] = ask(sampler, [(prompt, n, 2, temperature, (0,))])
    with torch.no_grad():
        ids = torch.tensor([[*prompt, first] for first in range(6)])
        p = torch.softmax(model(input_ids=ids).logits.double() / temperature, -1)
    joint = (p[0, -2][:, None] * p[:, -1]).flatten().numpy()
    assert joint.max() > 3 / 36, "uneven enough to tell one distribution from another"
    seen = Counter(tuple(r.tokens) for r in responses)
    counts = np.array([seen[(i, j)] for i in range(6) for j in range(6)])
    likely = joint * n > 5
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(joint[likely], joint[~likely].sum()) * n
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
    flat = np.full(36, n / 36)
    assert scipy.stats.chisquare(counts, flat).pvalue < 1e-6


def test_temperature_zero_takes_the_likeliest_token_of_the_whole_model(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    requests: list[Request] = [(p, 1, 15, 0.0, (i,)) for i, p in enumerate(prompts((2, 13, 6)))]
    requests.insert(1, (prompts((4,))[0], 3, 15, 1.0, (9,)))  # sampled rows in the same batch
    groups = ask(sampler, requests)
    for (prompt, _, _, temperature, _), group in zip(requests, groups, strict=True):
        if temperature:
            continue
        ids = torch.tensor([[*prompt, *group[0].tokens]])
        with torch.no_grad():
            logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == group[0].tokens
        assert group[0].logp == pytest.approx(logits.log_softmax(-1).max(-1).values.tolist(), abs=1e-12)
    assert [r.tokens for r in groups[1]] == [r.tokens for r in ask(sampler, [requests[1]])[0]]


# Work, budgets, ends


def test_a_shared_prompt_is_computed_once_and_finished_rows_cost_nothing(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    a, b = prompts((40, 11))
    groups = ask(sampler, [(a, 5, 20, 1.0, (0,)), (b, 3, 20, 1.0, (1,)), (a, 1, 20, 0.0, (0,))])
    lengths = [len(r.tokens) for group in groups for r in group]
    assert min(lengths) < max(lengths)
    assert sampler.computed == 40 + 11 + sum(n - 1 for n in lengths)


def test_responses_end_at_an_end_token_or_at_their_budget(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    requests: list[Request] = [
        (p, 40, budget, 1.0, (budget,)) for p, budget in zip(prompts((3, 8, 5)), (1, 4, 30), strict=True)
    ]
    groups = ask(sampler, requests)
    kinds = set()
    for (_, _, budget, _, _), group in zip(requests, groups, strict=True):
        for r in group:
            assert 1 <= len(r.tokens) <= budget
            assert len(r.logp) == len(r.entropy) == len(r.tokens)
            assert not set(r.tokens[:-1]) & set(ENDS)
            assert r.finished == (r.tokens[-1] in ENDS)
            assert r.finished or len(r.tokens) == budget
            kinds.add((r.finished, len(r.tokens) == budget))
    assert kinds == {(True, False), (True, True), (False, True)}, "an end token may be the last that the budget allows"


def test_a_budget_of_nothing_gives_an_empty_response(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    a, b = prompts((3, 5))
    [[empty], [other]] = ask(sampler, [(a, 1, 0, 1.0, (0,)), (b, 1, 5, 1.0, (1,))])
    assert (empty.tokens, empty.logp, empty.finished) == ([], [], False)
    assert other.tokens
    assert ask(sampler, []) == []


# Programs


def test_a_program_may_have_several_phases_and_those_of_all_programs_run_together(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))

    async def phases(prompt: tuple[int, ...], count: int, key: int) -> list[Response]:
        found = []
        for phase in range(count):
            [r] = await sampler.generate(prompt, n=1, max_tokens=6, temperature=1.0, key=(key, phase))
            found.append(r)
            prompt = (*prompt, *r.tokens)
        return found

    asked = prompts((3, 9, 5))
    with mock.patch.object(sampler, "_draw", wraps=sampler._draw) as draw:
        together = sampler.run([phases(p, count, i) for i, (p, count) in enumerate(zip(asked, (2, 1, 3), strict=True))])
    assert draw.call_count == max(sum(len(r.tokens) for r in found) for found in together), "nobody waits for anybody"
    assert [len(found) for found in together] == [2, 1, 3]
    for i, p in enumerate(asked):
        [alone] = sampler.run([phases(p, len(together[i]), i)])
        assert [r.tokens for r in alone] == [r.tokens for r in together[i]]
    [continued] = ask(sampler, [((*asked[0], *together[0][0].tokens), 1, 6, 1.0, (0, 1))])
    assert continued[0].tokens == together[0][1].tokens, "the second phase has read the first"


def test_a_greedy_baseline_is_drawn_in_the_same_batch_as_its_group(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    [prompt] = prompts((6,))
    with mock.patch.object(sampler.stepper, "_read", wraps=sampler.stepper._read) as read:
        [group] = sampler.run([GroupWithGreedy(size=3).draw(*question(sampler, prompt, 8, (0,)))])
    assert read.call_count == 1
    assert [r.use for r in group] == ["train"] * 3 + ["baseline"]
    assert group[3].tokens == ask(sampler, [(prompt, 1, 8, 0.0, (5,))])[0][0].tokens


def test_it_runs_inside_an_event_loop_as_in_a_notebook(tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    requests: list[Request] = [(p, 2, 8, 1.0, (i,)) for i, p in enumerate(prompts((3, 6)))]
    outside = [[r.tokens for r in group] for group in ask(sampler, requests)]

    async def cell() -> tuple[Any, Any]:
        blocking = ask(sampler, requests)
        p, n, budget, temperature, key = requests[0]
        return blocking, await sampler.generate(p, n=n, max_tokens=budget, temperature=temperature, key=key)

    blocking, awaited = asyncio.run(cell())
    assert [[r.tokens for r in group] for group in blocking] == outside
    assert [r.tokens for r in awaited] == outside[0]


@pytest.mark.parametrize("pauses", range(6))
def test_an_error_in_a_program_comes_out_and_leaves_the_sampler_usable(pauses: int, tiny_model: Path) -> None:
    """Whatever turn of the event loop it falls into, also while requests of other programs wait."""
    sampler = LocalSampler.of(load_tiny(tiny_model))
    a, b = prompts((3, 6))

    async def breaks() -> list[Response]:
        for _ in range(pauses):
            await asyncio.sleep(0)
        raise ZeroDivisionError("a program of mine")

    async def slow(turns: int) -> list[Response]:
        for _ in range(turns):
            await asyncio.sleep(0)
        first = await sampler.generate(b, n=1, max_tokens=4, temperature=1.0, key=(turns,))
        return first + await sampler.generate(a, n=1, max_tokens=4, temperature=1.0, key=(turns,))

    complaints: list[Any] = []
    with mock.patch("asyncio.base_events.BaseEventLoop.call_exception_handler", lambda _, c: complaints.append(c)):
        with pytest.raises(ZeroDivisionError, match="a program of mine"):
            sampler.run([slow(0), breaks(), *(slow(turns) for turns in range(1, 8))])
    assert not complaints, "nothing is left behind for the event loop to complain of"
    [again] = within(60, lambda: ask(sampler, [(a, 2, 5, 1.0, (0,))]))
    [fresh] = ask(LocalSampler.of(load_tiny(tiny_model)), [(a, 2, 5, 1.0, (0,))])
    assert [r.tokens for r in again] == [r.tokens for r in fresh]


def test_an_error_in_the_model_reaches_every_program_and_leaves_the_sampler_usable(tiny_model: Path) -> None:
    policy: Policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    [a] = prompts((3,))
    caught: list[str] = []

    async def careful(key: int) -> list[Response]:
        try:
            return await sampler.generate(a, n=1, max_tokens=4, temperature=1.0, key=(key,))
        except RuntimeError as error:
            caught.append(str(error))
            raise

    with mock.patch.object(sampler, "_draw", side_effect=RuntimeError("out of memory")):
        with pytest.raises(RuntimeError, match="out of memory"):
            sampler.run([careful(0), careful(1)])
    assert caught == ["out of memory"] * 2
    assert within(60, lambda: sampler.run([careful(0)]))[0][0].tokens


# Places, beginnings, ends


def test_a_place_is_taken_as_soon_as_it_is_free(tiny_model: Path) -> None:
    """Rows of 1 to 30 tokens in four places take as many passes as the busiest place has tokens, not as many as waves
    of four would."""
    policy = load_tiny(tiny_model)
    sampler = LocalSampler(split_model(policy.model), eos=(), max_rows=4)
    budgets = [30, 2, 3, 1, 2, 4, 5, 3, 2, 6, 1, 30]
    requests: list[Request] = [
        (p, 1, b, 1.0, (i,)) for i, (p, b) in enumerate(zip(prompts((5,) * 12), budgets, strict=True))
    ]
    with mock.patch.object(sampler, "_draw", wraps=sampler._draw) as draw:
        groups = ask(sampler, requests)
    assert [len(group[0].tokens) for group in groups] == budgets
    places = [0] * 4
    for b in budgets:
        places[places.index(min(places))] += b
    assert draw.call_count == max(places) < sum(max(budgets[i : i + 4]) for i in (0, 4, 8))
    assert max(differences(sampler, requests, groups)) < 1e-12


def test_a_tree_over_a_shared_beginning_costs_half_of_independent_responses(tiny_model: Path) -> None:
    """Sixteen leaves: a trunk of 24 tokens, four branches of 8, four leaves of 8 on each."""
    sampler = LocalSampler(split_model(load_tiny(tiny_model).model), eos=())
    [prompt] = prompts((20,))

    async def grow(stem: tuple[int, ...], key: tuple[int, ...], levels: list[tuple[int, int]]) -> list[tuple[int, ...]]:
        (n, length), *rest = levels
        drawn = await sampler.generate(stem, n=n, max_tokens=length, key=key, keep=True)
        ends = [(*stem, *r.tokens) for r in drawn]
        if not rest:
            return ends
        below = await asyncio.gather(*(grow(end, (*key, i), rest) for i, end in enumerate(ends)))
        return [leaf for leaves in below for leaf in leaves]

    costs: list[int] = []

    async def grown() -> tuple[list[tuple[int, ...]], Response]:
        leaves = await grow(prompt, (0,), [(1, 24), (4, 8), (4, 8)])
        costs.append(sampler.computed)
        [again] = await sampler.generate(leaves[0][:-1], max_tokens=1, temperature=0.0, key=(0,))
        return leaves, again

    [(leaves, same)] = sampler.run([grown()])
    [tree] = costs
    assert len(set(leaves)) == 16 and {len(x) for x in leaves} == {60}
    alone = LocalSampler(sampler.split, eos=())
    ask(alone, [(prompt, 16, 40, 1.0, (0,))])
    assert tree <= 0.5 * alone.computed
    # each token once; the last of a piece when somebody goes on from it
    assert tree == 20 + 24 + 4 * 8 + 16 * 8 - 16
    fresh = LocalSampler(sampler.split, eos=())
    [again] = ask(fresh, [(leaves[0][:-1], 1, 1, 0.0, (0,))])
    assert sampler.computed == tree + 1, "all but the last token was held"
    assert same.logp == pytest.approx(again[0].logp, abs=1e-12)
    before = sampler.computed
    ask(sampler, [(leaves[0][:-1], 1, 1, 0.0, (0,))])
    assert sampler.computed == before + 59, "nothing is held from one run to the next"


def test_what_is_held_goes_when_the_weights_change(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    requests: list[Request] = [(p, 2, 6, 1.0, (i,)) for i, p in enumerate(prompts((9, 9)))]
    ask(sampler, requests)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    sampler.version += 1
    assert max(differences(sampler, requests, ask(sampler, requests))) < 1e-12


def test_the_least_used_beginnings_go_first() -> None:
    held = [(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))]  # 64 bytes
    prefixes = Prefixes(limit=130)
    prefixes.add((1, 2, 3, 4), held)
    prefixes.add((1, 2, 5, 6), held)
    assert prefixes.longest((1, 2, 5, 9)) == (3, held)
    prefixes.add((7, 8), held)
    assert prefixes.longest((1, 2, 3, 4))[0] == 2, "its own branch is gone, what it shared is not"
    assert prefixes.longest((1, 2, 5, 6))[0] == 4
    assert prefixes.longest((9,)) == (0, None)
    prefixes.add((5,), [(torch.zeros(99), torch.zeros(99))])
    assert prefixes.longest((5,))[0] == 0, "larger than the limit"


def test_a_cut_response_goes_on_as_if_it_had_never_been_cut(tiny_model: Path) -> None:
    policy = load_tiny(tiny_model)
    sampler = LocalSampler.of(policy)
    [prompt] = prompts((7,))
    [[whole]] = ask(sampler, [(prompt, 1, 24, 0.8, (4,))])

    async def pieces() -> Response:
        [r] = await sampler.generate(prompt, max_tokens=3, temperature=0.8, key=(4,))
        while not r.finished and len(r.tokens) < 24:
            sampler.version += 1
            await sampler.generate(prompt, max_tokens=min(5, 24 - len(r.tokens)), temperature=0.8, key=(4,), resume=r)
        return r

    [found] = sampler.run([pieces()])
    assert found.tokens == whole.tokens
    assert found.logp == pytest.approx(whole.logp, abs=1e-12)
    assert found.versions == [0] * 3 + [1 + (i - 3) // 5 for i in range(3, len(found.tokens))]
    assert (found.version, found.finished) == (0, whole.finished)


def test_what_is_in_flight_can_be_called_back(tiny_model: Path) -> None:
    sampler = LocalSampler(split_model(load_tiny(tiny_model).model), eos=(), max_rows=2)
    [prompt] = prompts((7,))
    [[whole]] = ask(sampler, [(prompt, 1, 30, 1.0, (0, 0))])

    async def asker(i: int) -> Response:
        return (await sampler.generate(prompt, max_tokens=30, key=(i, 0)))[0]

    async def caller() -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        sampler.interrupt()

    cut = [r for r in sampler.run([asker(0), asker(1), asker(2), caller()]) if r is not None]
    assert 0 < len(cut[0].tokens) < 30
    assert cut[2].tokens == [], "it had no place yet"
    assert not any(r.finished for r in cut)
    rest = 30 - len(cut[0].tokens)
    sampler.run([sampler.generate(prompt, max_tokens=rest, key=(0, 0), resume=cut[0])])
    assert cut[0].tokens == whole.tokens


def test_stops_forced_tokens_and_the_likeliest_ones(tiny_model: Path) -> None:
    sampler = LocalSampler(split_model(load_tiny(tiny_model).model), eos=())
    [prompt] = prompts((7,))
    [[free]] = ask(sampler, [(prompt, 1, 20, 1.0, (0,))])
    end = tuple(free.tokens[7:9])

    async def all_kinds() -> tuple[Response, Response, Response]:
        [[stopped], [forced], [top]] = await asyncio.gather(
            sampler.generate(prompt, max_tokens=20, key=(0,), stop=[(99, 99, 99), end]),
            sampler.generate(prompt, max_tokens=6, key=(0,), forced=(30, 31)),
            sampler.generate(prompt, max_tokens=4, temperature=0.0, key=(0,), top=3),
        )
        return stopped, forced, top

    [(stopped, forced, top)] = sampler.run([all_kinds()])
    assert stopped.tokens == free.tokens[:9] and stopped.stopped and not stopped.finished
    assert forced.tokens[:2] == [30, 31] and len(forced.tokens) == 6
    request: Request = (prompt, 1, 6, 1.0, (0,))
    assert max(differences(sampler, [request], [[forced]])) < 1e-12, "forced tokens have the policy's log-probability"
    assert [ids[0] for ids, _ in top.top] == top.tokens
    assert all(values == sorted(values, reverse=True) and len(values) == 3 for _, values in top.top)


def test_a_request_says_itself_where_it_ends(tiny_model: Path) -> None:
    sampler = LocalSampler(split_model(load_tiny(tiny_model).model), eos=range(102))
    [prompt] = prompts((7,))

    async def both() -> list[list[Response]]:
        return await asyncio.gather(
            sampler.generate(prompt, max_tokens=5, key=(0,), until=lambda tokens: False),
            sampler.generate(prompt, max_tokens=5, key=(0,), until=lambda tokens: len(tokens) == 3),
        )

    [([never], [third])] = sampler.run([both()])
    assert (never.stop_reason, len(never.tokens)) == ("length", 5)  # not even the sampler's own ends end it
    assert (third.stop_reason, third.tokens) == ("stop", never.tokens[:3])


def test_processors_and_changing_temperatures_are_part_of_what_is_recorded(tiny_model: Path) -> None:
    sampler = LocalSampler(split_model(load_tiny(tiny_model).model), eos=())
    a, b = prompts((7, 4))
    allowed = torch.arange(10, 20)

    def only(logits: torch.Tensor, so_far: Any) -> torch.Tensor:
        assert logits.shape[0] == len(so_far)
        mask = torch.full_like(logits, -torch.inf)
        mask[:, allowed] = 0
        return logits + mask

    def cooler(logits: torch.Tensor) -> torch.Tensor:
        return 0.5 + torch.distributions.Categorical(logits=logits).entropy() / 10

    requests: list[Request] = [(b, 3, 15, 1.0, (1,))]
    alone = ask(sampler, requests)[0]
    [narrow], [hot], beside = sampler.run(
        [
            sampler.generate(a, max_tokens=15, key=(0,), processor=only),
            sampler.generate(a, max_tokens=15, key=(0,), temperature=cooler),
            sampler.generate(b, n=3, max_tokens=15, key=(1,)),
        ]
    )
    assert set(narrow.tokens) <= set(allowed.tolist())
    assert all(h <= math.log(10) + 1e-9 for h in narrow.entropy)
    assert len(set(hot.heat)) == 15 and all(0.5 < h < 1.1 for h in hot.heat)
    assert max(differences(sampler, [(a, 1, 15, 1.0, (0,))], [[hot]])) < 1e-12, "the trainer takes each at its own"
    assert [r.tokens for r in beside] == [r.tokens for r in alone]


@pytest.mark.parametrize("request_", [{"n": 0}, {"tokens": ()}, {"n": 2, "resume": Response([], [], [])}])
def test_a_request_for_nothing_is_refused(request_: dict[str, Any], tiny_model: Path) -> None:
    sampler = LocalSampler.of(load_tiny(tiny_model))
    with pytest.raises(ValueError, match="at least one of each is needed"):
        sampler.run([sampler.generate(**({"tokens": (7,), "max_tokens": 3, "key": (0,)} | request_))])


# Ways of decoding


WAYS: dict[str, type[Stepper]] = dict.fromkeys(UNUSUAL, Level) | {
    "rwkv": Whole, "recurrent_gemma": Whole, "mpt": Flight, "modernbert-decoder": Flight,
}  # fmt: skip
"""How unusual families are decoded."""


@pytest.mark.parametrize("family", UNUSUAL)
def test_unusual_families_are_decoded_right_and_a_slow_way_is_said(family: str) -> None:
    """Everything that a request may ask for holds in every way of decoding."""
    kind, model = WAYS[family], unusual_model(family)
    sampler = LocalSampler(split_model(model), eos=(2, 3, 4), max_rows=7)
    assert type(sampler.stepper) is kind
    assert ("draws slowly" in sampler.slow) == (kind is not Flight)
    requests = [(p, 3, 12, 0.7, (i,)) for i, p in enumerate(prompts((1, 4, 21, 7), vocab=41))]
    groups = ask(sampler, requests)
    assert max(differences(sampler, requests, groups)) < 2e-4
    [prompt, *_], written = requests[2], groups[2][1]
    whole = model(input_ids=torch.tensor([[*prompt, *written.tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    logp = (whole / 0.7).log_softmax(-1).gather(-1, torch.tensor(written.tokens)[:, None])[:, 0]
    torch.testing.assert_close(logp, torch.tensor(written.logp), rtol=0, atol=2e-4)
    [alone] = ask(sampler, [requests[2]])
    assert [r.tokens for r in alone] == [r.tokens for r in groups[2]], "whatever else is in flight"
    [[stopped]] = sampler.run(
        [sampler.generate(prompt, max_tokens=9, key=(9,), forced=(7, 8, 9), stop=((8, 9),), temperature=0.0)]
    )
    assert (stopped.tokens, stopped.stop_reason) == ([7, 8, 9], "stop")
    [[cut]] = sampler.run([sampler.generate(prompt, max_tokens=2, key=(5,), keep=True)])
    [[joined]] = sampler.run([sampler.generate(prompt, max_tokens=4, key=(5,), resume=cut)])
    [[straight]] = sampler.run([sampler.generate(prompt, max_tokens=6, key=(5,))])
    assert joined.tokens == straight.tokens


def test_a_place_in_a_slow_way_is_taken_when_its_batch_has_ended() -> None:
    sampler = LocalSampler(split_model(unusual_model("mamba")), eos=(2,), max_rows=3)
    with mock.patch.object(sampler, "_draw", wraps=sampler._draw) as draw:
        requests = [((5, 6), 4, 6, 1.0, (0,)), ((7,), 3, 2, 1.0, (1,))]
        groups = ask(sampler, requests)
    assert [len(group) for group in groups] == [4, 3]
    assert draw.call_count <= 6 + 6 + 2
    assert max(differences(sampler, requests, groups)) < 1e-4


def test_a_model_whose_cache_takes_no_mask_is_decoded_without_one() -> None:
    model = family_model("llama")
    split = split_model(model)
    forward = model.model.forward

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **{k: v for k, v in kwargs.items() if k != "attention_mask"})

    with mock.patch.object(model.model, "forward", forgetful):
        sampler = LocalSampler(split, eos=(2,))
        assert type(sampler.stepper) is Level
        assert sampler.slow.startswith(
            "LlamaModel in torch.float32 gives other probabilities step by step than at once"
        )
    assert type(LocalSampler(split, eos=(2,)).stepper) is Lean
    assert LocalSampler(split, eos=(2,)).computed == 0


def test_a_window_that_no_probe_can_reach_is_not_trusted() -> None:
    """A proof that stops short of a window would prove nothing."""
    model = unusual_model("gpt_neo", window_size=100)
    with mock.patch("policyopt.models.proof._CPU", 0.0):
        sampler = LocalSampler(split_model(model), eos=(2,))
    assert type(sampler.stepper) is Level
    assert "has a window (window_size) that is too long to be proven right" in sampler.slow


def test_a_model_that_no_way_of_decoding_fits_is_refused_with_the_reasons() -> None:
    model = family_model("llama")
    forward, calls = model.model.forward, iter(range(10_000))

    def restless(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.last_hidden_state = out.last_hidden_state.roll(next(calls) % 3, -1)
        return out

    split = split_model(model)
    with mock.patch.object(model.model, "forward", restless):
        with pytest.raises(
            UserError, match=r"LlamaModel cannot be sampled from \(LlamaModel in torch\.float32 gives other"
        ):
            LocalSampler(split, eos=(2,))


def test_activations_that_overflow_are_called_that() -> None:
    split = split_model(family_model("qwen3", torch.float16))
    with mock.patch.object(split.hidden, "forward", wraps=split.hidden.forward) as forward:
        out = split.hidden(input_ids=torch.tensor([[1]]), use_cache=False)
        out.last_hidden_state = out.last_hidden_state * torch.inf
        forward.side_effect = lambda *args, **kwargs: out
        with pytest.raises(UserError, match=r"not finite .* it overflows in float16: take --dtype bfloat16 or float32"):
            LocalSampler(split, eos=(2,))
