"""What a program gets from vLLM is what it would get from the engine's own sampler, as far as vLLM can give it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.engine.settings import Vllm
from policyopt.engine.vllm import open_sampler
from policyopt.engine.vllm.sampler import VllmSampler
from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.load import Policy
from policyopt.models.prompting import Prompting
from policyopt.recipe import Recipe
from policyopt.sources.program import Response
from policyopt.sources.truncation import Truncation
from tests.engine.vllm.double import Double, served
from tests.tiny import ENDS, load_tiny

PROMPT = (7, 8, 9, 10)


@pytest.fixture
def reach(tiny_model: Path) -> Iterator[Callable[..., tuple[VllmSampler, Double, Policy]]]:
    """Makes a sampler on a double."""
    left = []

    def reached(recipe: Recipe | None = None, masks: bool = False, stop: tuple[str, ...] = ()) -> Any:
        policy = load_tiny(tiny_model, "float32", prompting=Prompting(stop=stop))
        double = Double(tiny_model, masks=masks)
        server = served(double)
        url, _ = server.__enter__()
        sampler = open_sampler(Vllm(url=url, rows=8), recipe or grpo())(policy, policy.likelihood())
        left.append((sampler, server))
        return sampler, double, policy

    yield reached
    for sampler, server in left:
        sampler.close()
        server.__exit__(None, None, None)


def whole(policy: Policy, response: Response) -> torch.Tensor:
    """Log-probabilities [T, V] of each next token at the temperature of a response, the plain way."""
    ids = torch.tensor([[*PROMPT, *response.tokens]])
    with torch.no_grad():
        logits = policy.model(input_ids=ids).logits[0, len(PROMPT) - 1 : -1]
    return (logits / response.temperature).log_softmax(-1)


def gap(policy: Policy, response: Response) -> float:
    found = whole(policy, response).gather(-1, torch.tensor(response.tokens)[:, None])[:, 0]
    return float((found - torch.tensor(response.logp)).abs().max())


def test_tokens_and_log_probabilities(reach: Callable[..., Any]) -> None:
    sampler, double, policy = reach()
    assert isinstance(sampler, VllmSampler)
    asked = [
        sampler.generate(PROMPT, n=3, max_tokens=9, temperature=t, key=(1, i)) for i, t in enumerate((1.0, 0.7, 0.0))
    ]
    groups = sampler.run(asked)
    for group, t in zip(groups, (1.0, 0.7, 1.0), strict=True):
        for r in group:
            assert gap(policy, r) < 1e-5
            assert r.temperature == t
            assert r.stop_reason == ("eos" if r.tokens[-1] in ENDS else "length")
            assert r.versions == [0] * len(r.tokens) and r.support == [] and r.top == []
            assert all(map(math.isnan, r.entropy)) and len(r.entropy) == len(r.tokens)
    assert len({tuple(r.tokens) for r in groups[0]}) == 3, "each response has a seed of its own"
    assert len({tuple(r.tokens) for r in groups[2]}) == 1, "greedy"
    assert sampler.drawn == sum(len(r.tokens) for g in groups for r in g)
    assert sampler.computed == sampler.drawn + 9 * len(PROMPT) + 32 + 1, "with the text that proves the weights"
    again = sampler.run([sampler.generate(PROMPT, n=3, max_tokens=9, key=(1, 0))])[0]
    assert [r.tokens for r in again] == [r.tokens for r in groups[0]], "the key says what is drawn"
    assert double.calls.count("/update_weights") == 1, "the weights are the same"


def test_the_likeliest_tokens(reach: Callable[..., Any]) -> None:
    sampler, _, policy = reach()
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=5, top=3, key=(1,))])
    best = whole(policy, r).topk(3)
    assert [ids for ids, _ in r.top] == best.indices.tolist()
    assert torch.allclose(torch.tensor([x for _, x in r.top]), best.values, atol=1e-5)


def test_stop_sequences_of_several_tokens(reach: Callable[..., Any]) -> None:
    sampler, double, _ = reach()
    [[free]] = sampler.run([sampler.generate(PROMPT, max_tokens=24, temperature=2.0, key=(6,))])
    assert len(free.tokens) > 6
    other = (free.tokens[4] + 1, free.tokens[5])  # its last token comes up, the sequence does not
    double.seeds.clear()
    stops = [tuple(free.tokens[2:4]), other]
    first = next(i for i in range(1, 5) if free.tokens[i] in (stops[0][1], other[1]))
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=24, temperature=2.0, key=(6,), stop=stops)])
    assert r.tokens[: first + 1] == free.tokens[: first + 1]
    assert (r.stop_reason == "stop" and tuple(r.tokens[-2:]) in stops) or r.finished or len(r.tokens) == 24
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=24, temperature=2.0, key=(6,), stop=[(free.tokens[3],)])])
    assert r.stop_reason == "stop" and r.tokens[-1] == free.tokens[3]
    lone = [(5, free.tokens[3])]
    double.seeds.clear()
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=8, temperature=2.0, key=(6,), stop=lone)])
    assert r.tokens[:4] == free.tokens[:4] and len(r.tokens) > 4, "half a sequence is no end"
    assert len(set(double.seeds)) > 1, "what goes on has another seed"


def test_stop_texts_of_the_run(reach: Callable[..., Any]) -> None:
    sampler, _, policy = reach()
    [free] = sampler.run([sampler.generate(PROMPT, n=8, max_tokens=20, temperature=2.0, key=(3,))])
    long = max(free, key=lambda r: len(r.tokens))
    word = policy.text.decode(long.tokens[1:3])
    mine, _, _ = reach(stop=(word,))
    [found] = mine.run([mine.generate(PROMPT, n=8, max_tokens=20, temperature=2.0, key=(3,))])
    r = found[free.index(long)]
    assert r.tokens == long.tokens[:3] and r.finished


def test_resume_goes_on_in_place(reach: Callable[..., Any]) -> None:
    sampler, double, policy = reach()
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=2, temperature=2.0, key=(9,))])
    assert r.stop_reason == "length"
    before, sampler.version = list(r.tokens), 3
    double.seeds.clear()
    [[same]] = sampler.run([sampler.generate(PROMPT, max_tokens=4, temperature=2.0, key=(9,), resume=r)])
    assert same is r and r.tokens[:2] == before and 2 < len(r.tokens) <= 6
    assert r.versions == [0, 0] + [3] * (len(r.tokens) - 2)
    assert gap(policy, r) < 1e-5


def test_forced_tokens_and_scores(reach: Callable[..., Any]) -> None:
    sampler, _, policy = reach()
    own = LocalSampler.of(policy)
    how: dict[str, Any] = {"max_tokens": 8, "key": (4,), "forced": (11, 12, 13)}
    [[r]] = sampler.run([sampler.generate(PROMPT, **how)])
    assert r.tokens[:3] == [11, 12, 13] and len(r.tokens) > 3 and gap(policy, r) < 1e-5
    [[r]] = sampler.run([sampler.generate(PROMPT, **(how | {"forced": (11, ENDS[0], 13)}))])
    assert r.tokens == [11, ENDS[0]] and r.finished, "a given end is an end"
    for text in ((11, 12), (11, ENDS[0])):
        [mine], [theirs] = (s.run([s.logprobs(PROMPT, text, temperature=1.0)]) for s in (sampler, own))
        assert torch.allclose(torch.tensor(mine.logp), torch.tensor(theirs.logp), atol=1e-5)
        assert (mine.tokens, mine.stop_reason, mine.versions) == (theirs.tokens, theirs.stop_reason, theirs.versions)


def test_truncated_draws_say_what_they_were_drawn_from(reach: Callable[..., Any]) -> None:
    sampler, _, policy = reach(grpo().set("source.top_p", 0.8), masks=True)
    cut = Truncation(top_p=0.8)
    [[r], [greedy], [free]] = sampler.run(
        [
            sampler.generate(PROMPT, max_tokens=9, key=(1,), truncation=cut),
            sampler.generate(PROMPT, max_tokens=9, temperature=0, key=(1,), truncation=cut),
            sampler.generate(PROMPT, max_tokens=9, key=(1,)),
        ]
    )
    logp = whole(policy, r)
    for at, (token, support) in enumerate(zip(r.tokens, r.supports, strict=True)):
        assert token in support and list(support) == sorted(support)
        assert float(logp[at, support].exp().sum()) >= 0.8
        assert r.logp[at] == pytest.approx(float(logp[at, token] - logp[at, support].logsumexp(0)), abs=1e-5)
    assert any(1 < len(s) < 102 for s in r.supports)
    assert gap(policy, greedy) < 1e-5, "greedy tokens have the log-probability that they have at temperature 1"
    assert free.support == [] and gap(policy, free) < 1e-5, "all 102 tokens are among 1024"


def test_what_vllm_cannot_do_is_refused(reach: Callable[..., Any]) -> None:
    sampler, _, _ = reach()
    for how in (
        {"processor": lambda logits, rows: logits},
        {"temperature": lambda logits: logits[:, 0]},
        {"forced": (5,), "temperature": 0.5},
        {"forced": (5,), "truncation": Truncation(top_k=3)},
    ):
        with pytest.raises(UserError, match="--sampler own"):
            sampler.run([sampler.generate(PROMPT, max_tokens=2, key=(1,), **how)])
    with pytest.raises(UserError, match="temperature 1"):
        sampler.run([sampler.logprobs(PROMPT, (5,), temperature=0.5)])
    with pytest.raises(ValueError, match="at least one"):
        sampler.run([sampler.generate((), max_tokens=2, key=(1,))])


def test_within_a_loop_that_runs(reach: Callable[..., Any]) -> None:
    sampler, _, _ = reach()

    async def cell() -> int:
        [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=2, key=(1,))])
        return len(r.tokens)

    assert asyncio.run(cell()) == 2


def test_an_error_in_a_program_ends_the_run(reach: Callable[..., Any]) -> None:
    sampler, double, _ = reach()

    async def broken() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        sampler.run([sampler.generate(PROMPT, max_tokens=2, key=(1,)), broken()])
    [[r]] = sampler.run([sampler.generate(PROMPT, max_tokens=2, key=(1,))])
    assert len(r.tokens) == 2 and not double.paused
