"""The page of listener."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from policyopt.judging.answers import before_answer
from policyopt.methods.group.grpo import grpo
from policyopt.methods.judge.listener import Listened, listener, option_probability, options_of
from policyopt.parts import WeightedSum
from policyopt.sources.response import Response
from tests.asking import ask
from tests.batches import random_batch
from tests.methods.shared_credit import same


def codes(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def text_of(tokens: Any) -> str:
    return "".join(map(chr, tokens))


class Ear:
    """Finds A likely behind what says "a", and remembers what it has heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Any:
        self.heard.append(text_of(tokens))
        convinced = "=a" in text_of(tokens)
        return SimpleNamespace(logp=[-0.1 if (text_of(written) == "A") == convinced else -2.0] * len(written))


class Mouth:
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    async def generate(self, tokens: Any, **how: Any) -> list[Response]:
        return [Response([*codes(t)], [-1.0] * len(t), [0.0] * len(t), "eos") for t in self.texts]


def heard(
    *texts: str, question: str = "q? A:1 B:2", answer: str = "A"
) -> tuple[list[float], list[str], dict[str, float]]:
    ear, program = Ear(), Listened(size=len(texts))
    asked, context = ask(
        Mouth(*texts), codes(question), 99, (0,), text=question, answer=answer, program=program,
        samplers={"reference": ear}, encode=codes, decode=text_of,
    )  # fmt: skip
    rows = asyncio.run(program.draw(asked, context))
    return [row.columns["listened"] for row in rows], ear.heard, context.tally  # type: ignore[misc]


def test_the_listener_does_not_see_the_conclusion() -> None:
    found, said, tally = heard("x=a\n#### A", "x=a\n#### B", "x=b\n#### A", "x=a\n#### A\n#### A")
    assert found[0] == found[1] == found[3] > 0.8 > 0.2 > found[2]
    assert {*said} == {"q? A:1 B:2x=a\n#### ", "q? A:1 B:2x=b\n#### "}
    assert tally["contradicted"] == 2, "B after what says A, and A after what does not"
    for text in ("s\n<answer>A</answer>", r"s\n\boxed{A}", "s\nThe answer is A."):
        assert not before_answer(text).endswith(("A", "A.", "A</answer>"))


def test_options_in_another_order_are_as_likely() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    turned = option_probability(logits.roll(1), 0)
    assert float(turned) == pytest.approx(float(option_probability(logits, 2)))
    assert sum(float(option_probability(logits, k)) for k in range(3)) == pytest.approx(1)
    assert [options_of(q) for q in ("A) x B) y C) z", "A:1 B:2", "A:1", "what?")] == ["ABC", "AB", "", ""]


def test_a_question_without_options_is_answered_in_full() -> None:
    found, _, tally = heard("1=a\n#### 7", question="q?", answer="7")
    assert found == [pytest.approx(float(torch.tensor(-2.0).exp()))] and not tally
    assert heard("1=a", question="q?", answer="")[:2] == ([0.0], [])


def test_without_the_listener_it_is_grpo_on_format_and_accuracy() -> None:
    batch = random_batch(needs=["listened"])
    parent = grpo().replace(shape=(WeightedSum((("formatted", 1.0), ("correct", 0.5))),))
    same(listener(listener_weight=0.0), parent, batch)
    equal = batch.replace(correct=torch.ones_like(batch.reward), formatted=torch.ones_like(batch.reward))
    part = listener().shape[0]
    assert len(part(equal).reward.unique()) > 1, "equally right ones are told apart"
    other = listener(listener="ear")
    assert other.roles >= {"ear"} and "sampler_of[ear]" in other.source.uses
