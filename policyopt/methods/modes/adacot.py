"""AdaCoT."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Label, NonNegative, Shape, Span, part
from policyopt.parts import HasSpan, MeanOver, Regex, Selector
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.schema import member

USED = "thinks"
"""The component that says whether a response has a thought."""


@part
class TriggerPenalty(Shape):
    r"""Costs of a thought that is missing, of one that is superfluous, and of bad form.

    .. math:: R_i \leftarrow R_i - \alpha_1 (1 - u_i)\,n_i - \alpha_2\,u_i\,(1 - n_i) - \gamma\,1[\text{bad form}]

    u says whether the response has a thought, n whether its prompt needs one: the first two never fall due together. Without a label of the
    prompt each is a flat cost, :math:`\alpha_1(1 - u_i)` and :math:`\alpha_2 u_i`. Source: AdaCoT, arXiv:2505.11896.
    """

    miss: NonNegative = 0.3
    """alpha_1."""
    over: NonNegative = 0.1
    """alpha_2."""
    form: NonNegative = 1.0
    """gamma."""
    used: Label = USED
    """The component u."""
    needed: Label | None = None
    """The component n, which a judge gives from the data; None for flat costs."""

    @property
    def needs(self) -> frozenset[str]:
        """Both components, and the form where it counts."""
        said = {member("component", name) for name in (self.used, self.needed) if name is not None}
        return frozenset(said | ({"formatted"} if self.form else set()))

    def __call__(self, batch: Batch) -> Batch:
        missing, superfluous = self.due(batch)
        cost = self.miss * missing + self.over * superfluous
        return batch.replace(reward=batch.reward - (cost + self.form * (1 - batch.formatted) if self.form else cost))

    def due(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which rows lack a thought, and which have one too many, [N] each."""
        used = batch.component(self.used)
        if self.needed is None:
            return 1 - used, used
        needed = (batch.component(self.needed) > 0.5).to(used)
        return (1 - used) * needed, used * (1 - needed)


@part
class Outside(Selector):
    """The tokens that a span does not touch."""

    span: Span = Regex(r"<think>(?P<span>(?s:.))")
    """Which tokens are left out."""

    @property
    def needs(self) -> frozenset[str]:
        """The span."""
        return frozenset({self.span.column})

    def __call__(self, batch: Batch) -> Tensor:
        return torch.logical_and(batch.mask.bool(), batch.span(self.span) == 0)


@method(
    parent=ppo,
    arxiv="2505.11896",
    confidence="secondary",
    claim=Claim(
        "Thoughts are triggered where they are needed: easy questions are answered at once more often, and as many answers are right.",
        "modes",
        (Effect("component/skips_easy", "higher", 0.1), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"needed": "needed", "alpha2": 0.6, "group-size": 8, "epochs": 1, "kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def adacot(
    alpha1: float = 0.3, alpha2: float = 0.1, form_penalty: float = 1.0, needed: str | None = None, selective: bool = False, low: float | None = 0.2,
    high: float | None = 0.2, kl_coef: float = 0.05, epochs: int = 4, group_size: int = 1,
) -> Recipe:  # fmt: skip
    r"""Adaptive triggering of thoughts: PPO whose reward has a price for a thought that is missing and one for a thought that is superfluous.

    .. math:: R = R_{base} - \alpha_1 P_{miss} - \alpha_2 P_{over} - \gamma P_{form},\qquad L = \frac{1}{\sum_{i,t}M_{i,t}}\sum_{i,t} M_{i,t}\,\ell_{i,t}

    A response opens with ``<think>`` in either mode and closes it at once where it does not think. ``alpha1`` and ``alpha2`` move the boundary between the modes:
    the larger the first, the more responses think, the larger the second, the fewer. ``needed`` is the part in which a judge says for each prompt
    whether it needs a thought (1) or not (0); without it both are flat costs. Bad form (``form_penalty``) is what the judge says of it. The log has the trigger
    rate (``component/thinks``).

    With ``selective`` (selective loss masking) M leaves out the token right after ``<think>``, in which a response decides: it has no policy gradient and
    stands in no denominator, so that a stage on one kind of data, such as mathematics alone, leaves the decision where it is. The
    penalties then cannot move it either. The critic and a KL in the reward see all tokens.

    Source: arXiv:2505.11896, from a third party's account; the sizes of the penalties are not published, those here are ours. Our reading: penalties compare with a label of the prompt, which a large
    model gives there before training; the mean counts kept tokens alone.
    """
    thought = Regex(r"<think>\s*(?!</think>)\S", label="thought")
    parent = ppo(low, high, kl_coef=kl_coef, epochs=epochs, group_size=group_size)
    penalty = TriggerPenalty(miss=alpha1, over=alpha2, form=form_penalty, needed=needed)
    return parent.replace(
        shape=(HasSpan(span=thought, name=USED), penalty, *parent.shape),
        weight=(MeanOver(tokens=Outside()),) if selective else (),
    )
