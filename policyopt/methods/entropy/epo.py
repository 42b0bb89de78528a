"""EPO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import ByStep, Controller
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, NonNegative, Regularizer, Unit, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked_mean
from policyopt.turns import turn_ends, turn_means, turn_of

Rows = Literal["turns", "episodes"]


@part
class EntropyBand(Regularizer):
    r"""An entropy bonus, less a penalty on tokens whose entropy leaves a band around the mean of earlier steps.

    .. math:: -\lambda\,(H_{i,t} - c\,w\,P_{i,t}),\qquad
              P = 0 \text{ where } \kappa_l \bar H_{u_i} < H_{i,t} < \kappa_r \bar H_{u_i},\ \text{else } \alpha

    u_i is the environment turn of the row (0 in tasks with one turn), or with ``rows`` "episodes" that of the token, and
    H-bar_u the ``history`` of that turn, a field that a controller keeps. The penalty exists only in mini-batches that reach
    turn ``max_turns // 2``, and is 0 for turns without history. ``indicator`` is the published form: a constant, so it moves
    the reported loss and no parameter. ``hinge`` acts: alpha times the distance to the band. Source: EPO, arXiv:2509.22576, and
    the authors' code (WujiangXu/EPO), where it is decided by micro-batch.
    """

    coef: NonNegative = 0.001
    """lambda."""
    smooth: NonNegative = 1.0
    """c."""
    low: NonNegative = 0.5
    """kappa_l: lower edge of the band over the historical mean."""
    high: NonNegative = 1.5
    """kappa_r: upper edge of the band over the historical mean."""
    alpha: NonNegative = 0.1
    """Height (indicator) or slope (hinge) of the penalty."""
    phase: NonNegative = 1.0
    """w; a controller may move it."""
    history: tuple[NonNegative, ...] = ()
    """Mean entropy of each turn over the steps before; a controller keeps it."""
    max_turns: Count = 1
    """Most turns of an episode."""
    level: Literal["token", "sequence"] = "token"
    """Whether the entropy of a token or the mean of its row (its turn, where a row is an episode) is held against the band."""
    form: Literal["indicator", "hinge"] = "indicator"
    """Shape of the penalty."""

    rows: Rows = "turns"
    """Whether a row is a turn, or an episode of many."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """Entropies, and where turns end within a row."""
        return frozenset({"entropy"} if self.rows == "turns" else {"entropy", "turn_end"})

    def turns(self, batch: Batch) -> Tensor:
        """[N, T] the turn of each token."""
        if self.rows == "episodes":
            return turn_of(batch).clamp(max=turn_ends(batch).shape[1] - 1)
        return turns(batch)[:, None].expand_as(batch.mask)

    def applied(self, batch: Batch) -> bool:
        """Whether the mini-batch reaches far enough into episodes for the penalty."""
        return bool(((self.turns(batch) >= self.max_turns // 2) & batch.mask.bool()).any())

    def penalty(self, batch: Batch) -> Tensor:
        """w P, [N, T]; 0 on padding."""
        turn = self.turns(batch)
        if not (self.history and self.applied(batch)):
            return torch.zeros_like(batch.mask)
        centre = batch.mask.new_tensor(self.history)[turn.clamp(max=len(self.history) - 1)]
        entropy = batch.entropy
        if self.level == "sequence":
            entropy = self.means(batch)
        if self.form == "hinge":
            out = (entropy - self.high * centre).clamp(min=0) + (self.low * centre - entropy).clamp(min=0)
        else:
            out = ((entropy <= self.low * centre) | (entropy >= self.high * centre)).to(batch.mask)
        return torch.where(batch.mask.bool() & (turn < len(self.history)), self.phase * self.alpha * out, 0.0)

    def means(self, batch: Batch) -> Tensor:
        """[N, T] the mean entropy of the row, or of the token's turn in it."""
        if self.rows == "episodes":
            return turn_means(batch, batch.entropy).gather(1, self.turns(batch))
        return masked_mean(batch.entropy, batch.mask, dim=-1, keepdim=True).expand_as(batch.entropy)

    def __call__(self, batch: Batch) -> Tensor:
        return -self.coef * (batch.entropy - self.smooth * self.penalty(batch))

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        """For each turn u ``turn/u/share`` of the tokens, and ``turn/u/entropy``: its mean times that share."""
        found = {"entropy/outside": (self.penalty(batch) > 0).to(batch.mask)}
        for u in range(self.max_turns):
            here = (self.turns(batch) == u).to(batch.mask)
            found |= {f"turn/{u}/share": here, f"turn/{u}/entropy": here * batch.entropy}
        return found


def turns(batch: Batch) -> Tensor:
    """[N] the environment turn of each row; 0 where the task has no turns."""
    return torch.zeros_like(batch.mask[:, 0], dtype=torch.long) if batch.turn is None else batch.turn.long()


