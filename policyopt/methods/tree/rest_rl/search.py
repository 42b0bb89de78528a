"""Monte-Carlo tree search over lines, guided by rewards or by the critic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from policyopt.part import Count, NonNegative, Positive, part
from policyopt.sources.draw.search import Node, beginning
from policyopt.sources.draw.tree import extended, numbered
from policyopt.sources.program import Context, Question, Response, Rollout


@part
class Search(Rollout):
    r"""Monte-Carlo tree search whose moves are lines; the ``size`` best responses that it has come by.

    .. math:: UCT(c) = V(c) + c_e\sqrt{\frac{1 + \ln N(parent)}{\epsilon + N(c)}}

    In every iteration the search goes down by the largest UCT to a node that has no children yet. ``samples`` responses
    are drawn from there; the first line of each is a child, and the ``width`` children with the largest values stay
    visible. By ``reward`` the judge's scores of the responses count in the node and all above it. By ``value`` the critic
    values the children, whose values count there, and it ranks the responses. The end of a response, met again, counts
    as it is worth. What the judge gives no reward counts as the others from its node, or as the node was worth so far, and
    is returned last. A response has a node for each of its beginnings that was expanded, with its value. Source: VM-MCTS of
    ReST-RL, arXiv:2508.19576, and the authors' code (THUDM/ReST-RL). Our reading: among equal children, and among equal
    values at the cut to ``width``, the first; a response that the budget cuts off has no last line to go on from.
    """

    size: Count = 1
    """Responses that are returned, the best first, fewer where fewer were drawn."""
    by: Literal["reward", "value"] = "value"
    """What guides the search: the judge's rewards, or the critic's values."""
    iterations: Count = 15
    """Times that the search goes down the tree."""
    samples: Count = 5
    """m: responses from each node."""
    width: Count = 5
    """d: children of a node that stay visible."""
    c: NonNegative = 0.1
    """c_e: weight of what was visited little."""
    eps: Positive = 0.1
    """epsilon."""

    @property
    def needs(self) -> frozenset[str]:
        """The critic, where it guides."""
        return frozenset({"value"} if self.by == "value" else ())

    @property
    def uses(self) -> frozenset[str]:
        """What guides."""
        return frozenset({"critic" if self.by == "value" else "judge"})

    def uct(self, value: float, visits: int, parent_visits: int) -> float:
        """UCT of a child of a node that was visited."""
        return value + self.c * math.sqrt((1 + math.log(parent_visits)) / (self.eps + visits))

    def select(self, node: Node) -> Node:
        """The visible child of a node with the largest UCT."""
        return max(
            (child for child in node.children if child.visible),
            key=lambda child: self.uct(child.value, child.visits, node.visits),
        )

    async def draw(self, question: Question, context: Context) -> list[Response]:
        root = Node(Response([], [], [], temperature=self.temperature))
        drawn: list[Response] = []
        for i in range(self.iterations):
            node = root
            while node.children:
                node = self.select(node)
            if not node.terminal:
                drawn += await self._expand(node, question, context, (*question.key, i))
            elif node.visits:
                node.note(node.value, 1)
            else:
                node.note(node.expected(await self._worth([node.text], context)), 1)
        if self.by == "reward":
            mark(root, drawn)
        worth = await self._worth(drawn, context)
        best = sorted(range(len(drawn)), key=lambda i: (math.isnan(worth[i]), not drawn[i].finished, -worth[i]))
        return [drawn[i] for i in best[: self.size]]

    async def _worth(self, responses: Sequence[Response], context: Context) -> list[float]:
        """What the guide thinks of responses; NaN where the judge gives no reward."""
        if self.by == "value":
            return await context.values(responses)
        return [verdict.score for verdict in await context.judge(responses)]

    async def _expand(self, node: Node, question: Question, context: Context, key: tuple[int, ...]) -> list[Response]:
        """Draw responses from a node, give it their first lines for children, and take in what they are worth."""
        stem, start = node.text, len(node.text.tokens)
        drawn = await context.sampler.generate(
            (*question.tokens, *stem.tokens), n=self.samples, max_tokens=question.budget - start,
            temperature=self.temperature, key=key, keep=True,
        )  # fmt: skip
        responses = [extended(stem, start, piece) for piece in drawn]
        lines = [r.tokens[: start + context.lines(r.tokens[start:])[0]] for r in responses]
        texts = {tuple(line): beginning(r, len(line)) for line, r in zip(lines, responses, strict=True)}
        counts = Counter(map(tuple, lines))
        node.children = [
            Node(texts[line], node, terminal=texts[line].finished or len(line) == question.budget) for line in counts
        ]
        if self.by == "value":
            values = await context.values([child.text for child in node.children])
            for child, value in zip(node.children, values, strict=True):
                child.value, child.visits = value, counts[tuple(child.text.tokens)]
                child.total = value * child.visits
            node.note(sum(child.total for child in node.children), self.samples)
        else:
            node.note(node.expected(await self._worth(responses, context)) * self.samples, self.samples)
        for child in sorted(node.children, key=lambda child: -child.value)[self.width :]:
            child.visible = False
        return responses


def mark(root: Node, responses: Sequence[Response]) -> None:
    """Write down the expanded nodes that each response passes, the root among them, and what they are worth."""
    ways: list[list[Node | int]] = []
    for i, response in enumerate(responses):
        node: Node | None = root
        passed: list[Node] = []
        while node is not None and node.children:
            passed.append(node)
            node = next((c for c in node.children if c.text.tokens == response.tokens[: len(c.text.tokens)]), None)
        response.ends = [*(len(n.text.tokens) for n in passed), len(response.tokens)]
        response.values = [*(n.value for n in passed), math.nan]
        ways.append([*passed, i])
    for response, nodes in zip(responses, numbered(ways), strict=True):
        response.nodes = nodes
