"""What a run gathers for its source: opinions asked for together, what is held from step to step, what the log keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from policyopt.errors import UserError
from policyopt.items import Example, Message, Verdict
from policyopt.sources.program import Response
from policyopt.sources.routes import Routes
from policyopt.sources.source import Source

Q = TypeVar("Q")
X = TypeVar("X")


@dataclass
class Held:
    """Responses that a program goes on with at the next step."""

    example: Example
    tokens: tuple[int, ...]
    key: tuple[int, ...]
    responses: list[Response]
    step: int
    """The step at which they were held."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; :meth:`from_dict` reads it back."""
        plain = asdict(self)
        for saved in plain["responses"]:
            saved["support"] = [list(ids) for ids in saved["support"]]
        for saved, r in zip(plain["responses"], self.responses, strict=True):
            saved["routes"] = r.routes and r.routes.to_dict()
        return plain

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Held:
        """Read back what :meth:`to_dict` made, JSON in between."""
        told: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in saved["example"].items()}
        example = Example(**told)
        pairs = {i: [(ids, logp) for ids, logp in r["top"]] for i, r in enumerate(saved["responses"])}
        routes = [r.get("routes") and Routes.from_dict(r["routes"]) for r in saved["responses"]]
        responses = [
            Response(**r | {"top": pairs[i], "context": tuple(r["context"]), "verdict": None, "routes": routes[i]})
            for i, r in enumerate(saved["responses"])
        ]
        return cls(example, tuple(saved["tokens"]), tuple(saved["key"]), responses, saved["step"])


class Between(Generic[Q, X]):
    """Opinions on responses for programs that are still drawing: what they ask for at the same time is answered
    together."""

    def __init__(self, answer: Callable[[Sequence[tuple[Q, Sequence[Response]]]], list[list[X]]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Q, Sequence[Response], asyncio.Future[list[X]]]] = []
        self.seconds = 0.0

    async def __call__(self, question: Q, responses: Sequence[Response]) -> list[X]:
        """The opinions on some responses to a question."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[X]] = loop.create_future()
        if not self._waiting:  # runs after every program that is ready now has had its turn to ask
            loop.call_soon(loop.call_soon, self._run)
        self._waiting.append((question, responses, done))
        return await done

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        start = time.perf_counter()
        try:
            found = self._answer([(question, responses) for question, responses, _ in waiting])
        except BaseException as error:  # hand it to whoever waits, rather than to the event loop
            for _, _, done in waiting:
                done.set_exception(error)
            return
        finally:
            self.seconds += time.perf_counter() - start
        for (_, _, done), said in zip(waiting, found, strict=True):
            done.set_result(said)


def unanswered(source: Source, drawn: Sequence[Sequence[Response]]) -> int:
    """How many prompts a program returned no response to.

    Raises :class:`~policyopt.errors.UserError` where that is all of them, and for a response whose lists disagree.
    """
    name = type(source).__name__
    if not any(drawn):
        raise UserError(
            f"the rollout program {name} returned no response to any of {len(drawn)} prompts: draw() has to return a "
            "list with at least one Response"
        )
    for r in (r for responses in drawn for r in responses):
        sizes = {"logp": len(r.logp), "entropy": len(r.entropy), "support": len(r.supports)}
        sizes |= {"own": len(r.own)} if r.own else {}
        for field_name, size in sizes.items():
            if size != len(r.tokens):
                raise UserError(
                    f"the rollout program {name} returned a response with {len(r.tokens)} tokens and {size} entries in "
                    f"{field_name!r}: both lists have one entry for each token"
                )
    return sum(not responses for responses in drawn)


def written(rows: Sequence[Response], stats: dict[str, float]) -> None:
    """Add to the figures of a batch which versions of the policy wrote the tokens of some responses."""
    stats["versions"] = stats.get("versions", 0.0) + sum(sum(r.versions) for r in rows)
    stats["versioned"] = stats.get("versioned", 0.0) + sum(len(r.versions) for r in rows)


def asked_instead(prompt: Sequence[Message], text: str) -> list[Message]:
    """The messages of a prompt with another text in the place of the last one."""
    return [*prompt[:-1], {**prompt[-1], "content": text}]


def record(example: Example, text: str, verdict: Verdict, asked: str | None = None) -> dict[str, Any]:
    """What the log keeps of a judged response, with what was asked where that is not the example's prompt; ``score`` is null
    where there is no reward, and ``failed`` stands there where the judge is to blame."""
    found = {
        "id": example.id,
        "prompt": "\n".join(m["content"] for m in example.prompt) if asked is None else asked,
        "response": text,
    } | ({"source": example.source} if example.source else {})
    return (
        found
        | {
            "answer": example.answer,
            "score": verdict.score if verdict.rewarded else None,
            "correct": verdict.correct,
            "formatted": verdict.formatted,
            "reason": verdict.reason,
        }
        | ({"failed": True} if verdict.failed else {})
    )
