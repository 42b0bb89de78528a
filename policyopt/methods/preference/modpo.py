"""MODPO."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Finite, RoleName, part
from policyopt.parts import Hinge, Logistic, Margin
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.schema import member
from policyopt.sources.given import PreferencePairs


@part
class ColumnMargin(Margin):
    r"""What a column says that the two differ by, :math:`c\,(x_w - x_l)`.

    For rewards of other objectives that the task brings. Source: MODPO, arXiv:2310.03708.
    """

    column: str
    """x, a column [N] of the batch."""
    coef: Finite = 1.0
    """c."""

    @property
    def needs(self) -> frozenset[str]:
        """The column."""
        return frozenset({self.column})

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        x = batch.columns()[self.column]
        return self.coef * (x[better] - x[worse])


@part
class ModelMargin(Margin):
    r"""What a frozen model that was trained by DPO on another preference thinks that the two differ by.

    .. math:: c\,(h_w - h_l),\qquad h = \sum_t(\log\pi_{role} - \log\pi_{ref})

    c h is the reward that DPO has fitted, with c the strength of the KL in that run. Source: MODPO, arXiv:2310.03708.
    """

    role: RoleName = "teacher"
    """The model."""
    coef: Finite = 0.1
    """c."""

    @property
    def needs(self) -> frozenset[str]:
        """What both models think of the texts."""
        return frozenset({member("logp_of", self.role), "ref_logp"})

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        h = masked(batch.logp_of(self.role) - batch.ref_logp, batch.mask).sum(-1)
        return self.coef * (h[better] - h[worse])


@part
class SumOfMargins(Margin):
    """Several margins, added up: one for each objective."""

    of: tuple[Margin, ...] = ()
    """The margins."""

    @property
    def needs(self) -> frozenset[str]:
        """What any of them reads."""
        return frozenset().union(*(m.needs for m in self.of))

    def __call__(self, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        total = batch.mask.new_zeros(len(better))
        for margin in self.of:
            total = total + margin(batch, better, worse)
        return total


@method(
    parent=dpo,
    arxiv="2310.03708",
    code="ZHZisZZ/modpo",
    confidence="code",
    claim=Claim(
        "Runs at several weights draw the front of what two objectives allow, at a third of the compute of reinforcement learning.",
        beyond="A front is a sweep of runs with another objective's rewards, and a claim here is one run against another.",
    ),
)
def modpo(
    beta: float = 0.1,
    weights: tuple[float, ...] = (0.5, 0.5),
    objectives: tuple[str, ...] = ("score",),
    models: tuple[str, ...] = (),
    role_beta: float = 0.1,
    link: Literal["logistic", "hinge"] = "logistic",
) -> Recipe:
    r"""Multi-Objective DPO: pairs of one objective, where what other objectives say of the two texts is taken off first.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma\Big(\frac{1}{w_0}\Big[\beta(h_w - h_l) - \sum_{k\ge1}w_k\big(m_k(y_w) - m_k(y_l)\big)\Big]\Big),\qquad
              h = \sum_t\log\frac{\pi_\theta}{\pi_{ref}}

    The optimum of a weighted sum of rewards under a KL of strength beta has :math:`w_0r_0 = \beta h - \sum_kw_km_k` up to a constant of the prompt;
    that is the reward that the pairs are to be explained by. ``weights`` are w_0 (above 0), and one for each of ``objectives`` and then of
    ``models``. An objective is a number that the task brings for each text (``chosen_score`` and ``rejected_score`` for ``score``), a model a frozen
    model that DPO has trained for another objective with ``role_beta`` (``--role NAME=PATH``): its reward is its log-ratio to the
    reference. What a weight means depends on the scale of the rewards, which are taken as they are. Weights of (1, 0, ...) are DPO. The
    ``hinge`` is :math:`\max(0, 1 - z)`. Defaults from the authors' code, which sweeps w over (w, 1 - w).
    Raises ``ValueError`` where the weights are not one more than the other objectives, or w_0 is not above 0.
    """
    if len(weights) != 1 + len(objectives) + len(models) or weights[0] <= 0:
        raise ValueError(
            f"weights {weights}: expected one above 0 for the objective of the pairs, then one for each of "
            f"{', '.join((*objectives, *models)) or 'no others'}"
        )
    first, *others = weights
    share = [w / first for w in others]
    margins: list[Margin] = [ColumnMargin(column=c, coef=w) for c, w in zip(objectives, share, strict=False)]
    margins += [ModelMargin(role=r, coef=w * role_beta) for r, w in zip(models, share[len(objectives) :], strict=True)]
    return (
        dpo()
        .replace(source=PreferencePairs(columns=objectives))
        .set(
            "surrogate.link",
            (Logistic if link == "logistic" else Hinge)(beta=beta / first, margin=SumOfMargins(of=tuple(margins))),
        )
    )
