"""GPG."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_sum
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Unit, Wrapper, part
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class ForSilentGroups(Wrapper, Advantage):
    r"""An advantage times the number of rows over that of the rows whose group teaches something.

    .. math:: \alpha = \frac{B}{B - M}

    B is the number of rows, M of those in groups whose advantages are all 0: they count in the denominator of the loss and
    have no gradient, so that a batch with many of them makes a small step. A batch without signal stays as it is. Source: GPG, arXiv:2504.02546,
    and AMAP-ML/GPG (``adjust_gd``), which counts groups: the same where all have one size. verl's ``gpg`` divides by the number of rows whose reward is not 0 instead.
    """

    inner: Advantage = Normalise()
    """The advantage."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        advantage = self.inner(batch)
        teaches = group_sum((advantage.abs() * batch.mask).sum(-1), batch.group) > 0
        return advantage * len(batch) / teaches.sum().clamp(min=1)


@method(
    parent=reinforce,
    arxiv="2504.02546",
    code="AMAP-ML/GPG",
    confidence="code",
    claim=Claim(
        "The plain policy gradient with a group's mean as its baseline needs no surrogate, no critic and no reference, and does better than GRPO in less time.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01), Effect("seconds/step", "lower", 0.02)),
        against="grpo",
    ),
)
def gpg(scale: Literal["none", "group"] = "none", group_size: int = 8) -> Recipe:
    r"""Group Policy Gradient: REINFORCE against the group's mean reward, scaled up for the groups that teach nothing.

    .. math:: L = -\frac{\alpha}{\sum_i |y_i|}\sum_{i,t}\frac{R_i - \bar R}{F}\log\pi_\theta(y_{i,t}),\qquad \alpha = \frac{B}{B - M}

    R-bar is the mean over the responses to the prompt, F is 1 or, with ``scale`` "group", the standard deviation; alpha that of
    :class:`ForSilentGroups`. No ratio, no clip, no KL. Source: arXiv:2504.02546, and AMAP-ML/GPG; groups of 8. The
    authors also draw again until half of the groups differ in reward; our reading leaves that out: a filter that draws every
    equal group anew (:func:`~policyopt.methods.clip.dapo.dapo`) makes alpha 1.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        advantage=ForSilentGroups(inner=Normalise(centre="group", scale=scale)), aggregate=TokenMean()
    )
