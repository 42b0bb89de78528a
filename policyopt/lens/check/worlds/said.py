"""What episodes that were played one after the other say of an environment."""

from __future__ import annotations

import inspect

from policyopt.environments.world import LONGEST
from policyopt.lens.check.worlds.play import PATIENCE, Played, Trace
from policyopt.lens.check.worlds.tell import Told

STALL = 0.5
"""Seconds for which the event loop may stand still."""
SLOW = 1.0
"""Seconds of a call from which on it is spoken of."""
MANY = 4000
"""Characters of an observation from which on it is spoken of."""


def raises(played: Played) -> Told:
    """Whether it survives what a model writes."""
    key, name = "raises", "survives what a model writes"
    errors = [t.error for t in played.traces if t.error]
    if not errors:
        return Told(key, name)
    return Told(
        key, name, f"{errors[0]}, and an episode that raises is lost ({len(errors)} of {len(played.traces)} here): a model writes anything, "
        "so answer with an observation that says what is wrong", broken=True,
    )  # fmt: skip


def blocks(played: Played) -> Told:
    """Whether anything waits longer than it may, or waits in the event loop, where all other episodes wait with it."""
    key, name = "blocks", "never blocks"
    overdue = [t.overdue for t in played.traces if t.overdue]
    if overdue:
        return Told(
            key, name, f"{overdue[0]}, and an episode that waits so long is given up: put a limit of time on what it waits for",
            broken=True,
        )  # fmt: skip
    stalled = min(t.stalled for t in (*played.traces[:2], *played.again))  # every time, so that it is no chance
    if stalled > STALL:
        return Told(
            key, name, f"the event loop stood still for {stalled:.1f} s, and with it all episodes and the sampler: await what it waits "
            "for, or make it a plain function without `instant`, which runs in a thread", broken=True, number=stalled,
        )  # fmt: skip
    longest = sorted(t.longest for t in played.traces)[len(played.traces) // 2]
    if longest > SLOW:
        return Told(
            key, name, f"a call takes {longest:.1f} s: a step of a run waits for its slowest episode (calls of {PATIENCE:g} s are given "
            "up here, --episodes.timeout sets the limit of a run)", number=longest,
        )  # fmt: skip
    return Told(key, name, value=f"{longest * 1000:.1f} ms a call")


def seeded(played: Played) -> Told:
    """Whether the same seed and the same actions give the same episode, one after the other."""
    key, name = "seeded", "the same seed gives the same episode"
    for seed, (first, second) in enumerate(zip(played.traces, played.again)):
        turn = parted(first, second)
        if turn is None:
            continue
        where = "reset says" if turn == 0 else f"turn {turn} gives"
        return Told(
            key, name, f"with the seed {seed} {where} {shown(first, turn)} once and {shown(second, turn)} then: draw all that is random "
            "from random.Random(seed) in reset, and keep nothing from one episode to the next", broken=True,
        )  # fmt: skip
    openings = {str(t.heard[0]) for t in played.traces if t.heard}
    if len(openings) == 1 and any(t.heard and t.heard[0][0] for t in played.traces):
        return Told(
            key, name, "every seed begins the same episode: where rows of the task bring nothing else, there is one task alone to "
            "learn from; draw it from the seed",
        )  # fmt: skip
    return Told(key, name)


def parted(first: Trace, second: Trace) -> int | None:
    """At which observation two episodes part; ``None`` where they are the same."""
    for turn, (a, b) in enumerate(zip(first.heard, second.heard)):
        if a != b:
            return turn
    return None if len(first.heard) == len(second.heard) else min(len(first.heard), len(second.heard))


def shown(trace: Trace, turn: int) -> str:
    """An observation for a message."""
    if turn >= len(trace.heard):
        return "nothing"
    told, reward, _ = trace.heard[turn]
    text = " / ".join(content for _, content in told)
    return f"{text[:60]!r}" + ("" if reward is None else f" and the reward {reward:g}")


def tools(played: Played) -> Told:
    """Whether the model is told what tools do."""
    key, name = "tools", "tools say what they do"
    bare = [t.name for t in played.tools if not t.about.strip()]
    if bare:
        named = ", ".join(bare)
        return Told(
            key, name, f"the model knows {named} by name alone: say in a docstring what it does; a method that is no tool begins with _",
        )  # fmt: skip
    return Told(key, name, value=f"{len(played.tools)} tools" if played.tools else "no tools")


def words(played: Played) -> Told:
    """Whether what it says can be read."""
    key, name = "words", "observations can be read"
    longest = max((t.cut for t in played.traces), default=0)
    if longest > LONGEST:
        return Told(
            key, name, f"an observation has {longest} characters, and what is beyond {LONGEST} is cut off: return less, or pages that can "
            "be turned", broken=True, number=float(longest),
        )  # fmt: skip
    if longest > MANY:
        return Told(
            key, name, f"an observation has {longest} characters, some {longest // 4} tokens of the budget of an episode: return what is "
            "needed, or set --max-tokens with it in mind", number=float(longest),
        )  # fmt: skip
    return Told(key, name, value=f"at most {longest} characters")


def ends(played: Played) -> Told:
    """Whether episodes end by themselves."""
    key, name = "ends", "episodes end"
    whole = [t for t in played.traces if not t.error and not t.overdue]
    if whole and not any(t.done for t in whole):
        return Told(
            key, name, f"none of {len(whole)} episodes ended by itself within {max(len(t.actions) for t in whole)} turns: return "
            "done=True where the goal is reached or lost, and set `turns` to what an episode needs",
        )  # fmt: skip
    return Told(key, name, value=f"{sum(t.done for t in whole)} of {len(whole)} by themselves")


def rewards(played: Played) -> Told:
    """Whether rewards tell episodes apart."""
    key, name = "rewards", "rewards vary"
    whole = [t for t in played.traces if not t.error and not t.overdue]
    if whole and not any(t.rewarded for t in whole):
        return Told(
            key, name, "it gives no reward: a judge has to say what episodes are worth (--judge), or return one from "
            + ("get_reward" if inspect.isroutine(getattr(played.sample, "object", None)) or played.tools else "step or finish"),
        )  # fmt: skip
    totals = {t.total for t in whole}
    if len(whole) > 1 and len(totals) == 1:
        return Told(
            key, name, f"{len(whole)} episodes of made-up actions are all worth {totals.pop():g}: where a model's are too, there is nothing to "
            "learn; see whether a right episode gets more, and give something for half of one", number=0.0,
        )  # fmt: skip
    return Told(key, name, value=f"{min(totals):g} to {max(totals):g}" if totals else "")
