"""Kimi k1.5."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Curriculum, NonNegative, Surrogate, Unit, part
from policyopt.parts import (
    Correctness,
    LastAccuracy,
    LengthReward,
    Normalise,
    PromptMean,
    SeqMeanTokenSum,
    ShortestToLongest,
)
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class MirrorDescent(Surrogate):
    r"""The score function of a whole response, and the square of how far it has become likelier or less likely.

    .. math:: \ell_i = -A_i\log\pi_\theta(y_i) + \frac{\tau}{2}\Big(\log\frac{\pi_\theta(y_i)}{\pi_{old}(y_i)}\Big)^2,\qquad
              \frac{\partial\ell_i}{\partial\log\pi_\theta(y_{i,t})} = -A_i + \tau\log\frac{\pi_\theta(y_i)}{\pi_{old}(y_i)}

    Log-probabilities are summed over the response, and all of its tokens have the same gradient. There is no ratio and no clip. Source: Kimi k1.5,
    arXiv:2501.12599, section 2.3.2: the squared residual of what an optimum under a KL to the policy that drew satisfies.
    """

    tau: NonNegative = 0.1
    """tau."""

    unit: ClassVar[Unit] = "row"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        moved = masked(batch.logp - batch.old_logp, batch.mask).sum(-1, keepdim=True)
        share = moved**2 / batch.mask.sum(-1, keepdim=True).clamp(min=1)  # summed over the tokens it is the square
        return -batch.advantage * batch.logp + self.tau / 2 * share


@part
class ByFailure(Curriculum):
    """Prompts in proportion to how often they were answered wrong at their last visit; new ones as if they always had been.

    Source: Kimi k1.5, arXiv:2501.12599, section 2.3.4. Our reading: those that were all right come only where no others are left.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def weights(self, memory: Tensor) -> Tensor:
        return 1 - memory[:, 0].nan_to_num(0.0)


@method(
    parent=reinforce,
    arxiv="2501.12599",
    confidence="paper",
    claim=Claim(
        "A reward for being shorter than the other answers to the same question: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def kimi_k1_5(tau: float = 0.1, weight: float = 0.5, prioritised: bool = True, group_size: int = 8) -> Recipe:
    r"""Kimi k1.5: mirror descent on whole responses, without ratio, clip or critic, and a reward for being shorter than one's peers.

    .. math:: L = -\frac1k\sum_j\Big[(R_j - \bar R)\log\pi_\theta(y_j) - \frac{\tau}{2}\Big(\log\frac{\pi_\theta(y_j)}{\pi_{old}(y_j)}\Big)^2\Big],\qquad
              R_j = c_j + w\begin{cases}\lambda_j & c_j = 1\\ \min(0, \lambda_j) & c_j = 0\end{cases},\quad
              \lambda_j = \tfrac12 - \frac{|y_j| - l_{min}}{l_{max} - l_{min}}

    R-bar is the mean over the k responses to the prompt. On the first update of a batch the gradient is that of REINFORCE with this baseline, whatever tau; later updates are
    pulled back to the policy that drew. Prompts are drawn in proportion to how often they fail (``prioritised``). Source: arXiv:2501.12599; tau, w and k are not published: 0.1, 0.5 and 8 are ours.
    Theirs adds the length reward after a phase without it (``weight`` 0), resets the optimiser at every iteration and goes on with responses that hit a limit at
    the next one: that is not here. Its ways from long to short answers after training are ``policyopt merge`` and pairs of the shortest right answers against longer ones.
    """
    length = LengthReward(coef=weight, reference=ShortestToLongest(), right=(0.5, -0.5), wrong=(0.5, -0.5), cap=0.0)
    return reinforce(baseline="none", group_size=group_size).replace(
        shape=(Correctness(wrong=0.0), length),
        advantage=Normalise(centre="group", scale="none"),
        surrogate=MirrorDescent(tau=tau),
        aggregate=PromptMean(inner=SeqMeanTokenSum()),
        memory=LastAccuracy() if prioritised else None,
        curriculum=ByFailure() if prioritised else None,
    )