def two_phases(step: float, steps: int, drop: float = 0.2, rate: float = 2.0, decay: float = 3.0) -> float:
    r"""A slow decline over the first half of a run and a fast one over the second, with a step between them.

    .. math:: w = 1 - d\,(1 - e^{-r s/h})\ (s \le h),\qquad w = (1-d)\,e^{-k (s-h)/(S-h)}\ (s > h),\qquad h = \lfloor S/2\rfloor
    """
    half = steps // 2
    if step <= half:
        return 1 - drop * (1 - math.exp(-rate * step / half))
    return (1 - drop) * math.exp(-decay * (step - half) / (steps - half))


@part
class TwoPhases(ByStep):
    """A field on the course of :func:`two_phases`. Source: EPO, arXiv:2509.22576, the authors' code (WujiangXu/EPO)."""

    steps: Annotated[int, Field(ge=2)] = 150
    """Steps of the run; the value stays from there on."""

    def value(self, step: float) -> float:
        return two_phases(min(step, self.steps), self.steps)


@part
class TurnHistory(Controller):
    r"""The mean entropy of each turn over all steps so far, as a tuple: turn u is entry u.

    Reads ``turn/u/entropy`` over ``turn/u/share`` (:class:`~policyopt.methods.entropy.epo.EntropyBand`). Source: EPO,
    arXiv:2509.22576. Our reading: a turn that a step did not reach is left out of its mean (the authors' code keeps
    generating for finished episodes), and the step under way is not in it.
    """

    field: str = "regularizers.EntropyBand.history"
    """Path of the tuple."""

    def __call__(
        self, value: tuple[float, ...], metrics: Mapping[str, float], state: dict[str, float]
    ) -> tuple[float, ...]:
        for u in range(sum(name.endswith("/share") for name in metrics)):
            share = metrics.get(f"turn/{u}/share", 0.0)
            if share > 0:
                state[f"sum/{u}"] = state.get(f"sum/{u}", 0.0) + metrics[f"turn/{u}/entropy"] / share
                state[f"steps/{u}"] = state.get(f"steps/{u}", 0.0) + 1
        seen = sum(name.startswith("steps/") for name in state)
        return tuple(state[f"sum/{u}"] / state[f"steps/{u}"] for u in range(seen))


@method(
    parent=ppo,
    arxiv="2509.22576",
    code="WujiangXu/EPO",
    confidence="code",
    claim=Claim(
        "An entropy that is kept near its history spares agents early certainty and late chaos.",
        "maze",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        ours={"rows": "episodes", "max-turns": 12, "form": "hinge", "max-epochs": 20},
        theirs={"kl-coef": 0.0, "epochs": 1, "group-size": 8},
    ),
)
def epo(
    entropy_coef: float = 0.001,
    smooth_coef: float = 1.0,
    kappa_low: float = 0.5,
    kappa_high: float = 1.5,
    alpha: float = 0.1,
    max_turns: int = 1,
    max_epochs: int | None = 150,
    level: Literal["token", "sequence"] = "token",
    form: Literal["indicator", "hinge"] = "indicator",
    rows: Rows = "turns",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.0,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""PPO with an entropy bonus over all turns, less a penalty where entropy leaves a band around its history.

    .. math:: L = L_{PPO} - \lambda\,\big(\overline{H} - c\,w\,\overline{P}\big),\qquad
              P_{i,t} = \alpha\,1[H_{i,t} \notin (\kappa_l\bar H_{u_i}, \kappa_r\bar H_{u_i})]

    lambda = ``entropy_coef``, c = ``smooth_coef``, u_i the turn of row i, H-bar_u its mean entropy over the steps before. The
    weight w falls in two phases over ``max_epochs`` steps (None: it stays 1). As published and coded P is an indicator without
    gradient: what acts is the bonus alone. ``form="hinge"`` is a band that acts. Defaults from the authors' scripts, where an
    episode has 50 turns; with ``max_turns`` 1, for tasks of one turn, the penalty is always on. ``rows`` "episodes" is for
    environments, whose episodes are rows of many turns: each token is held against its own turn, and ``max_turns`` says how
    many there are. Our reading: the code's weight, which falls, where the text says stronger later; 0 while there is no
    history.
    """
    phases: tuple[Controller, ...] = (TwoPhases("regularizers.EntropyBand.phase", max_epochs),) if max_epochs else ()
    band = EntropyBand(
        entropy_coef,
        smooth_coef,
        kappa_low,
        kappa_high,
        alpha,
        max_turns=max_turns,
        level=level,
        form=form,
        rows=rows,
    )
    return ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        regularizers=(band,), controllers=(TurnHistory(), *phases)
    )
