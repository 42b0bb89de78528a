"""The page of Prefix Grouper: a prompt that passes once leaves hidden states and gradients of rows alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import policyopt.models.packed as packed
from policyopt.methods.systems.prefix_grouper import prefix_grouper
from policyopt.models.causal import SplitModel
from policyopt.models.packed import packed_hidden
from policyopt.rows import Batch, make_batch
from tests.tiny import exact, family_model

PROMPT = [7, 21, 3, 33, 12, 9, 40, 15]
RESPONSES = [[5, 6, 8, 30, 11], [6], [28, 5, 5], [5, 6, 9, 2, 17, 19, 22]]


@pytest.fixture(scope="module", params=["qwen3", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return exact(family_model(request.param, torch.float64, scale=4.0))


def states(model: Any, responses: list[list[int]]) -> list[Tensor]:
    """The hidden states that predict each response, packed."""
    rows = [torch.tensor(PROMPT + r) for r in responses]
    places = [(i, len(PROMPT) - 1 + t) for i, r in enumerate(responses) for t in range(len(r))]
    row, position = torch.tensor(places).T
    hidden = packed_hidden(model.base_model, pad_sequence(rows, batch_first=True), row, position)
    return list(hidden.split([len(r) for r in responses]))


def alone(model: Any, response: list[int]) -> Tensor:
    ids = torch.tensor([PROMPT + response])
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[0, len(PROMPT) - 1 : -1]


def same(mine: list[Tensor], true: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(mine, true, strict=True))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_hidden_states_and_gradients_are_those_of_rows_alone(group: int, model: Any) -> None:
    """A group of one is the ordinary forward."""
    responses = RESPONSES[:group]
    found = []
    for passed in (states(model, responses), [alone(model, r) for r in responses]):
        model.zero_grad()
        sum(x.square().sum() for x in passed).backward()  # type: ignore[union-attr]
        found.append([*passed, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > 10 and same(*found)


@pytest.mark.parametrize("left", [True, False])
def test_on_whichever_side_prompts_are_padded(left: bool, model: Any) -> None:
    def of(first: list[int], pads: int, response: list[int]) -> Batch:
        padding = [0] * pads
        prompt = torch.tensor([padding + first if left else first + padding])
        there = torch.tensor([[0.0] * pads + [1.0] * len(first) if left else [1.0] * len(first) + [0.0] * pads])
        mask = (torch.arange(7) < len(response)).double()[None]
        tokens = torch.tensor([response + [0] * (7 - len(response))])
        return make_batch(mask=mask, tokens=tokens, prompt=prompt, prompt_mask=there.double())

    rows = [(PROMPT, 0, RESPONSES[0]), (PROMPT, 0, RESPONSES[3]), (PROMPT[:5], 3, RESPONSES[2])]
    split = SplitModel(model.base_model, model.get_output_embeddings(), 41, packs=128)
    batches = [of(*row) for row in rows]
    together = make_batch(
        **{
            name: torch.cat([b.columns()[name] for b in batches])
            for name in ("mask", "tokens", "prompt", "prompt_mask")
        }
    )
    apart = torch.cat([SplitModel(split.hidden, split.logits, 41).leaves(b)["logp"] for b in batches])
    assert same([split.leaves(together)["logp"]], [apart])


def test_responses_do_not_see_each_other_and_come_in_any_order(model: Any) -> None:
    first = states(model, RESPONSES)
    changed = states(model, [RESPONSES[0], [33, 34], *RESPONSES[2:]])
    assert same([changed[0], *changed[2:]], [first[0], *first[2:]])
    turned = states(model, RESPONSES[::-1])
    assert same(turned[::-1], first)


def test_positions_that_run_on_break_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = packed._planted

    def running(*args: Any) -> Any:
        forest, layout = planted(*args)
        return type(forest)(**{**vars(forest), "position": torch.arange(len(forest)).numpy()}), layout

    monkeypatch.setattr(packed, "_planted", running)
    assert not same(states(model, RESPONSES), [alone(model, r) for r in RESPONSES])


def test_the_last_token_of_the_prompt_predicts_the_first_of_every_response(model: Any) -> None:
    found = states(model, RESPONSES)
    assert all(torch.equal(x[0], found[0][0]) for x in found)
    assert not same([found[0][:1]], [alone(model, RESPONSES[0])[1:2]])


def test_costs_go_to_one_over_the_group() -> None:
    assert prefix_grouper(1, 1, 1) == prefix_grouper(50, 7, 1) and prefix_grouper(1, 1, 1).tokens == 1
    long = prefix_grouper(10**6, 10, 8)
    assert long.attention == pytest.approx(1 / 8, rel=1e-3) and long.tokens == pytest.approx(1 / 8, rel=1e-3)
    pairs = 4**2 + 3 * (2 * 4 * 5 + 5 * 5)  # the prompt among itself; each response and the prompt, then itself
    assert prefix_grouper(4, 5, 3).attention == pytest.approx(pairs / (3 * 9 * 9))
