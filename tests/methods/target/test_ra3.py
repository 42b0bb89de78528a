"""The page of RA3."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.target.ra3 import Interleaved, LineCredit, kl_to_prior, opening, ra3
from policyopt.rows import make_batch
from policyopt.sources.program import Context, Question, Response

SOLUTION = "a=1\nb=2\n"


class Writes:
    """A policy that opens an intent before every second line; a fixed model to which lines of an intent are likelier."""

    def __init__(self, latents: Sequence[str]) -> None:
        self.latents, self.scored = [*latents], list[tuple[str, str]]()

    async def generate(self, tokens: Sequence[int], *, max_tokens: int, stop: Any, **_: Any) -> list[Response]:
        ids = [*map(ord, self.latents.pop(0))][:max_tokens]
        n = len(ids)
        reason: Any = "stop" if (ids[-1],) in stop else "length"
        return [Response(ids, [-1.0] * n, [0.5] * n, reason)]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        self.scored.append(("".join(map(chr, tokens)), "".join(map(chr, written))))
        n = len(written)
        return Response([*written], [-0.5] * n, [0.0] * n, "eos")


def draw(program: Interleaved, latents: Sequence[str], budget: int = 99) -> tuple[list[Response], Writes, Context]:
    policy = Writes(latents)
    context = Context(
        policy,
        program,
        samplers={"reference": policy},
        encode=lambda text: tuple(map(ord, text)),
        end=(0,),
        breaks=lambda: frozenset({10}),
    )  # type: ignore[arg-type]
    question = Question((ord("?"),), budget, (0, 0, 0), (*map(ord, SOLUTION), 0))
    return asyncio.run(program.draw(question, context)), policy, context


def text(row: Response) -> str:
    return "".join(map(chr, row.tokens))


def test_lines_follow_what_the_policy_writes_and_each_choice_is_a_step() -> None:
    [row], policy, context = draw(Interleaved(size=1, penalty=0.25), ["# one\n", "\n", "\n"])
    assert text(row) == "# one\na=1\n\nb=2\n\n\0"
    own = [chr(t) for t, mine in zip(row.tokens, row.own, strict=True) if mine]
    assert "".join(own) == "# one\n\n\n"
    assert row.columns == {"step_end": [5, 10, 15], "step_reward": [-0.5 * 4 - 0.25, -0.5 * 4, -0.5]}
    assert policy.scored[1] == ("?# one\na=1\n\n", "b=2\n")
    assert row.support[0] == (10, 35) and row.support[1] == () and row.support[10] == (10, 35)
    assert context.tally == {"lines": 3, "latents": 1}


def test_an_intent_that_is_too_long_ends_its_line_all_the_same() -> None:
    [row], _, _ = draw(Interleaved(size=1, latent=4), ["# one\n", "\n", "\n"])
    assert text(row).startswith("# on\na=1\n") and row.columns["step_end"][0] == 3  # type: ignore[index]
    assert row.own[:6] == [True] * 4 + [False] * 2


def test_what_does_not_fit_is_left_out() -> None:
    [row], _, context = draw(Interleaved(size=1), ["\n", "\n", "\n"], budget=9)
    assert text(row) == "\na=1\n" and context.tally["lines_cut"] == 1 and row.stop_reason == "length"


def test_the_text_stage_imitates_all_of_it() -> None:
    [row], policy, _ = draw(Interleaved(size=1, whole=True), ["# one\n", "\n", "\n"])
    assert text(row) == "# one\na=1\n\nb=2\n\n\0" and not row.own and not row.columns and len(policy.scored) == 1
    assert ra3(stage="text").roles == frozenset() and ra3().roles == {"reference"}


def test_the_first_token_is_one_of_two() -> None:
    logits = opening([1, 3])(torch.zeros(2, 4), [[], [7]])
    assert logits[0].exp().tolist() == [0, 1, 0, 1] and logits[1].exp().tolist() == [1] * 4
    with pytest.raises(UserError, match="mark"):
        draw(Interleaved(size=1, mark="\n#"), ["\n"])


def test_a_step_is_compared_with_the_same_line_of_the_group() -> None:
    mask = torch.tensor([[1.0, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.float64)
    batch = make_batch(
        mask=mask, group=torch.tensor([0, 0, 1]), reward=torch.zeros(3, dtype=torch.float64),
        step_reward=torch.tensor([[-2.0, -1], [-1, -4], [-3, 0]], dtype=torch.float64),
        step_end=torch.tensor([[1, 3], [0, 2], [1, -1]]),
    )  # fmt: skip
    found = LineCredit()(batch)
    assert found[0].tolist() == [1, 1, 0, 1.5, 0, 0] and found[1].tolist() == [-1, 0, -1.5, 0, 0, 0]
    assert not found[2].any(), "alone in its group"


def test_always_going_on_costs_nothing_where_the_prior_does_too() -> None:
    keep = torch.tensor([1.0, 0.5], dtype=torch.float64)
    cost = kl_to_prior(keep, torch.tensor([0.0, 3.0], dtype=torch.float64), 1.0, 8)
    assert cost[0] == 0 and cost[1] == torch.inf
    assert (kl_to_prior(torch.rand(9).double(), torch.zeros(9).double(), 0.7, 8) >= 0).all()
