"""DRPO, the one with decoupled rewards."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max
from policyopt.methods.contrast.disco import disco
from policyopt.part import Positive, Unit, part
from policyopt.parts import Correctness, RowWeight
from policyopt.parts.shape.length import token_limit
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class ShorterMore(RowWeight):
    r"""More for shorter right responses, nothing for wrong ones.

    .. math:: w_i \propto \exp\big((1 - |y_i|/L)/\lambda\big)

    Only ratios within a group count, so the shortest right response to a prompt has 1. It is what maximises :math:`E[1 - |y|/L]` less lambda times the KL to the
    right responses of the policy that drew. Source: DRPO, arXiv:2510.04474.
    """

    lam: Positive = 0.1
    """lambda; the smaller, the more the shortest ones count."""
    max_len: Positive | None = None
    """L; None: the budget of the run."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        length, right = batch.length().to(batch.reward), batch.correct > 0.5
        most = token_limit(batch, self.max_len)
        value = torch.where(right, -length / most / self.lam, -torch.inf)
        best = group_max(value, batch.group)  # taken out, so that no exponential overflows
        return torch.where(right, (value - best).exp(), 0.0)


@method(
    parent=disco,
    arxiv="2510.04474",
    code="Optimization-AI/DRPO",
    confidence="code",
    claim=Claim(
        "Short right answers count more among the right ones, and none is ever held to be bad: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def drpo_decoupled(
    lam: float = 0.1, max_len: float | None = None, tau: float | None = 10.0, beta: float = 1e3, delta: float = 1e-4, minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""Decoupled Reward Policy Optimization: length decides how right answers count among themselves, never whether an answer is good.

    .. math:: L = -\frac1Q\sum_q\Big(\sum_{i\in P_q}\tilde w_i s_i - \tau\log\frac{1}{|N_q|}\sum_{j\in N_q}e^{s_j/\tau}\Big) + \frac\beta2\max(D - \delta, 0)^2,\qquad
              \tilde w_i = \frac{e^{(1 - |y_i|/L)/\lambda}}{\sum_{j\in P_q} e^{(1 - |y_j|/L)/\lambda}}

    P_q and N_q are the right and the wrong answers to prompt q, s the mean log-probability of a response. A price on length inside of an advantage makes right but long answers worse
    than the mean, so that they are unlearnt; here every right answer is raised, the short ones more (:class:`ShorterMore`), and wrong ones are pushed down whatever their length. A large ``lam`` is
    DisCO; a small one raises the shortest right answer alone. Prompts without right or without wrong answers add nothing, but count in Q. L = ``max_len``. Source: arXiv:2510.04474 and the authors'
    code (Optimization-AI/DRPO), whose loss has another value and the same gradient; there L is the padded width, 8192 tokens.
    """
    recipe = disco(tau=tau, beta=beta, delta=delta, minibatches=minibatches, group_size=group_size)
    return recipe.set("surrogate.weight", ShorterMore(lam=lam, max_len=max_len)).replace(
        shape=(Correctness(wrong=0.0),)
    )
