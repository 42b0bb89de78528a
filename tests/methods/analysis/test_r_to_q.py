"""The page of r-to-q."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.lens.case import token_logp
from policyopt.methods.analysis.r_to_q import BeamSearch, ImplicitOrder, TokenCredit, r_to_q
from policyopt.parts import SoftValue
from policyopt.rows import FIXED, Batch, make_batch
from policyopt.sources.program import Context, Question, Response


def response(q: Tensor, ref: Tensor, tokens: Tensor, part: TokenCredit) -> Batch:
    """One row whose policy has the logits q over beta."""
    beta = part.beta
    batch = make_batch(
        mask=torch.ones(1, len(tokens)).double(),
        old_logp=token_logp(q / beta, tokens)[None],
        ref_logp=token_logp(ref, tokens)[None],
    )
    return batch.with_statistics({FIXED + s.key: s(q / beta, tokens, {})[None] for s in part.fixed})


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_rewards_add_up_to_the_first_value_and_the_credit(beta: float) -> None:
    chance = torch.Generator().manual_seed(3)
    q, ref = (torch.randn(5, 7, generator=chance).double() for _ in range(2))
    tokens = torch.randint(7, (5,), generator=chance)
    part = TokenCredit(of="policy", beta=beta, potential=True)
    batch = response(q, ref, tokens, part)
    reward, credit = part(batch).token_reward, part.credit(batch)
    value = SoftValue(beta=beta)(q / beta, tokens, {})
    torch.testing.assert_close(reward.sum(), value[0] + credit.sum())
    # The Bellman equation: Q is the reward, what the reference says, and the next value.
    following = torch.cat([value[1:], torch.zeros(1).double()])
    expected = reward[0] + beta * token_logp(ref, tokens) + following
    torch.testing.assert_close(q.gather(1, tokens[:, None])[:, 0], expected)


def test_a_constant_on_the_logits_of_a_state_moves_values_and_rewards_and_no_credit() -> None:
    chance = torch.Generator().manual_seed(4)
    q, ref = (torch.randn(4, 5, generator=chance).double() for _ in range(2))
    tokens, part = torch.tensor([0, 3, 2, 4]), TokenCredit(of="policy", beta=0.5, potential=True)
    shifted = q + torch.tensor([0.0, 2.0, 0.0, -1.0]).double()[:, None]
    one, other = response(q, ref, tokens, part), response(shifted, ref, tokens, part)
    torch.testing.assert_close(part.credit(one), part.credit(other))
    moved = (part(other).token_reward - part(one).token_reward)[0]
    torch.testing.assert_close(moved, torch.tensor([-2.0, 2.0, 1.0, -1.0]).double())


def test_a_planted_wrong_token_has_the_lowest_credit() -> None:
    logp = torch.tensor([[-0.1, -6.0, -0.2, 0.0]]).double()
    batch = make_batch(
        mask=torch.tensor([[1.0, 1, 1, 0]]).double(), ref_logp=torch.full((1, 4), -1.0).double(),
        token_reward=torch.tensor([[0.0, 1, 0, 0]]).double(), teacher_logp=logp,
    )  # fmt: skip
    credit = TokenCredit(beta=0.5).credit(batch)
    assert credit.argmin().item() == 1 and credit[0, 1].item() == -2.5 and credit[0, 3].item() == 0
    torch.testing.assert_close(TokenCredit(beta=0.5)(batch).token_reward, credit + batch.token_reward)


def test_the_probe_compares_within_prompts() -> None:
    reward = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    log_ratio = torch.tensor([[2.0, 1.0, 3.0], [9.0, 0.0, 0.0]])
    (probe,) = r_to_q(beta=0.5)
    assert probe.samples(reward, log_ratio) == {
        "implicit/accuracy": 0.5, "implicit/better": 1.0, "implicit/worse": 1.0
    }  # fmt: skip
    assert ImplicitOrder().samples(reward[1:], log_ratio[1:]) == {}, "nothing to compare"


LANGUAGE = {(): {1: 0.6, 2: 0.4}, (1,): {1: 0.4, 2: 0.35, 0: 0.25}, (2,): {0: 0.9, 1: 0.1}}
"""Next tokens by what was written; 0 ends. The likeliest first token does not begin the likeliest response."""


class Written:
    """A sampler that knows its language, and says what is likeliest."""

    async def generate(self, tokens: Sequence[int], *, top: int, **_: Any) -> list[Response]:
        known = LANGUAGE.get(tuple(tokens[1:]), {0: 1.0})
        ranked = sorted(known, key=lambda t: -known[t])[:top]
        logps = [float(torch.tensor(known[t]).double().log()) for t in ranked]
        first = ranked[0]
        return [Response([first], logps[:1], [0.0], "length" if first else "eos", top=[(ranked, logps)], versions=[0])]


@pytest.mark.parametrize(("width", "found"), [(1, [1, 1, 0]), (2, [2, 0])])
def test_a_beam_finds_what_greedy_decoding_misses(width: int, found: list[int]) -> None:
    question, context = Question((9,), 8, (0, 0, 0)), Context(Written(), end=(0,))  # type: ignore[arg-type]
    [best] = asyncio.run(BeamSearch(width=width).draw(question, context))
    assert best.tokens == found and best.finished


def test_a_beam_stays_within_the_budget() -> None:
    question, context = Question((9,), 1, (0, 0, 0)), Context(Written(), end=(0,))  # type: ignore[arg-type]
    rows = asyncio.run(BeamSearch(width=2, size=2).draw(question, context))
    assert [r.tokens for r in rows] == [[1], [2]] and not any(r.finished for r in rows)
