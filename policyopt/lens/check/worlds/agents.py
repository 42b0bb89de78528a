"""An agent, found out by answering it at random: whether it finishes, and whether its conversations stay in one piece."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from policyopt.environments.agent import Agent
from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.lens.check.report import Report
from policyopt.lens.check.worlds.rows import Babbler
from policyopt.lens.check.worlds.tell import Told, reported
from policyopt.models.text import Text
from policyopt.sources.agents import AgentPlayer
from policyopt.sources.episodes import Episodes
from policyopt.sources.program import Question, Response

SECONDS = 60.0
"""How long an episode may take."""
EPISODES = 4


def check_agent(name: str, make: Callable[[], Agent], text: Text) -> Report:
    """Let an agent play some episodes against a model that writes nonsense, and say what is wrong with it."""
    filled = dict.fromkeys(set(make().needs) - {"prompt", "answer"}, "4")
    player = AgentPlayer(make, text, Episodes(seconds=SECONDS), "json", True, 1 << 20)
    example = Example("check", user("What is 2+2?"), "4", meta={"seed": 0, **filled})
    question = Question(text.prompt(example.prompt), 100_000, (0,))
    sampler: Any = Babbler(text, ())
    try:
        rows = asyncio.run(player.play(example, question, sampler, n=EPISODES, temperature=1.0, key=(0,)))
    except UserError as error:
        return Report(name, faults=(f"{name}: {error}",))
    notes = (f"what rows bring was made up: {', '.join(sorted(filled))}",) if filled else ()
    return reported(name, [_finishes(rows), _whole(rows), _rewards(rows)], notes)


def _finishes(rows: Sequence[Response]) -> Told:
    key, name = "finishes", "finishes its episodes"
    failed = [r.verdict.reason for r in rows if r.verdict is not None and r.verdict.failed]
    if failed:
        return Told(
            key,
            name,
            f"{failed[0]}: a model writes anything, so catch what can be caught and return what that is worth",
            broken=True,
        )
    if not any(r.tokens for r in rows):
        return Told(
            key, name, "it asked the model nothing: have its client use the base_url that it is given, and no address of its own",
            broken=True,
        )  # fmt: skip
    return Told(key, name)


def _whole(rows: Sequence[Response]) -> Told:
    """Whether a conversation is one row, or is tokenised anew."""
    key, name = "continues", "turns continue each other's tokens"
    counts = Counter(r.columns["episode"] for r in rows)
    ends = [r.columns["turn_end"] for r in rows]
    turns = sum(len(x) for x in ends if isinstance(x, list)) / len(counts)
    most = max(counts.values())
    if most > 1:
        return Told(
            key, name, f"an episode of {turns:.3g} requests becomes up to {most} rows: it asks about several things, or writes its history "
            "in other words than the model's, which is then tokenised anew at every turn and read again in full; put the message "
            "that came back behind the others as it is", number=float(most),
        )  # fmt: skip
    return Told(key, name, value=f"one row for {turns:.3g} requests")


def _rewards(rows: Sequence[Response]) -> Told:
    key, name = "rewards", "rewards vary"
    given = {r.verdict.score for r in rows if r.verdict is not None and r.verdict.rewarded}
    if not given:
        return Told(
            key, name, "it returned no reward: return a number, or have a judge say what episodes are worth (--judge)"
        )
    if len(given) == 1:
        return Told(
            key, name, f"{EPISODES} episodes against a model that writes nonsense are all worth {given.pop():g}: see whether a right one gets "
            "more, and give something for half of one", number=0.0,
        )  # fmt: skip
    return Told(key, name, value=f"{min(given):g} to {max(given):g}")
