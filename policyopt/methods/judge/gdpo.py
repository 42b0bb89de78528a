"""GDPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Decoupled, Normalise
from policyopt.recipe import Recipe
from policyopt.registry import method


@method(
    parent=grpo,
    arxiv="2601.05242",
    code="NVlabs/GDPO",
    confidence="secondary",
    claim=Claim(
        "Rewards that are normalised each by itself keep apart what their sum makes equal: several demands are met better at once.",
        "json",
        (Effect("accuracy", "higher", 0.01), Effect("format", "higher", 0.0)),
        ours={"kl-coef": 0.0},
        theirs={"kl-coef": 0.0},
    ),
)
def gdpo(
    low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.04, eps: float = 1e-6, group_size: int = 8
) -> Recipe:
    r"""Group reward-Decoupled Normalization: every reward is normalised in its group, then they are summed up and whitened over the batch.

    .. math:: A_i = \frac{S_i - \mathrm{mean}_{batch}(S)}{\mathrm{std}_{batch}(S) + \epsilon},\qquad
              S_i = \sum_k w_k\frac{r^k_i - \mathrm{mean}_G(r^k)}{\mathrm{std}_G(r^k) + \epsilon}

    Under a sum, one right answer in bad form and one wrong in good form are worth the same wherever the weights agree; here they differ as
    their groups do. The rewards are the parts of the judge, or several judges (``--judge NAME=JUDGE:WEIGHT``), whose weights are
    the w unless ``--recipe.advantage.weights`` says others; with a single reward it is GRPO, whitened. A reward counts where it
    applies. Any method can have it: ``--recipe.advantage Decoupled``. Source: arXiv:2601.05242; the same numbers as TRL's
    ``multi_objective_aggregation="normalize_then_sum"``, whose ``eps`` is 1e-4. Each row counts once in the batch, as there;
    verl's ``gdpo`` whitens over tokens. Our reading: ddof 1.
    """
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(
        advantage=Decoupled(inner=Normalise(eps=eps), eps=eps)
    )
