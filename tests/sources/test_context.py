"""A program finds the services that it declares, and no others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import policyopt
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.part import part
from policyopt.registry import get_method, methods
from policyopt.sources.draw import Group
from policyopt.sources.program import SERVICES, Context, Question, Response
from tests.asking import ask
from tests.commands import write_sums

CALLS: dict[str, Any] = {
    "judge": lambda context: asyncio.run(context.judge([Response([1], [0.0], [0.0])])),
    "critic": lambda context: asyncio.run(context.values([Response([1], [0.0], [0.0])])),
    "sampler_of[old]": lambda context: context.sampler_of("old"),
}


async def judge(responses: Sequence[Response]) -> list[Verdict]:
    return [Verdict(1.0, True, True, "") for _ in responses]


async def critic(responses: Sequence[Response]) -> list[float]:
    return [0.5 for _ in responses]


@part
class All(Group):
    uses: ClassVar[frozenset[str]] = frozenset(CALLS)


@pytest.mark.parametrize("service", CALLS)
def test_a_service_that_is_not_declared_is_named(service: str) -> None:
    _, context = ask(None, (1,), 4, (0,), judge, critic=critic, samplers={"old": None}, program=Group())
    with pytest.raises(UserError, match=f"Group asks for '{re.escape(service)}', which it does not declare: add"):
        CALLS[service](context)
    _, context = ask(None, (1,), 4, (0,), judge, critic=critic, samplers={"old": None}, program=All())
    CALLS[service](context)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("judge", "cannot stand in recipe.decode"),
        ("critic", "there is no critic: set recipe.critic"),
        ("sampler_of[old]", "no model: name one with --role old=PATH"),
    ],
)
def test_a_service_that_is_declared_and_not_there(service: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CALLS[service](ask(None, (1,), 4, (0,), program=All())[1])


def test_words_need_a_tokenizer() -> None:
    _, context = ask(None, (1,), 4, (0,))
    for call in (lambda: context.encode("a"), lambda: context.asked("a"), lambda: context.lines([1])):
        with pytest.raises(UserError, match="without a tokenizer"):
            call()


def test_solutions_that_are_not_declared_are_withheld_in_a_run(tiny_model: Path, tmp_path: Path) -> None:
    class Peeking(Group):
        async def draw(self, question: Question, context: Context) -> list[Response]:
            assert question.solution is not None
            return await super().draw(question, context)

    class Judging(Group):
        async def draw(self, question: Question, context: Context) -> list[Response]:
            group = await super().draw(question, context)
            await context.judge(group)
            return group

    task = str(write_sums(tmp_path / "sums.jsonl"))
    for program, message in ((Peeking(size=2), "asks for 'solutions'"), (Judging(size=2), "Judging asks for 'judge'")):
        recipe = grpo(group_size=2).replace(source=program)
        with pytest.raises(UserError, match=message):
            policyopt.train(recipe, model=str(tiny_model), task=task, steps=1, batch=4, max_tokens=8, quiet=True,
                            out=tmp_path / type(program).__name__)  # fmt: skip


def test_services_are_checked_when_the_recipe_is_made() -> None:
    @part
    class Misspelt(Group):
        uses: ClassVar[frozenset[str]] = frozenset({"jugde"})

    with pytest.raises(ValueError, match=r"Misspelt uses 'jugde', which is no service; .*judge"):
        grpo().replace(source=Misspelt())
    with pytest.raises(ValueError, match=r"decode .All. asks the judge"):
        grpo().replace(decode=All())


def test_methods_declare_services_that_there_are() -> None:
    for name in methods():
        recipe = get_method(name)()
        for program in filter(None, (recipe.source, recipe.decode)):
            assert {re.sub(r"\[.+\]", "[NAME]", service) for service in program.uses} <= SERVICES.keys(), name
