"""The world ``calculator``: products that are too large for one's head, and a tool that works them out."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from policyopt.environments.objects import ToolWorld
from policyopt.environments.tools import Tool, tool_of
from policyopt.environments.world import Action, Observation
from policyopt.environments.worlds.told import Told
from policyopt.judging.answers import answer_line, find_answer

_LONGEST = 64
"""Characters of an expression that are read."""
_PRODUCT = re.compile(r"\d{1,6}|[+*-]")


def calc(e: str) -> int:
    """The value of sums and products of whole numbers, such as 12*34+5."""
    found = _PRODUCT.findall(e[:_LONGEST])
    if len(e) > _LONGEST or "".join(found) != e.replace(" ", ""):
        raise ValueError("expected whole numbers with + - * between them")
    total, product, sign, wants = 0, 1, 1, True
    for word in found:
        if word.isdigit() != wants:
            raise ValueError("expected a number and a sign by turns")
        if wants:
            product *= int(word)
        elif word != "*":
            total, product, sign = total + sign * product, 1, -1 if word == "-" else 1
        wants = not wants
    if wants:
        raise ValueError("it ends with a sign")
    return total + sign * product


CALC: Tool = tool_of(calc)


def call(expression: str) -> str:
    """A call of the tool, as the policy writes it."""
    return json.dumps({"name": "calc", "arguments": {"e": expression}}, separators=(",", ":"))


class Calculator(Told):
    """Two turns: call ``calc``, then answer with what it says; a text without a call is the answer, which is worth 1 where it is right.

    Calls that go wrong are answered with what was wrong, and cost one of four turns. ``numbers``: ``tool_calls``, ``tool_errors``. The state is the
    product and what the tool said last.

    A sound method learns to call the tool, from a start at which more than half of the answers are rough estimates, made at once.
    """

    summary: ClassVar[str] = "products with a calculator to call (an environment): 37*24=?"
    rules: ClassVar[str] = (
        'Call the calculator with a line of this form and nothing else: {"name":"calc","arguments":{"e":"12*34"}}. '
        "When you know the answer, write it behind ####."
    )
    tools = (CALC,)
    turns = 4
    max_tokens: int = 128
    warm_start: Mapping[str, Any] = {"steps": 600, "examples": 3072, "terse": 1.0, "lessons": 3.0}

    def begin(self, chance: random.Random) -> None:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        self.expression = f"{chance.randint(12, 99)}*{chance.randint(12, 99)}"
        self.result = ""

    def question(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{self.expression}=?"

    def answer(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return str(calc(self.expression))

    def state(self) -> str:
        """See :class:`~policyopt.environments.worlds.told.Told`."""
        return f"{self.expression} {self.result}"

    async def step(self, action: Action) -> Observation:  # type: ignore[override]
        """A call is answered; a text without one is the answer: 1 where it is right."""
        said = await ToolWorld(self.tools).step(action)
        if not said.done:
            self.result = said.messages[0]["content"]
            return Observation(messages=said.messages, state=self.state(), numbers=said.numbers)
        right = find_answer(action) == self.answer()
        return Observation(
            reward=float(right), done=True, correct=right, reason=f"{find_answer(action)!r} against {self.answer()!r}"
        )

    def shown(self, chance: random.Random) -> str:
        """A call with the expression, then the answer."""
        return answer_line(self.result) if self.result else call(self.expression)

    def hasty(self, chance: random.Random) -> str | None:
        """A rough estimate: the product of the tens."""
        first, second = (int(number) // 10 * 10 for number in self.expression.split("*"))
        return answer_line(str(first * second))
