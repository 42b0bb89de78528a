"""VPPO."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Advantage, Fraction, Look, Unit, Whole, Wrapper, part
from policyopt.parts import Likelihood, Normalise, PPOClip, SelectedWeight, Selector
from policyopt.recipe import Recipe, Update, require
from policyopt.registry import method
from policyopt.rows import Batch, held, masked, masked_mean

MOST = 10.0
"""What the dependency of a token is held to."""


@part
class BlankedLines(Look):
    """The question with each of its lines emptied by chance, the last one, which asks, left as it is.

    It is the last message of the user; a question of one line is emptied as a whole. Source: VPPO, arXiv:2510.09285, where patches of
    an image are blackened; lines in their place are our reading for text.
    """

    share: Fraction = 0.5
    """How likely a line is emptied."""
    stay: Whole = 1
    """Lines at the end that stay."""

    def messages(self, messages: Sequence[Mapping[str, str]], key: tuple[int, ...]) -> list[Mapping[str, str]]:
        chance = random.Random(repr(("blanked", key)))
        last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        return [
            dict(m) | {"content": self._blanked(m["content"], chance)} if i == last else m
            for i, m in enumerate(messages)
        ]

    def _blanked(self, text: str, chance: random.Random) -> str:
        lines = text.split("\n")
        last = self.stay if self.stay < len(lines) else 0
        kept = len(lines) - last
        return "\n".join("" if i < kept and chance.random() < self.share else line for i, line in enumerate(lines))


def dependency(batch: Batch, look: Look) -> Tensor:
    r"""How far each token depends on what a look hides, [N, T].

    .. math:: d = \log\pi(y_t\mid c') - \log\pi_{old}(y_t\mid c),\qquad S_t = \min(e^d - d - 1,\,10)

    c is the true context, c' the other one. It is 0 where the log-probability does not move and grows on both sides; in expectation it is
    :math:`KL(\pi(\cdot|c)\|\pi(\cdot|c'))`. Source: VPPO, arXiv:2510.09285, and the authors' code, which has this estimate from the
    drawn token; the paper defines the whole divergence.
    """
    d = held(masked(batch.behind(look) - batch.old_logp, batch.mask))
    return masked((d.exp() - d - 1).clamp(0, MOST), batch.mask)


@part
class MostDependent(Selector):
    r"""The :math:`\lceil\rho|y_i|\rceil` tokens of each response that depend most on what a look hides (:func:`dependency`).

    Of equal ones the first. Source: VPPO, arXiv:2510.09285.
    """

    look: Look = BlankedLines()
    """What is hidden, and who looks."""
    share: Fraction = 0.4
    """rho."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.look.column})

    def __call__(self, batch: Batch) -> Tensor:
        mask = batch.mask.bool()
        ranked = torch.where(mask, dependency(batch, self.look), -math.inf)
        place = ranked.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        count = (
            self.share * batch.mask.sum(-1, keepdim=True) - 1e-6
        ).ceil()  # a product that rounds up is no token more
        return mask & (place < count)


@part
class DependencyScale(Wrapper, Advantage):
    r"""An advantage, larger on responses that depend more on what a look hides and smaller on the others; 1 times it in the mean.

    .. math:: \tilde A_{i,t} = c_i A_{i,t},\qquad c_i = \beta + z_i(\beta_{max} - \beta),\qquad
              z_i = \frac{\bar S_i - \min_j\bar S_j}{\max_j\bar S_j - \min_j\bar S_j},\qquad
              \beta_{max} = \beta + \frac{1 - \beta}{\bar z + 10^{-8}}

    :math:`\bar S_i` is the mean :func:`dependency` of the tokens of a response. Where all responses depend equally, c is 1. Source: VPPO,
    arXiv:2510.09285. Our reading: least, largest and mean over the batch that is credited (the code: the mean over a micro-batch).
    """

    inner: Advantage = Normalise()
    """The advantage."""
    look: Look = BlankedLines()
    """What is hidden, and who looks."""
    least: Fraction = 0.9
    """beta, the factor of the response that depends least."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What the inner one reads, and the look."""
        return super().needs | {self.look.column}

    def score(self, batch: Batch) -> Tensor:
        """The mean dependency of each response, [N]."""
        return masked_mean(dependency(batch, self.look), batch.mask, dim=-1)

    def scale(self, batch: Batch) -> Tensor:
        """c, [N]."""
        score = self.score(batch)
        if not len(score):
            return score
        low, high = score.min(), score.max()
        z = (score - low) / torch.where(high > low, high - low, 1.0)
        most = self.least + (1 - self.least) / (z.mean() + 1e-8)
        return torch.where(high > low, self.least + z * (most - self.least), 1.0)

    def __call__(self, batch: Batch) -> Tensor:
        return self.scale(batch)[:, None] * self.inner(batch)


@method(
    parent=dapo,
    arxiv="2510.09285",
    code="huaixuheqing/VPPO-RL",
    confidence="code",
    claim=Claim(
        "The tokens that hang on what is looked at are the ones to train: the training falls on those that copy from the question, and as many steps lead "
        "to more right answers.",
        "context-use",
        (Effect("span[copied]/weight", "higher", 0.1), Effect("accuracy", "higher", 0.02)),
        both={"steps": 8, "eval.every": 4, "watch": r"copied=(?m)^[a-h]\d$"},
    ),
)
def vppo(
    top_ratio: float = 0.4,
    scale_min: float = 0.9,
    blank: float = 0.5,
    penalty: float = 0.06,
    low: float | None = 0.2,
    high: float | None = 0.28,
    dual_clip: float | None = 3.0,
    rounds: int = 10,
    epochs: int = 1,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""Visually-Perceptive Policy Optimization, for text: DAPO on the tokens that depend on the context, found by hiding parts of it.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} M_{i,t}\,\ell_{clip}(r_{i,t}, c_i A_i) - \frac{\kappa}{\sum_i|y_i|}\sum_{i,t}\log\pi_\theta(y_{i,t})

    The policy that sampled scores each response once more behind the question with lines emptied at random (:class:`BlankedLines`, each
    with probability ``blank``). M picks the ``top_ratio`` tokens of a response whose log-probability that moves most
    (:class:`MostDependent`); the divisor counts all. c is larger where the whole response depends more, between ``scale_min`` and
    what makes its mean 1 (:class:`DependencyScale`). ``penalty`` is kappa, the authors' entropy penalty, a likelihood of what was drawn.
    Clip 0.2, 0.28 and 3. Source: arXiv:2510.09285 and the authors' code. Their runs make 2 passes in 3 mini-batches (``epochs``,
    ``minibatches``) of 384 responses to pictures. Our reading: lines for patches; the batch's statistics where the code takes a
    micro-batch's; the reward is the judge's, without DAPO's length penalty; no union with the tokens of most entropy.
    """
    look = BlankedLines(share=blank)
    parent = dapo(low, high, rounds=rounds, group_size=group_size)
    return parent.replace(
        shape=(),
        advantage=DependencyScale(inner=require(parent.advantage), look=look, least=scale_min),
        surrogate=PPOClip(low, high, dual=dual_clip),
        weight=(SelectedWeight(MostDependent(look, share=top_ratio)),),
        regularizers=(Likelihood(coef=penalty, rows=None),) if penalty else (),
        update=Update(epochs=epochs, minibatches=minibatches),
    )
