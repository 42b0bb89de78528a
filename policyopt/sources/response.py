"""What a source returns: one answer to a prompt, token by token, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from policyopt.items import Verdict
from policyopt.sources.routes import Routes

StopReason = Literal["eos", "stop", "length"]
Use = Literal["train", "baseline", "pool", "wait"]


@dataclass
class Response:
    """One answer. The lists have one entry for each token."""

    tokens: list[int]
    logp: list[float]
    """Log-probability of each token in the distribution that it was drawn from, temperature, processor and truncation
    included (at temperature 1 for greedy tokens)."""
    entropy: list[float]
    """Entropy in nats of the distribution that each token was drawn from."""
    stop_reason: StopReason = "length"
    """"eos" for a response that ended with an end token or a stop text of the run, "stop" with one of the stop sequences
    that a program asked for, "length" for one that is cut off, by its budget or for now."""
    support: list[Sequence[int]] = field(default_factory=list)
    """The ids of the tokens that each token was drawn from, rising; none for the whole vocabulary, which also stands where
    the list ends early. Models are asked about a token over its support alone."""
    versions: list[int] = field(default_factory=list)
    """How many updates the policy that wrote each token had seen."""
    routes: Routes | None = field(default=None, compare=False)
    """The experts that its prompt and its tokens were sent to, where they are recorded (``Rollout.routing_replay``)."""
    heat: list[float] = field(default_factory=list)
    """The temperature that each token was drawn at, where it changes from token to token."""
    top: list[tuple[list[int], list[float]]] = field(default_factory=list)
    """The likeliest tokens at each place with their log-probabilities, where they were asked for."""
    own: list[bool] = field(default_factory=list)
    """Which tokens the policy wrote; empty where it wrote all. The others are read, never trained on."""
    guided: list[bool] = field(default_factory=list)
    """Which of its own tokens a guide wrote in the policy's place; empty where there are none. They are scored and valued
    as if the policy had written them, and only the critic learns from them."""
    use: Use = "train"
    """What becomes of it: "train", "baseline" for a response that alone is the baseline of its prompt, "pool" for one that is not trained
    on but counts in it, as those that are trained on do, or "wait" for one that is not even judged yet."""
    budget: int | None = None
    """How many tokens it was allowed, where the program has set that itself; ``None``: ``Prompt.budget``."""
    later: bool = False
    """The program gets it back at the next step, in ``Question.earlier``, to go on with it."""
    new_from: int = 0
    """Index of the first token that was not there at the step before."""
    thought: int = 0
    """Which of its prompt's thoughts it holds, or answers from."""
    cut: int = -1
    """Index of the token before which its thought was cut to force an answer; -1 where it was not."""
    origin: int = 0
    """Which of the program's ways to draw it came from: 0 the main one, 1 and up auxiliary ones."""
    turn: int = 0
    """Number of the environment turn that it is."""
    temperature: float = 1.0
    """What its log-probabilities are taken at."""
    verdict: Verdict | None = None
    """What the judge says of it, once it was asked."""
    context: tuple[int, ...] = ()
    """What it answers, where that is not the prompt as it was asked: it is trained on in this context."""
    nodes: list[int] = field(default_factory=list)
    """The nodes that it passes in the tree of its prompt's responses, numbered from 1; empty where there is no tree."""
    ends: list[int] = field(default_factory=list)
    """How many of its tokens lie before the end of each node."""
    values: list[float] = field(default_factory=list)
    """Mean reward of fresh continuations from the end of each node, NaN where none were drawn."""
    columns: dict[str, float | list[float]] = field(default_factory=dict)
    """What it fills of columns that a program may fill (:func:`policyopt.column` declares one of your own): one number, or
    one for each token."""

    @property
    def supports(self) -> list[Sequence[int]]:
        """``support`` with an entry for each token."""
        return [*self.support, *[()] * (len(self.tokens) - len(self.support))]

    @property
    def finished(self) -> bool:
        """It ended by itself, inside its budget."""
        return self.stop_reason == "eos"

    @property
    def stopped(self) -> bool:
        """It ended with one of the stop sequences that were asked for."""
        return self.stop_reason == "stop"

    @property
    def version(self) -> int:
        """How many updates the oldest policy that wrote a part of it had seen."""
        return min(self.versions, default=0)
