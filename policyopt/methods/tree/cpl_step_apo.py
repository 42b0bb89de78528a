"""CPL with Step-APO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.items import Verdict
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Count, Finite, NonNegative, part
from policyopt.parts import Logistic, Margin, Pairs, PairSelector
from policyopt.parts.advantage.tree import depth, lineage
from policyopt.parts.critic.nodes import NodeValueLoss
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw.search import Node, beginning
from policyopt.sources.draw.tree import extended, numbered
from policyopt.sources.program import Context, Question, Response, Rollout

# Pairs of steps ------------------------------------------------------------------------------------------------------


@part
class Siblings(PairSelector):
    """Every step whose value (the reward of its row) is above 0 against every one below 0 that follows the same beginning.

    Rows of one prompt without a tree follow the prompt alone. Source: CPL, arXiv:2409.08642.
    """

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        way, last = lineage(batch), depth(batch)
        parent = way.gather(1, (last - 1)[:, None])[:, 0]
        same = (parent[:, None] == parent) & (last[:, None] == last) & (batch.group[:, None] == batch.group)
        better, worse = (same & (batch.reward > 0)[:, None] & (batch.reward < 0)).nonzero(as_tuple=True)
        return better, worse


@part
class ValueMargin(Margin):
    r"""What the search says that two steps differ by, :math:`\alpha\,(f_w Q_w - f_l Q_l)`; f is ``final`` where a response ends with the
    step and 1 elsewhere. Source: CPL, arXiv:2409.08642, and the authors' code (keesh0410/CPL-Reasoning)."""

    alpha: NonNegative = 1.0
    """alpha."""
    final: Finite = 0.3
    """f of a step that ends a response."""

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        value = torch.where(batch.truncated > 0, 1.0, self.final) * batch.reward
        return self.alpha * (value[better] - value[worse])


# The search ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Plan(Node):
    """A node with the probability of its step."""

    prior: float = 1.0
    """The exponential of the mean log-probability of the step's tokens."""
    level: int = 0
    """How many steps it is long."""
    start: int = 0
    """How many tokens lie before its step."""


@part
class PlanSearch(Rollout):
    r"""Monte-Carlo tree search whose moves are lines; its rows are single steps, each worth its node.

    .. math:: PUCT(a) = Q(a) + c\,p(a)\frac{\sqrt{N_{parent}}}{1 + N(a)},\qquad p(a) = e^{\mathrm{mean}_t \log\pi(a_t)}

    In every iteration the search goes down by the largest PUCT, past whole responses, to a node that has no children. ``width`` steps
    are drawn there, equal ones count once; the node and all above it take in what it is worth (by "value" what the
    critic says, by "reward" the mean of responses that are written to their end from there), and a whole response what the judge says:
    1 right, -1 wrong. A path of ``depth`` steps that has not ended is worth -1. Q is the mean of what a node took in, 0 before that.

    A row is the text down to a step, of which the step alone is learned. Its reward is Q. Rows are those steps that have a sibling
    of the other sign; of whole responses from one node the best and the worst alone. The nodes of a row have their values, for a critic.

    Source: CPL, arXiv:2409.08642, and the authors' code (keesh0410/CPL-Reasoning). Our reading: steps are lines; p is
    not renormalised; a search all of whose ways have ended stops; children of a node that was never valued have no rows.
    """

    size: Count = 4
    """How many rows a prompt has about: a batch of N rows takes N / size prompts, and all rows of each."""
    by: Literal["value", "reward"] = "value"
    """What says what a node is worth."""
    iterations: Count = 16
    """Times that the search goes down the tree."""
    width: Count = 3
    """Steps that are drawn from a node."""
    first_width: Count = 5
    """Steps that are drawn from the root."""
    depth: Count = 6
    """Most steps of a path."""
    c: NonNegative = 1.5
    """c: weight of what is likely and was visited little."""

    asks: ClassVar[frozenset[str]] = frozenset({"stop sequences"})

    @property
    def needs(self) -> frozenset[str]:
        """The critic, where it says what nodes are worth."""
        return frozenset({"value"} if self.by == "value" else ())

    @property
    def uses(self) -> frozenset[str]:
        """The judge of whole responses, and the critic."""
        return frozenset({"judge", "critic"} if self.by == "value" else {"judge"})

    def puct(self, node: Plan, visits: int) -> float:
        """PUCT of a child of a node with so many visits."""
        return node.value + self.c * node.prior * math.sqrt(visits) / (1 + node.visits)

    def select(self, node: Node) -> Plan | None:
        """The child with the largest PUCT, the first of equal ones; whole responses and dead ends are passed over."""
        going = [child for child in node.children if isinstance(child, Plan) and not child.terminal]
        return max(going, key=lambda child: self.puct(child, node.visits), default=None)

    async def draw(self, question: Question, context: Context) -> list[Response]:
        root = Plan(Response([], [], [], temperature=self.temperature))
        for i in range(self.iterations):
            node: Plan | None = root
            while node is not None and node.children:
                below = self.select(node)
                if below is None:  # nothing is open from here
                    node.terminal = True
                    node = node.parent if isinstance(node.parent, Plan) else None
                else:
                    node = below
            if node is None:
                break
            await self._expand(node, question, context, (*question.key, i))
        return rows(root)

    async def _expand(self, node: Plan, question: Question, context: Context, key: tuple[int, ...]) -> None:
        """Give a node its children, and take in what they and it are worth."""
        start = len(node.text.tokens)
        drawn = await context.sampler.generate(
            (*question.tokens, *node.text.tokens), n=self.width if node.level else self.first_width,
            max_tokens=question.budget - start, temperature=self.temperature, key=key, keep=True,
            stop=context.line_stops() if self.by == "value" else (),
        )  # fmt: skip
        responses = [extended(node.text, start, piece) for piece in drawn]
        steps = {tuple(step.tokens): step for step in (self._step(r, start, context) for r in responses)}
        node.children = [
            Plan(
                step, node, prior=math.exp(fmean(step.logp[start:])), level=node.level + 1, start=start,
                terminal=step.finished or len(step.tokens) == question.budget or node.level + 1 == self.depth,
            )
            for step in steps.values()
        ]  # fmt: skip
        if self.by == "value":
            worth = await context.values([node.text])
        else:
            worth = signs(await context.judge(responses))
        node.note(node.expected(worth), 1)
        whole = [child for child in node.children if child.text.finished]
        for child, value in zip(whole, signs(await context.judge([c.text for c in whole])), strict=True):
            if not math.isnan(value):
                child.note(value, 1)
        for child in node.children:
            if child.terminal and not child.text.finished:
                child.note(-1.0, 1)

    def _step(self, response: Response, start: int, context: Context) -> Response:
        """A response down to the end of its first line after ``start`` tokens."""
        return beginning(response, start + context.lines(response.tokens[start:])[0])


