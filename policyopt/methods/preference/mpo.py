"""MPO."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import MovingAverage
from policyopt.methods.preference.dpo import dpo
from policyopt.part import NonNegative, part
from policyopt.parts import BinaryLogistic, Likelihood, Link, Logistic, Side
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Mixture(Link):
    r"""A weighted sum of several losses of the same pairs, :math:`\ell = \sum_k c_k\ell_k`.

    Two links of one class are told apart by their labels. Raises ``ValueError`` where weights are not as many as links.
    """

    of: Annotated[tuple[Link, ...], Field(min_length=1)] = (Logistic(), BinaryLogistic())
    """The losses."""
    weights: tuple[NonNegative, ...] = (0.8, 0.2)
    """c, one for each."""

    def __post_init__(self) -> None:
        if len(self.of) != len(self.weights):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} links: give one for each")

    @property
    def needs(self) -> frozenset[str]:
        """What any of the losses reads."""
        return frozenset().union(*(link.needs for link in self.of))

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        total = score.new_zeros(len(better))
        for weight, link in zip(self.weights, self.of, strict=True):
            total = total + weight * link(score, batch, better, worse)
        return total


@method(
    parent=dpo,
    arxiv="2411.10442",
    code="OpenGVLab/InternVL",
    confidence="secondary",
    claim=Claim(
        "Relative preference, absolute quality and how a good text is written at once: the preferred text stays likely, and as many pairs "
        "come to be in order as with DPO.",
        "pairs",
        (Effect("loglik/chosen", "higher", 0.05), Effect("pairs/accuracy", "higher", -0.02)),
        both={"steps": 10},
    ),
)
def mpo(
    beta: float = 0.1, preference: float = 0.8, quality: float = 0.2, generation: float = 1.0, momentum: float = 0.9
) -> Recipe:
    r"""Mixed Preference Optimization: DPO, BCO and the likelihood of the preferred text, added up.

    .. math:: L = c_p\,L_{dpo} + c_q\,L_{bco} + c_g\,L_{sft}

    :math:`L_{bco}` is that of :func:`bco` with the same beta, and its point of reference follows with ``momentum``; :math:`L_{sft}` is the mean over the tokens of
    all preferred texts. Weights 0.8, 0.2 and 1 as the paper has them, which is about InternVL. As TRL has it: ``loss_type`` with ``loss_weights``.
    Source: arXiv:2411.10442.
    """
    link = Mixture(of=(Logistic(beta=beta), BinaryLogistic(beta=beta)), weights=(preference, quality))
    shift = MovingAverage(field="surrogate.link.of.BinaryLogistic.shift", metric="kl/ref_response", momentum=momentum)
    return (
        dpo()
        .set("surrogate.link", link)
        .replace(regularizers=(Likelihood(coef=generation, rows=Side()),), controllers=(shift,))
    )
