"""OBLR-PO."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Controller, Statistic, Unit, Whole, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class ScoreNorm(Statistic):
    r"""The squared length of the gradient of a token's log-probability in its logits, :math:`1 - 2\pi(y) + \sum_v\pi(v)^2`."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        logp = logits.log_softmax(-1)
        return 1 - 2 * logp.gather(-1, target[:, None])[:, 0].exp() + logp.exp().square().sum(-1)


SCORE = ScoreNorm()


@part
class LeastVariance(Advantage):
    r"""Reward minus the constant of its group that leaves the policy gradient the least variance.

    .. math:: b^\star_q = \frac{\sum_{i\in q}w_iR_i}{\sum_{i\in q}w_i},\qquad w_i = \|\nabla\log\pi(y_i|x)\|^2 \approx
              \sum_t\Big(1 - 2\pi_t(y_t) + \sum_v\pi_t(v)^2\Big),\qquad A_i = R_i - b^\star_q

    Equal weights give the mean of the group, and their scale does not matter. Rows that weigh nothing are rows that could not have been
    others. Source: OBLR-PO, arXiv:2511.23310, derived from its abstract (a classical result). Our reading: the weights are squared
    lengths in the logits (:class:`ScoreNorm`), added up over tokens, which takes no pass backward for a row; the baseline is that of
    the prompt.
    """

    leave_one_out: bool = False
    r"""Leave the row out of its own baseline, which is then without bias: :math:`A_i \leftarrow A_i\,W/(W - w_i)`, W the sum of the group."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2
    fixed: ClassVar[tuple[Statistic, ...]] = (SCORE,)

    def __call__(self, batch: Batch) -> Tensor:
        gain = batch.total_reward() - self.baseline(batch)
        if self.leave_one_out:
            weight = self.weights(batch)
            rest = group_sum(weight, batch.group) - weight
            alone = rest <= 1e-12 * weight
            gain = torch.where(alone, 0.0, gain * (1 + weight / torch.where(alone, 1.0, rest)))
        return gain[:, None] * batch.mask

    def weights(self, batch: Batch) -> Tensor:
        """w, [N]."""
        return masked(batch.fixed(SCORE), batch.mask).sum(-1).clamp(min=0)

    def baseline(self, batch: Batch) -> Tensor:
        """The weighted mean of each row's group, [N]; the plain one where all weights are 0."""
        reward, weight = batch.total_reward(), self.weights(batch)
        some = group_sum(weight, batch.group) > 0
        return group_mean(reward, batch.group, torch.where(some, weight, 1.0))


@part
class SignalToNoise(Controller):
    r"""The learning rate falls where the gradient is mostly noise: a factor SNR / (1 + SNR).

    .. math:: \eta = \eta_{max}\,\frac{\mathrm{SNR}}{1 + \mathrm{SNR}},\qquad \mathrm{SNR} = \frac{\|\nabla J\|^2}{\sigma^2}

    Signal and noise are those that the engine finds from four parts of each mini-batch, averaged exponentially over the steps, each by
    itself; eta_max is the learning rate of the run. Source: OBLR-PO, arXiv:2511.23310, derived from its abstract (the best step of an
    L-smooth objective). Our reading: averages, bounds, a start at the full rate, and that the same factor is right for Adam.
    """

    field: str = "update.rate"
    """Path of the factor."""
    signal: str = dataclasses.field(default="gradient/signal", kw_only=True)
    """The metric of the squared length of the true gradient."""
    noise: str = dataclasses.field(default="gradient/noise", kw_only=True)
    """The metric of the variance of the measured one."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of both averages, which are corrected for their beginning at 0."""
    hold: Whole = 5
    """Measurements before it moves."""
    least: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Smallest factor."""

    asks: ClassVar[frozenset[str]] = frozenset({"gradient noise"})

    def start(self) -> dict[str, float]:
        return {"seen": 0.0, "signal": 0.0, "noise": 0.0}

    def __call__(self, value: Any, metrics: Mapping[str, float], state: dict[str, float]) -> Any:
        if self.signal not in metrics or self.noise not in metrics:
            return value
        state["seen"] += 1
        for name, metric in (("signal", self.signal), ("noise", self.noise)):
            state[name] = self.momentum * state[name] + (1 - self.momentum) * metrics[metric]
        if state["seen"] <= self.hold:
            return value
        return max(self.least, factor(state["signal"], state["noise"]))


def factor(signal: float, noise: float) -> float:
    """SNR / (1 + SNR), 0 where the signal is drowned."""
    held = max(signal, 0.0)
    return held / (held + noise) if held + noise > 0 else 1.0


@method(
    parent=reinforce,
    arxiv="2511.23310",
    confidence="abstract",
    claim=Claim(
        "The baseline of least variance and a rate that follows the signal in the gradient train more steadily and further.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.01),),
        theirs={"baseline": "group-mean", "group-size": 8},
    ),
)
def oblr_po(
    leave_one_out: bool = False, adapt_lr: bool = True, momentum: float = 0.9, hold: int = 5, least: float = 0.05, group_size: int = 8
) -> Recipe:  # fmt: skip
    r"""Optimal Baseline and Learning Rate: rewards against a mean weighted by score norms, at a rate that follows the gradient's signal.

    .. math:: A_i = R_i - \frac{\sum_j\|s_j\|^2R_j}{\sum_j\|s_j\|^2},\qquad \eta = \eta_{max}\,\frac{\mathrm{SNR}}{1+\mathrm{SNR}}

    s is the gradient of the log-probability of a response (:class:`LeastVariance`); SNR what four parts of a mini-batch say of the
    gradient (:class:`SignalToNoise`, metrics ``gradient/signal`` and ``gradient/noise``), for which the engine holds one gradient more.
    ``adapt_lr=False`` leaves the rate to the run. Source: arXiv:2511.23310, whose abstract names both; the formulas are derived from it.
    Our reading: all of the above, and REINFORCE as the loss.
    """
    parent = reinforce(baseline="none", group_size=group_size)
    controller = SignalToNoise(momentum=momentum, hold=hold, least=least)
    return parent.replace(
        advantage=LeastVariance(leave_one_out=leave_one_out), controllers=(controller,) if adapt_lr else ()
    )
