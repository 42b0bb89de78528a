"""OREO."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Count, Critic, NonNegative, Surrogate, Unit, part
from policyopt.parts import DistributionLoss, SeqMeanTokenMean
from policyopt.parts.critic.value import over_states
from policyopt.parts.pairing.pairs import row_credit
from policyopt.parts.statistic.jsd import JSD
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw.tree import extended
from policyopt.sources.program import Context, Question, Response, Rollout

Action = Literal["token", "step", "response"]


def action_starts(batch: Batch, action: Action) -> Tensor:
    """[N, T] 1 on the first token of each action: every token, the tokens that begin a step, or the first of all.

    A step ends where ``step_end`` says so; what comes after the last end is a step too.
    """
    mask = batch.mask
    if action == "token":
        return mask
    if action == "response":
        return mask * (mask.cumsum(-1) == 1)
    position = torch.arange(mask.shape[1], device=mask.device)
    ends = torch.where(batch.step_end >= 0, batch.step_end, mask.shape[1])
    step = (position[:, None] > ends[:, None, :]).sum(-1)
    own = torch.where(mask.bool(), step, -1).cummax(-1).values
    before = torch.nn.functional.pad(own[:, :-1], (1, 0), value=-1)
    return mask * (own > before)


def soft_returns(gain: Tensor, batch: Batch, beta: float) -> Tensor:
    r"""What each state is worth to the policy that made the gains, [N, T]: :math:`R_i - \beta\sum_{j\ge t}\ell_{i,j}`, from the
    log-ratios to the reference, ``gain`` [N, T]."""
    later = masked(gain, batch.mask).flip(-1).cumsum(-1).flip(-1)
    return row_credit(batch)[:, None] - beta * later


@part
class SoftBellman(Surrogate):
    r"""The squared residual of the soft Bellman equation, in which the policy moves and the critic stands still.

    .. math:: e_{i,t} = sg[V_{i,t}] + \beta\sum_{j\in a_t}\ell_{i,j} + \beta\,sg\Big[\sum_{j\text{ after }a_t}\ell_{i,j}\Big] - R_i,\qquad
              \ell = \log\frac{\pi_\theta}{\pi_{ref}},\qquad L_i = \frac{1}{|S_i|}\sum_{t\in S_i} e_{i,t}^2

    S_i [N, T] are the states in which an action a_t begins; R_i is the advantage of the row, which is its reward where
    nothing is subtracted. With tokens as actions the gradient of each token comes from its own residual alone: -e stands
    in the place of an advantage. Meant for ``seq-mean-token-mean``. Source: OREO, arXiv:2412.16145, and the authors' code
    (jwhj/OREO).
    """

    beta: NonNegative = 0.03
    """beta: reward worth one nat."""
    action: Action = "token"
    """What an action is; a step ends where ``step_end`` says so."""

    unit: ClassVar[Unit] = "row"

    @property
    def needs(self) -> frozenset[str]:
        """The reference, the critic, and the steps where they are the actions."""
        return frozenset({"ref_logp", "value", *(("step_end",) if self.action == "step" else ())})

    def residual(self, batch: Batch) -> Tensor:
        """e [N, T]; 0 where no action begins."""
        starts = action_starts(batch, self.action)
        gain = masked(batch.logp - batch.ref_logp, batch.mask)
        number = (starts.cumsum(-1) - 1).clamp(min=0).long()  # of the action that each token belongs to
        own = torch.zeros_like(gain).scatter_add(1, number, gain).gather(1, number)
        rest = soft_returns(gain, batch, self.beta) + self.beta * own  # the reward, less what comes after the action
        return masked(batch.value.detach() + self.beta * own - rest.detach(), starts)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return over_states(self.residual(batch) ** 2, action_starts(batch, self.action), batch.mask)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"bellman/residual": self.residual(batch).abs()}


@part
class SoftBellmanValue(Critic):
    r"""The squared residual of the soft Bellman equation, in which the critic moves and the policy stands still.

    .. math:: L_i = \frac{c}{|S_i|}\sum_{t\in S_i}(V_{i,t} - G_{i,t})^2,\qquad
              G_{i,t} = R_i - \beta\,sg\Big[\sum_{j\ge t}\log\frac{\pi_\theta}{\pi_{ref}}(y_{i,j})\Big]

    G follows the policy as it is trained. Where it is still the reference this is the regression of V on the rewards.
    Meant for ``seq-mean-token-mean``. Source: OREO, arXiv:2412.16145, and the authors' code (jwhj/OREO).
    """

    coef: NonNegative = 1.0
    """c."""
    beta: NonNegative = 0.03
    """beta, the same as the policy's."""
    action: Action = "token"
    """Whose first tokens are the states."""

    unit: ClassVar[Unit] = "row"

    @property
    def needs(self) -> frozenset[str]:
        """The reference, the critic, and the steps where they are the actions."""
        return SoftBellman(action=self.action).needs

    def target(self, batch: Batch) -> Tensor:
        return masked(soft_returns(batch.old_logp - batch.ref_logp, batch, self.beta), batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        returns = soft_returns((batch.logp - batch.ref_logp).detach(), batch, self.beta)
        starts = action_starts(batch, self.action)
        return self.coef * over_states((batch.value - returns) ** 2, starts, batch.mask)


async def ranked(context: Context, responses: Sequence[Response]) -> list[Response]:
    """The responses in the order of their values, the best first; those of the same value as they came."""
    values = await context.values(responses)
    order = sorted(range(len(responses)), key=lambda i: -values[i])
    return [responses[i] for i in order]


@part
class Beam(Rollout):
    """Step-level beam search: from each beam several next lines, of all lines those that lead to the best values.

    A beam that has ended waits for the others; at the end all that have ended are ranked by the value before their end
    token, and the ``size`` best are returned. Beams that are still open when the budget or ``steps`` is spent come after
    them. Source: OREO, arXiv:2412.16145, and the authors' code (jwhj/OREO): width 3, 3 lines from each, 20 steps, at
    temperature 1. Our reading: a line is valued with its line break.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"stop sequences"})

    size: Count = 1
    """Responses that are returned, fewer where the search ends with fewer."""
    width: Count = 3
    """Beams that are kept after each step."""
    samples: Count = 3
    """Next lines that are drawn from each."""
    steps: Count = 20
    """Most lines of a response."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    uses: ClassVar[frozenset[str]] = frozenset({"critic"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        beams = [Response([], [], [], temperature=self.temperature)]
        ended: list[Response] = []
        for step in range(self.steps):
            grown = await asyncio.gather(
                *(self._next(beam, question, context, (step, i)) for i, beam in enumerate(beams))
            )
            lines = [line for several in grown for line in several]
            ended += [line for line in lines if line.finished]
            beams = (await ranked(context, [line for line in lines if not line.finished]))[: self.width]
            if all(len(beam.tokens) >= question.budget for beam in beams):
                break
        return [*await ranked(context, ended), *beams][: self.size]

    async def _next(
        self, beam: Response, question: Question, context: Context, place: tuple[int, int]
    ) -> list[Response]:
        """A beam with each of several next lines; itself where it has spent the budget."""
        left = question.budget - len(beam.tokens)
        if left < 1:
            return [beam]
        drawn = await context.sampler.generate(
            (*question.tokens, *beam.tokens), n=self.samples, max_tokens=left, temperature=self.temperature,
            key=(*question.key, *place), stop=context.line_stops(), keep=True,
        )  # fmt: skip
        return [extended(beam, len(beam.tokens), line) for line in drawn]


@method(
    parent=reinforce,
    arxiv="2412.16145",
    code="jwhj/OREO",
    confidence="code",
    claim=Claim(
        "The soft Bellman equation holds whoever wrote the response: old batches teach more than a policy gradient has from them.",
        "stale",
        (Effect("accuracy", "higher", 0.02),),
        ours={"beam": 0},
    ),
)
def oreo(
    beta: float = 0.03,
    alpha: float = 0.01,
    action: Action = "token",
    beam: int = 3,
    group_size: int = 1,
) -> Recipe:
    r"""Offline REasoning Optimization: policy and critic are fitted together to the soft Bellman equation, and the critic
    then guides a search.

    .. math:: e_t = V(s_t) + \beta\sum_{j\ge t}\ell_j - R,\qquad \ell = \log\frac{\pi_\theta}{\pi_{ref}},\qquad
              L = \mathrm{mean}\,e_t(\ell_t)^2 + \mathrm{mean}\,e_t(V)^2 + \alpha\,KL(\pi_\theta\|\pi_{ref})

    The residual e is 0 in every state of every response where the policy is optimal under a KL to the reference and V is
    its soft value. Its square is descended twice: in the log-ratio of the state's own action, all else held, and in V, the
    policy held. Means run over the states of a response, then over responses. The equation holds for whoever wrote the
    response, so batches may be old (``update.replay``, ``--staleness``); no responses are compared.

    ``action`` is what is chosen in a state: a token; a step, which is a line of text here; or the whole response. The KL
    is exact, over the vocabulary. Before and after training the held-out questions are answered by beam search too, with
    ``beam`` lines by value (0 for none); in the place of ``source`` the same part draws what is trained on. Source:
    arXiv:2412.16145 and the authors' code; beta, alpha and the width are from their scripts. Our reading: the policy draws
    its own responses (their iterations) in the place of a fixed data set.
    """
    return reinforce(baseline="none", group_size=group_size).replace(
        ratio=None,
        surrogate=SoftBellman(beta=beta, action=action),
        aggregate=SeqMeanTokenMean(),
        regularizers=(DistributionLoss(of=JSD(beta=1.0, target="reference"), coef=alpha),) if alpha else (),
        critic=SoftBellmanValue(beta=beta, action=action),
        decode=Beam(width=beam, samples=beam) if beam else None,
    )
