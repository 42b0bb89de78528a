"""Rollout programs on a script: a sampler whose responses have known verdicts, and rows that begin with known text."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from policyopt.items import Verdict
from policyopt.lens.case import Run
from policyopt.parts.pairing.pairs import row_credit
from policyopt.rows import Batch
from policyopt.sources.draw.begun import begin
from policyopt.sources.program import Context, Question, Response, Rollout
from policyopt.training.rows import to_batch


def verdict(accuracy: float, formatted: float = 1.0) -> Verdict:
    """A judge's word in numbers."""
    return Verdict(float(accuracy), accuracy > 0, formatted > 0, "")


@dataclass
class Script:
    """A sampler that answers its requests one after the other with responses of given verdicts, and counts them.

    The last token of a response is its number, counted over all requests.
    """

    rounds: Sequence[Sequence[Verdict]]
    """What each request gets; wrong responses where the script has ended."""
    asked: int = 0
    """Requests so far."""
    drawn: list[tuple[int, int]] = field(default_factory=list)
    """The request that each response was drawn for, and its place there."""

    async def generate(self, tokens: Sequence[int], *, n: int = 1, **_: Any) -> list[Response]:
        """The next ``n`` responses."""
        known = self.rounds[self.asked] if self.asked < len(self.rounds) else ()
        out = []
        for i in range(n):
            said = known[i] if i < len(known) else verdict(0.0, 0.0)
            out.append(Response([len(self.drawn)], [0.0], [0.0], "eos", verdict=said))
            self.drawn.append((self.asked, i))
        self.asked += 1
        return out

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        """Never called: responses come with their verdicts."""
        raise NotImplementedError


def play(rollout: Any, script: Any, solution: int, step: int = 0, size: int | None = None) -> list[Response]:
    """What a program returns at a step, for a prompt whose worked solution has so many tokens before its end.

    ``size`` is the number of responses, where it is not the program's.
    """
    program: Rollout = rollout if size is None else dataclasses.replace(rollout, size=size)
    question = Question((), solution + 2, (0, step, 0), (0,) * (solution + 1))
    context = Context(script, program, script.judge)

    async def draw() -> list[Response]:
        return await program.draw(question, context)

    with ThreadPoolExecutor(1) as pool:  # an event loop may be running in this thread
        return pool.submit(asyncio.run, draw()).result()


def members(group: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """The groups of a case in the order of their first rows, and the rows of each."""
    return [(name, [i for i, g in enumerate(group) if g == name]) for name in dict.fromkeys(group)]


def drawn_batch(drawn: Sequence[tuple[Sequence[int], Sequence[Response]]], group: Sequence[Any]) -> Batch:
    """The batch of what programs returned: for each, the rows of the case that its responses are, and these."""
    place = [i for rows, _ in drawn for i in rows]
    responses = [response for _, found in drawn for response in found]
    verdicts = [response.verdict for response in responses if response.verdict is not None]
    names = [group[i] for i in place]
    return to_batch([()] * len(place), responses, verdicts, names, 1, torch.float64)[torch.tensor(place).argsort()]


def given_tokens(response: Response) -> int:
    """How many tokens of a response the policy did not write."""
    return len(response.own) - sum(response.own)


def begun_mask(mask: Any, start: Sequence[int]) -> Tensor:
    """[N, T] 1 on the tokens that are trained on, where rows with a response mask begin with given tokens."""
    rows = []
    for row, h in zip(mask, start, strict=True):
        n = int(sum(row))
        rest = [0.0] * (n - min(h, n))
        rows.append(begin(Response([0] * len(rest), rest, rest, "eos"), [0] * min(h, n)))
    verdicts = [verdict(0.0)] * len(rows)
    found = to_batch([()] * len(rows), rows, verdicts, [0] * len(rows), 1, torch.float64).mask
    return torch.nn.functional.pad(found, (0, len(mask[0]) - found.shape[1]))


def with_targets(given: Mapping[str, Any], name: str, groups: Sequence[Any]) -> dict[str, Any]:
    """A case with the targets ``{name}_mask`` and ``{name}_logp`` as rows of ``origin`` 1 behind its own.

    They are on-policy and worth ``{name}_reward``, or nothing; ``groups`` says which prompt each belongs to. Raises
    ``ValueError`` where there is not one for each.
    """
    own, rest = len(given["mask"]), {k: x for k, x in given.items() if not k.startswith(f"{name}_")}
    mask, logp = given.get(f"{name}_mask", []), given.get(f"{name}_logp", [])
    if len(mask) != len(groups):
        raise ValueError(f"{len(mask)} targets for {len(groups)} prompts")
    known = {"mask": mask, "group": list(groups), "reward": given.get(f"{name}_reward", [0.0] * len(mask))}
    for column, x in rest.items():
        if isinstance(x, list):
            nothing = [[0.0] * len(row) for row in mask] if isinstance(x[0], list) else [0.0] * len(mask)
            rest[column] = [*x, *known.get(column, logp if column.endswith("logp") else nothing)]
    return rest | {"origin": [0] * own + [1] * len(mask)}


def both(x: Tensor, given: Mapping[str, Any], name: str) -> tuple[list[list[float]], list[list[float]]]:
    """A result [N, T] on the rows of a case, and on its targets, each in the width of its own mask."""
    own, mask = len(given["mask"]), given.get(f"{name}_mask", [])
    widths = max(map(len, given["mask"])), max(map(len, mask), default=0)
    return x[:own, : widths[0]].tolist(), x[own:, : widths[1]].tolist()


def begun(given: Mapping[str, Any], start: str) -> dict[str, Any]:
    """A case whose rows begin with ``given[start]`` tokens that the policy did not write."""
    return {**given, "mask": begun_mask(given["mask"], given[start]).tolist()}


def trained(run: Run) -> Tensor:
    """[N, T] 1 on the tokens that are trained on, of rows that were ``begun``."""
    return run.batch.mask


def beside(name: str) -> dict[str, Callable[[Run], Any]]:
    """What a case with targets (:func:`with_targets`) expects of its own rows and of them."""

    def gradient(run: Run, side: int) -> list[list[float]]:
        return both(run.gradient("logp"), run.asked, name)[side]

    def advantage(run: Run) -> Tensor:
        return run.all_rows(row_credit(run.credited))

    return {
        "advantage": lambda run: advantage(run)[: len(run.asked["mask"])],
        f"{name}_advantage": lambda run: advantage(run)[len(run.asked["mask"]) :],
        "dloss_dlogp": lambda run: gradient(run, 0),
        f"dloss_d{name}_logp": lambda run: gradient(run, 1),
    }
