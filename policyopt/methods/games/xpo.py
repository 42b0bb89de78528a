"""XPO."""

from __future__ import annotations

from policyopt.claims import Claim, Effect
from policyopt.methods.games.online_dpo import online_dpo
from policyopt.parts import FromProgram, Likelihood
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.draw import GroupFrom


@method(
    parent=online_dpo,
    arxiv="2405.21046",
    confidence="secondary",
    claim=Claim(
        "A bonus for leaving what the start model says finds answers that online DPO, which explores only where its policy already "
        "goes, does not try.",
        "many-answers",
        (Effect("distinct", "higher", 0.05), Effect("accuracy", "higher", -0.05)),
        ours={"alpha": 0.01},
    ),
)
def xpo(beta: float = 0.1, alpha: float = 1e-5) -> Recipe:
    r"""Exploratory Preference Optimization: online DPO of the policy's response against the reference's, which is made less likely
    whichever won.

    .. math:: L = -\mathrm{mean}_{pairs}\log\sigma(\beta(h_w - h_l)) + \alpha\,\mathrm{mean}_q\log\pi_\theta(\tilde y),\qquad
              y\sim\pi_\theta,\ \tilde y\sim\pi_{ref}

    The pair is y and y~ in the order that the judge finds. With the implicit reward :math:`\beta\log(\pi/\pi_{ref})` the value of the
    optimal policy is :math:`-\beta E_{\tilde y}\log(\pi_\theta/\pi_{ref})` up to a constant, so that the bonus is optimism: policies come
    first that promise most. Where the reference's response won, the bonus works against the pair. It has no lower bound: a large
    ``alpha`` unlearns the reference's text linearly. At alpha 0 it is :func:`online_dpo` on such pairs; as a special case it is
    :func:`vpo` with optimism, alpha over beta, and the reference's responses.

    Source: arXiv:2405.21046; alpha 1e-5 and beta 0.1: TRL's ``XPOTrainer``. Our reading: the pairs of this step alone, where the theory keeps
    all; a prompt whose two responses tie has no pair, and its bonus all the same.
    """
    parent = online_dpo(beta).replace(source=GroupFrom(size=2, own=1))
    bonus = Likelihood(coef=-alpha, rows=FromProgram(main=False), mean="prompt")
    return parent.replace(regularizers=(bonus,) if alpha else ())
