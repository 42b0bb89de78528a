"""Episodes with a policy that says what a test has it say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from policyopt.environments.outside import Outside
from policyopt.environments.world import Action, Environment, Observation, observed
from policyopt.items import Example, user
from policyopt.models.text import Text
from policyopt.models.tokenizer import END, build_tokenizer
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Question, Response


@cache
def plain_text() -> Text:
    """The words of the embedded model: a token for each character."""
    tokenizer = build_tokenizer()
    return Text(tokenizer, (tokenizer.eos_token_id,))


def call(name: str, **arguments: Any) -> str:
    """A call of a tool as a model without a form of its own writes it."""
    return json.dumps({"name": name, "arguments": arguments})


class Scripted:
    """A policy whose episode ``i`` says the lines of script ``i``, then nothing; a script is used again where they run out."""

    def __init__(self, text: Text, *scripts: Sequence[str]) -> None:
        self.text, self.scripts = text, scripts
        self.read: list[tuple[int, ...]] = []
        """What it was asked to go on with, request after request."""

    async def generate(
        self, tokens: Sequence[int], *, max_tokens: int, key: tuple[int, ...], **_: Any
    ) -> list[Response]:
        self.read.append(tuple(tokens))
        episode, turn = key[-2:]
        lines = self.scripts[episode % len(self.scripts)]
        said = [*self.text.encode(lines[turn] if turn < len(lines) else ""), self.text.eos[0]]
        ids = said[:max_tokens]
        await asyncio.sleep(0)
        logp = [-0.01 * (len(tokens) + i + 1) for i in range(len(ids))]
        whole = len(ids) == len(said)
        return [Response(ids, logp, [0.5] * len(ids), "eos" if whole else "length", versions=[3] * len(ids))]


def example(prompt: str = "go", answer: str = "", **meta: Any) -> Example:
    return Example("row-1", user(prompt), answer, meta={"seed": 5} | meta)


def play(
    make: Callable[[], Environment], *scripts: Sequence[str], row: Example | None = None, budget: int = 2000, text: Text | None = None,
    policy: Any = None, judged: bool = False, **limits: Any,
) -> list[Response]:  # fmt: skip
    """An episode for each script."""
    row, text = row or example(), text or plain_text()
    player = Player(make, text, Episodes(**limits), judged=judged)
    question = Question(text.prompt(row.prompt), budget, (0,))
    sampler = policy or Scripted(text, *scripts)
    return asyncio.run(player.play(row, question, sampler, n=len(scripts) or 1, temperature=1.0, key=(0,)))


def spoken(response: Response, text: Text | None = None) -> str:
    """What was said in an episode, by both, with the marks between turns."""
    return (text or plain_text()).tokenizer.decode(response.tokens, skip_special_tokens=False)


def turns(response: Response) -> list[tuple[bool, str]]:
    """The pieces of an episode: whether the policy wrote them, and what they say."""
    found: list[tuple[bool, list[int]]] = []
    for token, own in zip(response.tokens, response.own or [True] * len(response.tokens), strict=True):
        if not found or found[-1][0] != own:
            found.append((own, []))
        found[-1][1].append(token)
    return [(own, plain_text().tokenizer.decode(ids, skip_special_tokens=False)) for own, ids in found]


def heard(response: Response) -> list[str]:
    """What the policy read in an episode, turn after turn, without the marks."""
    read = [said for own, said in turns(response) if not own]
    return ["|".join(part.split(END)[0].partition("|>")[2] for part in said.split("<|")[1:] if not part.startswith(("assistant", "end"))) for said in read]  # fmt: skip


def visit(
    made: Environment, *actions: str | Action, seed: int = 5, seconds: float = 20.0, **row: Any
) -> list[Observation]:
    """What an environment says to some actions, without a policy: what it says at the beginning and at the end comes first and last."""

    async def visited() -> list[Observation]:
        made.outside = Outside(seconds)
        found = [observed(await made.outside(made.reset, seed, row))]
        for action in actions:
            found.append(
                observed(await made.outside(made.step, action if isinstance(action, Action) else Action(action)))
            )
        found.append(observed(await made.outside(made.finish)))
        made.close()
        return found

    return asyncio.run(visited())