def signs(verdicts: Sequence[Verdict]) -> list[float]:
    """1 for a right response, -1 for a wrong one, NaN for one without a reward."""
    return [2.0 * v.correct - 1.0 if v.rewarded else math.nan for v in verdicts]


def rows(root: Plan) -> list[Response]:
    """The steps that have a sibling of the other sign, as rows."""
    found = [(child, path) for path in paths(root) for child in contrasted(path[-1].children)]
    numbers = numbered([(*path, child) for child, path in found])
    return [row(child, path, nodes) for (child, path), nodes in zip(found, numbers, strict=True)]


def paths(root: Plan) -> Iterator[list[Plan]]:
    """The ways from the root to each node that has children, the node last."""
    pending = [[root]]
    while pending:
        path = pending.pop()
        yield path
        pending += [[*path, child] for child in path[-1].children if isinstance(child, Plan) and child.children]


def contrasted(children: Sequence[Node]) -> list[Plan]:
    """The children whose values lie on either side of 0; none where all are on one side. Of whole responses the best one and the
    worst one, the first of equal ones."""
    seen = [child for child in children if isinstance(child, Plan) and child.visits]
    whole = [child for child in seen if child.text.finished]
    ends = {id(f(whole, key=lambda child: child.value)) for f in (max, min) if whole}
    kept = [child for child in seen if child.value and (not child.text.finished or id(child) in ends)]
    mixed = any(child.value > 0 for child in kept) and any(child.value < 0 for child in kept)
    return kept if mixed else []


def row(child: Plan, path: Sequence[Plan], nodes: list[int]) -> Response:
    """A step as a response, behind the beginning that it follows."""
    text, passed = child.text, [*path, child]
    said = Verdict(child.value, child.value > 0, True, "step")
    return replace(
        text,
        own=[i >= child.start for i in range(len(text.tokens))],
        verdict=said,
        nodes=nodes,
        ends=[len(node.text.tokens) for node in passed],
        values=[node.value if node.visits else math.nan for node in passed],
        columns={},
    )


@method(
    parent=dpo,
    arxiv="2409.08642",
    code="keesh0410/CPL-Reasoning",
    confidence="code",
    claim=Claim(
        "Pairs of steps out of a search, each with a margin as large as the values differ, teach reasoning.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
    ),
)
def cpl_step_apo(
    beta: float = 0.3,
    alpha: float = 1.0,
    final: float = 0.3,
    by: Literal["value", "reward"] = "value",
    vf_coef: float = 1.0,
    iterations: int = 16,
    width: int = 3,
    first_width: int = 5,
    depth: int = 6,
    c: float = 1.5,
    temperature: float = 0.7,
) -> Recipe:
    r"""Critical Plan Step Learning: a tree search finds which steps matter, and the better of two steps has to win by as
    much as their values differ.

    .. math:: L = -\log\sigma\big(\beta(\rho_w - \rho_l) - \alpha(Q_w - Q_l)\big),\qquad
              \rho = \sum_{t \in step}\log\frac{\pi_\theta}{\pi_{ref}}(y_t)

    Both steps follow the same beginning, which is read and not learned, so Q_w - Q_l is the difference of their advantages. A wide
    gap has a loss above log 2 at the start and a gradient that grows with it; with ``alpha`` 0 it is DPO of steps. Values are found by
    :class:`~policyopt.methods.tree.cpl_step_apo.PlanSearch`; those of steps that end a response are scaled by ``final`` in the margin. By
    "value" a critic says what beginnings are worth and learns the values of the nodes (``vf_coef``); by "reward" responses
    that are written to their end do.

    Source: arXiv:2409.08642; beta, c, depth, widths, temperature and ``final`` from the authors' code. Our reading: steps are lines
    of the response, where the paper asks for steps of a plan; search and training alternate at every step of the run, with 16
    iterations where the paper has 200 for each of two rounds; the supervised round on good plans before it is ``sft``, a run of
    its own; lr 1e-6 there.
    """
    valued = NodeValueLoss(coef=vf_coef) if by == "value" else None
    return dpo(beta).replace(
        source=PlanSearch(
            by=by,
            iterations=iterations,
            width=width,
            first_width=first_width,
            depth=depth,
            c=c,
            temperature=temperature,
        ),
        surrogate=Pairs(link=Logistic(beta=beta, margin=ValueMargin(alpha=alpha, final=final)), choose=Siblings()),
        critic=valued,
    )
