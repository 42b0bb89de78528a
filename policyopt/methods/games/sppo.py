"""SPPO."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import preferred
from policyopt.methods.games.online_dpo import online_dpo
from policyopt.part import Positive, part
from policyopt.parts import Link, RowScore, WinRate
from policyopt.parts.pairing.pairs import row_credit
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch

Wins = Literal["rate", "pair", "hard"]


@part
class ToWins(Link):
    r"""Each of the two scores, fitted to how often its response wins.

    .. math:: \ell = \tfrac12\Big[\Big(s_w - \frac{P_w - 1/2}{\beta}\Big)^2 + \Big(s_l - \frac{P_l - 1/2}{\beta}\Big)^2\Big]

    P is the advantage of the response, its win rate ("rate"), the probability that one of the two is better than the other ("pair"), or 1 and
    0 ("hard"). The gradient of one side does not depend on the other response. Source: SPPO, arXiv:2405.00675, and its code
    (uclaml/SPPO: ``sppo``, ``sppo_single``); "hard" is twice smaller than TRL's ``sppo_hard``.
    """

    beta: Positive = 1e-3
    """beta: the target of a sure win is 1/(2 beta), in nats per response."""
    wins: Wins = "rate"
    """What P is."""

    def targets(self, batch: Batch, better: Tensor, worse: Tensor) -> tuple[Tensor, Tensor]:
        """P - 1/2 of the better and of the worse response of each pair, [P] each."""
        if self.wins == "rate":
            credit = row_credit(batch)
            return credit[better] - 0.5, credit[worse] - 0.5
        lead = (
            preferred(batch, 1.0)[better, worse] - 0.5
            if self.wins == "pair"
            else 0.5 * torch.ones_like(batch.mask[better, 0])
        )
        return lead, -lead

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        up, down = self.targets(batch, better, worse)
        return ((score[better] - up / self.beta) ** 2 + (score[worse] - down / self.beta) ** 2) / 2


@method(
    parent=online_dpo,
    arxiv="2405.00675",
    code="uclaml/SPPO",
    confidence="code",
    claim=Claim(
        "Where preferences run in a circle, win rates against itself keep a policy hard to beat; a reward fitted to them leads to one answer "
        "that another one beats.",
        "cyclic",
        (Effect("exploitability", "lower", 0.1),),
        against="grpo",
        ours={"group-size": 4, "beta": 5.0},  # for answers of ten tokens: 0.001 asks for 500 nats in every step
        theirs={"kl-coef": 0.0},
    ),
)
def sppo(beta: float = 1e-3, wins: Wins = "rate", minibatches: int = 4, group_size: int = 5) -> Recipe:
    r"""Self-Play Preference Optimization: each response's log-ratio to the policy that wrote it is fitted to how often it wins against
    the policy's others.

    .. math:: L = \mathrm{mean}_{pairs}\tfrac12\Big[\Big(\rho_w - \frac{P_w - 1/2}{\beta}\Big)^2 + \Big(\rho_l - \frac{P_l - 1/2}{\beta}\Big)^2\Big],
              \qquad \rho = \sum_t\log\frac{\pi_\theta}{\pi_t}(y_t),\quad P_i = \frac1K\sum_j P(y_i \succ y_j)

    Multiplicative weights in a constant-sum game: the next policy is :math:`\pi_t e^{P/\beta}` up to its normaliser, which is taken to be
    :math:`e^{1/(2\beta)}`; so the averages of the policies come to the one that nothing beats. The pair are the best and the worst of
    K = ``group_size`` responses; a response ties with itself. Both are fitted by themselves: the rejected one goes up too where it wins
    more than half the time. A judge that compares says P; scores make it, :math:`P_{ij} = \sigma(R_i - R_j)`. ``wins`` "pair" takes P of
    the one against the other in the place of the win rates, "hard" takes 1 and 0. Losses near 1/(4 beta^2) are normal.

    A round is a step here: its batch is drawn by pi_t and used for ``minibatches`` updates, in which pi_t stays what it was. Source:
    arXiv:2405.00675 and the authors' code (beta 1e-3, 5 responses, learning rate 5e-7, 3 rounds of 20,000 prompts). Our reading: many
    small rounds in the place of three large ones.
    """
    shape = () if wins == "pair" else (WinRate(scale=1.0, itself=True),)
    return (
        online_dpo(group_size=group_size)
        .replace(shape=shape, update=Update(minibatches=minibatches))
        .set("surrogate.score", RowScore(against="old"))
        .set("surrogate.link", ToWins(beta=beta, wins=wins))
    )
