"""What becomes of episodes as rows: played as in a run, by a model that writes at random."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.lens.check.worlds.play import PATIENCE, Played, made_arguments
from policyopt.lens.check.worlds.tell import Told
from policyopt.models.talk import told
from policyopt.models.text import Text
from policyopt.models.tokenizer import build_tokenizer
from policyopt.sources.episodes import Episodes, Player
from policyopt.sources.program import Question, Response

SPECIAL = ("<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|endoftext|>", "<end_of_turn>", "</s>", "<|end|>", "[/INST]")
"""What ends and begins turns in the templates of common models."""
_WORDS = ("quartz", "<think>\nno\n</think>\n\nquartz")


@lru_cache
def embedded() -> Text:
    """The words of the embedded model."""
    tokenizer = build_tokenizer(1 << 20)
    return Text(tokenizer, (tokenizer.eos_token_id,))


class Babbler:
    """A sampler of a model that calls tools and writes nonsense, by chance."""

    def __init__(self, text: Text, tools: Sequence[Any]) -> None:
        self.text, self.tools = text, tools
        self.drawn: list[tuple[int, ...]] = []

    async def generate(
        self, tokens: Sequence[int], *, max_tokens: int, temperature: float, key: tuple[int, ...], **_: Any
    ) -> list[Response]:
        """One response."""
        chance = random.Random(f"{key} {tokens[-8:]}")
        said = "".join(chance.choice("abc 0123456789.+") for _ in range(chance.randint(0, 30)))
        if self.tools and chance.random() < 0.7:
            tool = chance.choice(self.tools)
            said = json.dumps({
                "name": tool.name, "arguments": made_arguments(chance, tool.schema["function"]["parameters"])
            })  # fmt: skip
        ids = [*self.text.encode(said), self.text.eos[0]][:max_tokens]
        self.drawn.append(tuple(ids))
        n, logp = len(ids), -math.log(len(self.text.tokenizer))
        stop = "eos" if ids[-1:] == [self.text.eos[0]] else "length"
        return [Response(ids, [logp] * n, [-logp] * n, stop, versions=[0] * n)]  # type: ignore[arg-type]


def masked(played: Played, text: Text) -> Told:
    """Whether the policy learns from its own words alone."""
    key, name = "masked", "only the policy's words are trained on"
    roles = set().union(*(t.roles for t in played.traces)) - {"user", "tool", "system"}
    if "assistant" in roles:
        return Told(
            key, name, "it speaks in the role of the assistant, whose words are the policy's: what it says there was never drawn; say it "
            "as user or tool", broken=True,
        )  # fmt: skip
    if roles:
        return Told(
            key,
            name,
            f"it speaks in the role {sorted(roles)[0]!r}, which chat templates do not know: take user, tool or system",
            broken=True,
        )
    sampler = Babbler(text, played.tools)
    player = Player(played.make, text, Episodes(timeout=PATIENCE, seconds=60), "json", True)
    example = Example("check", user("?"), "4", meta={"seed": 0, **played.filled})
    question = Question(text.prompt(example.prompt), 100_000, (0,))
    try:
        found = asyncio.run(player.play(example, question, sampler, n=3, temperature=1.0, key=(0,)))  # type: ignore[arg-type]
    except UserError as error:
        return Told(key, name, f"its episodes make no rows: {error}", broken=True)
    mine = sorted(t for r in found for t, own in zip(r.tokens, r.own or [True] * len(r.tokens)) if own)
    if mine != sorted(t for ids in sampler.drawn for t in ids):
        return Told(
            key,
            name,
            "the tokens that are trained on are not those that were drawn: tell us, this is our mistake",
            broken=True,
        )
    read = sum(not own for r in found for own in r.own)
    return Told(key, name, value=f"{len(mine)} tokens of the policy, {read} that it reads")


def continues(played: Played, text: Text) -> Told:
    """Whether a server that renders the whole conversation anew would have the policy read what it read in training."""
    key, name = "continues", "turns continue each other's tokens"
    texts = [content for t in played.traces for heard in t.heard for _, content in heard[0]]
    spelt = [s for s in {*SPECIAL, *map(str, text.tokenizer.all_special_tokens)} if any(s in x for x in texts)]
    if spelt:
        return Told(
            key, name, f"what it says holds {sorted(spelt)[0]!r}, which ends or begins a turn: it stays text here, and a server would "
            "read it as the token, so that the turn is tokenised otherwise; leave it out", broken=True,
        )  # fmt: skip
    heard = {"role": "tool" if played.tools else "user", "content": "quartz two"}
    schemas = [t.schema for t in played.tools] if played.sample.announced else []
    try:
        word = parted(text, heard, schemas)
    except UserError as error:
        return Told(key, name, str(error), broken=True)
    if word is not None:
        what = (
            "drops thoughts of earlier turns"
            if word == _WORDS[1]
            else "writes earlier turns otherwise than they were drawn"
        )
        return Told(
            key, name, f"the chat template of the model {what}: a server that renders a conversation anew shows the model other tokens than it "
            "is trained behind; serve it from its own tokens, or with a template that keeps turns as they are",
        )  # fmt: skip
    return Told(key, name)


def parted(text: Text, heard: dict[str, str], tools: Sequence[Any]) -> str | None:
    """What a model could say that a template shows otherwise at the next turn; ``None`` where there is nothing. What is compared is
    the text of tokens: some tokenizers encode the beginning of a text otherwise than its middle."""
    asked = {"role": "user", "content": "quartz one"}
    begun = text.prompt([asked], tools)

    def read(tokens: Sequence[int]) -> str:
        return "".join(text.tokenizer.decode(list(tokens), skip_special_tokens=False).split())

    for word in _WORDS:
        ours = (*begun, *text.encode(word), text.eos[0], *text.following([heard], text.eos[0], tools))
        talk = told(text.tokenizer, [asked, {"role": "assistant", "content": word}, heard])
        try:
            anew = text.prompt(talk, tools)
        except UserError:
            return word
        if read(ours) != read(anew):
            return word
    return None
