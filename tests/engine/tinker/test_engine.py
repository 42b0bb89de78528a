"""The engine of a Tinker server against the local one, on a server of this library."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.group.grpo import grpo
from policyopt.models.prompting import Prompting
from policyopt.recipe import Recipe
from tests.engine.tinker.agreement import RECIPES, SMOOTH, apart, drawn, logp
from tests.engine.tinker.conftest import SECRET

PLAIN = grpo(group_size=4, kl_coef=0.0)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_weights_gradients_and_steps_are_those_of_the_local_engine(
    open_on: Callable[..., Any], tmp_path: Path, recipe: Recipe
) -> None:
    settings = SMOOTH | {"clip_norm": 0.1}
    found = apart(open_on(recipe, **settings), recipe, tmp_path, **settings)
    assert max(found.values()) < 1e-3, found


def test_words_of_others_are_read_and_never_trained_on(open_on: Callable[..., Any], tmp_path: Path) -> None:
    far = open_on(PLAIN, **SMOOTH)
    assert max(apart(far, PLAIN, tmp_path, 1, gaps=True, **SMOOTH).values()) < 1e-3


def test_nothing_changes_where_the_loss_is_not_finite(open_on: Callable[..., Any]) -> None:
    far = open_on(PLAIN, lr=1e-3)
    batch = drawn(far, PLAIN)
    before = logp(far, batch)
    report = far.update(PLAIN, batch.replace(advantage=batch.advantage * math.nan))
    assert not report.applied
    assert far.version == 0
    assert torch.equal(logp(far, batch), before)


def draw(engine: Any, *prompts: tuple[int, ...], **how: Any) -> list[Any]:
    how = {"n": 2, "max_tokens": 10} | how
    requests = [engine.sampler.generate(p, key=(3, i), **how) for i, p in enumerate(prompts)]
    return [r for group in engine.sampler.run(requests) for r in group]


def test_what_is_drawn_has_the_log_probabilities_of_the_trainer(open_on: Callable[..., Any]) -> None:
    far = open_on(PLAIN, lr=3e-2)
    for _ in range(2):
        asked = ((11, 30, 40), (12, 13, 14, 15, 16, 17))
        answers = draw(far, *asked)
        again = draw(far, *asked)
        assert [r.tokens for r in answers] == [r.tokens for r in again], "the same key draws the same tokens"
        assert all(r.versions == [far.version] * len(r.tokens) for r in answers)
        prompts = [p for p in asked for _ in range(2)]
        read = far.sampler.score(list(zip(prompts, [r.tokens for r in answers], strict=True)))
        for r, scored in zip(answers, read, strict=True):
            assert r.logp == pytest.approx(scored, abs=1e-4)
            assert all(map(math.isnan, r.entropy))
        assert far.update(PLAIN, drawn(far, PLAIN)).applied


def test_a_response_ends_where_it_is_told_to(open_on: Callable[..., Any]) -> None:
    far = open_on(PLAIN)
    [free] = draw(far, (11, 30, 40), n=1, max_tokens=8)
    assert len(free.tokens) > 3
    one, two = free.tokens[2], free.tokens[1:3]
    [single] = draw(far, (11, 30, 40), n=1, max_tokens=8, stop=[[one]])
    [double] = draw(far, (11, 30, 40), n=1, max_tokens=8, stop=[two])
    place = free.tokens.index(one) + 1
    assert (single.tokens, single.stop_reason) == (free.tokens[:place], "stop")
    assert (double.tokens, double.stop_reason) == (free.tokens[:3], "stop")
    assert double.logp == pytest.approx(free.logp[:3], abs=1e-4)
    word = far.text.decode(two)
    told = open_on(PLAIN, {"prompting": Prompting(stop=(word,))})
    [text] = draw(told, (11, 30, 40), n=1, max_tokens=8)
    assert text.finished
    assert word in told.text.decode(text.tokens)
    assert word not in told.text.decode(text.tokens[:-1])


def test_a_response_begins_as_it_is_told_to_and_goes_on(open_on: Callable[..., Any]) -> None:
    far = open_on(PLAIN)
    answers = draw(far, (11, 30, 40), max_tokens=6, forced=(50, 51))
    assert all(r.tokens[:2] == [50, 51] and len(r.tokens) <= 6 for r in answers)
    [[scored]] = [far.sampler.score([((11, 30, 40), r.tokens)]) for r in answers[:1]]
    assert answers[0].logp == pytest.approx(scored, abs=1e-4)
    [ended] = draw(far, (11, 30, 40), n=1, max_tokens=6, forced=(50, 2, 51))
    assert (ended.tokens, ended.stop_reason) == ([50, 2], "eos"), "what stands behind an end token is not there"
    [cut] = draw(far, (11, 30, 40), n=1, max_tokens=1)
    if cut.stop_reason == "length":
        [whole] = draw(far, (11, 30, 40), n=1, max_tokens=4, resume=cut)
        assert whole is cut
        assert 1 < len(whole.tokens) <= 5
        assert whole.logp == pytest.approx(far.sampler.score([((11, 30, 40), whole.tokens)])[0], abs=1e-4)


def test_what_is_not_declared_is_refused(open_on: Callable[..., Any]) -> None:
    far = open_on(PLAIN)
    for asked in (
        {"top": 3},
        {"temperature": lambda logits: logits[:, 0]},
        {"processor": lambda logits, tokens: logits},
    ):
        with pytest.raises(ValueError, match="takes no functions of logits"):
            draw(far, (11, 30, 40), **asked)
    with pytest.raises(ValueError, match="scores at temperature 1"):
        asyncio.run(far.sampler.logprobs((11, 30), (40,), temperature=0.5))


def test_the_server_decides_about_its_adapters(open_on: Callable[..., Any], tiny_model: Path) -> None:
    from policyopt.models.adapters import LoRA

    with pytest.raises(UserError, match=r"--adapters.alpha 8.*the server decides"):
        open_on(PLAIN, {"lora": LoRA(alpha=8.0)})


def test_a_model_that_is_not_served_is_refused_with_those_that_are(
    open_on: Callable[..., Any], tiny_model: Path, url: str, tmp_path: Path
) -> None:
    from policyopt.engine import Model, Models, open_engine
    from policyopt.engine.settings import Server
    from tests.tiny import save_tiny_model

    other = save_tiny_model(tmp_path / "other")
    with pytest.raises(UserError, match=f"does not serve the model {other}; it serves {tiny_model}") as found:
        open_engine("tinker", Models(Model(str(other))), PLAIN, {"tinker": Server(base_url=url)})
    assert SECRET not in str(found.value)


def test_a_checkpoint_brings_back_adapters_and_optimiser(open_on: Callable[..., Any], tmp_path: Path) -> None:
    first = open_on(PLAIN, lr=1e-3)
    batch = drawn(first, PLAIN)
    first.update(PLAIN, batch)
    first.write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["server.json"]
    assert SECRET not in (tmp_path / "server.json").read_text()
    first.update(PLAIN, batch)
    wanted = logp(first, batch)
    second = open_on(PLAIN, lr=1e-3)
    second.read(tmp_path, 1)
    assert second.version == 1
    second.update(PLAIN, batch)
    assert torch.equal(logp(second, batch), wanted)
    with pytest.raises(KeyError):
        second.read(tmp_path / "none", 1)
    third = open_on(PLAIN, {"lora": dataclasses.replace(second.lora, rank=2)})
    with pytest.raises(KeyError, match="rank 4"):
        third.read(tmp_path, 1)
