"""Meta policy optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import Controller
from policyopt.control.logged import logged
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, Fraction, Part, Shape, part
from policyopt.parts import TruncatedReward
from policyopt.parts.shape.components import own, silent
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Criterion(Part):
    """One item of a rubric: what is looked at, and how many points it is worth."""

    name: str = "correct"
    """A part of the verdict in [0, 1], or "correct" or "formatted"."""
    scale: Count = 5
    """Points for all of it."""

    @property
    def handle(self) -> str:
        return self.label or self.name


def rubric_sum(points: Tensor) -> Tensor:
    """The sum of the points [N, K] of K items, [N]; an item that could not be read (NaN) counts 0."""
    return torch.where(points.isnan(), 0.0, points).sum(-1)


@part
class Rubric(Shape):
    r"""Whole points for each item, added up, in the place of the score: :math:`R = \sum_k \mathrm{round}(s_k c_k)`.

    Source: MPO, arXiv:2504.20157, where a language model gives the points; here a part of the verdict does. Where the
    judge gives no parts and some are asked for, its score stays.
    """

    items: tuple[Criterion, ...] = (Criterion(), Criterion(name="formatted"))
    """The criteria."""

    @property
    def needs(self) -> frozenset[str]:
        """What every judge says, as far as it counts."""
        return own(c.name for c in self.items)

    def __call__(self, batch: Batch) -> Batch:
        if silent(batch, {c.name for c in self.items}):
            return batch
        points = [(c.scale * batch.component(c.name).clamp(0, 1)).round() for c in self.items]
        return batch.replace(reward=rubric_sum(torch.stack(points, -1)))


Items = tuple[Criterion, ...]


class MetaJudge(Part):
    """Looks at how a rubric judged and proposes others."""

    def __call__(self, items: Items, seen: Sequence[Mapping[str, float]]) -> list[Items]:
        """Proposals, from the share of its points that each item gave in each of the updates since the last look."""
        raise NotImplementedError


@part
class Saturation(MetaJudge):
    """A rule for a meta judge: points move from what all responses fulfil to what they do not.

    An item that gave more than ``full`` of its points is worth one point less, and one that gave less than ``rare`` one
    more, between 1 and ``most``. Each update that was seen makes a proposal.
    """

    full: Fraction = 0.9
    """Share of the points above which an item tells too little apart."""
    rare: Fraction = 0.5
    """Share below which it is worth more."""
    most: Count = 10
    """Most points of an item."""

    def __call__(self, items: Items, seen: Sequence[Mapping[str, float]]) -> list[Items]:
        def revised(item: Criterion, share: float) -> Criterion:
            scale = item.scale + (share < self.rare) - (share > self.full)
            return Criterion(item.name, min(max(scale, 1), max(self.most, item.scale)))

        return [tuple(revised(c, shares[c.name]) for c in items) for shares in seen]


def words(items: Items) -> int:
    """How many words a rubric has, scales included."""
    return sum(len(c.name.split()) + 1 for c in items)


def within(lengths: Sequence[int], limit: float) -> list[int]:
    """Which proposals are merged: the first ones, as long as their words together stay within the limit."""
    taken, total = [], 0
    for i, length in enumerate(lengths):
        total += length
        if total > limit:
            break
        taken.append(i)
    return taken


def merge(items: Items, proposals: Sequence[Items]) -> Items:
    """One rubric from several, without duplicate items: each is worth the mean of what it is worth in the proposals."""
    points: dict[str, list[int]] = {}
    for item in (c for proposal in proposals for c in proposal):
        points.setdefault(item.name, []).append(item.scale)
    merged = tuple(Criterion(name, max(1, round(sum(p) / len(p)))) for name, p in points.items())
    return merged or items


@part
class Refinement(Controller):
    r"""Every M updates a meta judge rewrites the rubric: analyse, propose, merge.

    Update u (from 0) is judged by version :math:`\lfloor (u-1)/M\rfloor`, at least 0. What was seen and how many updates
    there were is in the state, the rubric itself in the field, so a resumed run goes on with both. Source: MPO,
    arXiv:2504.20157, and the authors' code (minnesotanlp/mpo).
    """

    field: str = "shape.Rubric.items"
    """Path of the rubric's items."""
    meta: MetaJudge = Saturation()
    """Who proposes."""
    interval: Count = 10
    """M."""
    word_limit: Count = 16_666
    """Words of the proposals that are merged; those beyond are left out whole."""

    def refines(self, update: int) -> bool:
        """Whether the rubric is rewritten after this update."""
        return update > 0 and update % self.interval == 0

    def version(self, update: int) -> int:
        """Which version of the rubric judges this update."""
        return max(0, (update - 1) // self.interval)

    def start(self) -> dict[str, float]:
        return {"update": -1.0}

    def __call__(self, value: Items, metrics: Mapping[str, float], state: dict[str, float]) -> Items:
        update = int(state["update"])
        names = {c.name: logged(c.name) for c in value}
        if update >= 0 and all(name in metrics for name in names.values()):
            state |= {f"{update}/{name}": metrics[said] for name, said in names.items()}
        if self.refines(update):
            value = self.refined(value, state)
            state.clear()
        state["update"] = update + 1.0
        return value

    def refined(self, items: Items, state: Mapping[str, float]) -> Items:
        """The next version, from what was seen since the last."""
        seen: dict[str, dict[str, float]] = {}
        for key, share in state.items():
            update, slash, name = key.partition("/")
            if slash:
                seen.setdefault(update, {})[name] = share
        proposals = self.meta(items, list(seen.values()))
        return merge(items, [proposals[i] for i in within([words(p) for p in proposals], self.word_limit)])


@method(
    parent=ppo,
    arxiv="2504.20157",
    code="minnesotanlp/mpo",
    confidence="code",
    claim=Claim(
        "A rubric that is rewritten during training from what was seen is hacked less than one that stays as it is.",
        "proxy-reward",
        (Effect("accuracy", "higher", 0.05),),
        against="mpo-meta",
        both={"criteria": ("true", "proxy")},
        ours={"interval": 5},
        theirs={"interval": None},
    ),
)
def mpo_meta(
    criteria: tuple[str, ...] = ("correct", "formatted"),
    interval: int | None = 10,
    word_limit: int = 16_666,
    no_eos_penalty: float = 1.0,
    kl_coef: float = 0.02,
    low: float | None = 0.2,
    high: float | None = 0.2,
    clip_value: float | None = None,
    vf_coef: float = 0.1,
    gamma: float = 1.0,
    lam: float = 0.95,
    epochs: int = 4,
    group_size: int = 1,
) -> Recipe:
    r"""The rubric of the judge is part of the training: a meta judge rewrites it every few updates.

    .. math:: R = \sum_{k\in\phi_v} s_k - \rho\,1[\text{no end token}],\qquad \phi_{v+1} = \mathrm{meta}(\phi_v, \text{what was seen})

    ``criteria`` are parts of the verdict, each worth points; after every ``interval`` updates
    (:class:`~policyopt.methods.judge.mpo_meta.Refinement`) the rubric is analysed, proposals are made and merged. None keeps the
    first rubric, which is PPO. Source: arXiv:2504.20157 and the authors' code (minnesotanlp/mpo), where language models
    judge and meta-judge. Our reading: both are functions here, behind the interface
    :class:`~policyopt.methods.judge.mpo_meta.MetaJudge`; its rule moves points from criteria that all fulfil to those that few do.
    The critic is not clipped (``clip_value``): a rubric's sums are whole points, and change with the rubric.
    """
    parent = ppo(low, high, clip_value, vf_coef, kl_coef, None, 0.0, gamma, lam, epochs, 1, group_size)
    rubric = Rubric(items=tuple(Criterion(name) for name in criteria))
    return parent.replace(
        shape=(rubric, TruncatedReward(reward=-no_eos_penalty, add=True), *parent.shape),
        controllers=(Refinement(interval=interval, word_limit=word_limit),) if interval else (),
    )
