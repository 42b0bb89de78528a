"""PRL."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.group.grpo import grpo
from policyopt.part import UNITS, Advantage, Count, Positive, Unit, Wrapper, part
from policyopt.parts import Normalise
from policyopt.recipe import Recipe, require
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class StillToPay(Wrapper, Advantage):
    r"""The advantage of the outcome, less the distance from the reference that a step has still to pay.

    .. math:: A_{i,t} = A_i - \frac1\eta\sum_{j \ge e(t)} \Delta_{i,j},\qquad \Delta_{i,j} = \log\pi_{old}(y_{i,j}) - \log\pi_{ref}(y_{i,j})

    e(t) is the last token of the step that t lies in, or its first one. A step is a block of tokens of the policy, or a line; what is
    left at the end is a step too. Log-ratios before the step do not depend on it and are left out as a baseline. With blocks of one token the expected gradient
    is that of reward minus KL over eta; it is so with any blocks that pay from their first token. Source: PRL, arXiv:2601.10201, and the authors'
    code (MaxwellJryao/Process-Reward-Learning), where a step of value 0 takes that of the next one: a slip that is not kept.
    """

    of: Advantage = Normalise()
    """The advantage of the outcome."""
    eta: Positive = 100.0
    """eta: a log-ratio of so many nats weighs as much as an advantage of 1."""
    step_len: Count | None = 256
    """Tokens of a step; None takes the lines of the response."""
    since: Literal["end", "start"] = "end"
    """The token of a step from which on it pays: its last or its first one."""

    around: ClassVar[str] = "of"

    @property
    def needs(self) -> frozenset[str]:
        """The reference, and where lines end if they are the steps."""
        return self.of.needs | {"ref_logp"} | ({"step_end"} if self.step_len is None else set())

    @property
    def unit(self) -> Unit:
        """At least the row."""
        return max(self.of.unit, "row", key=UNITS.index)

    def __call__(self, batch: Batch) -> Tensor:
        gap = masked(batch.old_logp - batch.ref_logp, batch.mask)
        owed = gap.flip(-1).cumsum(-1).flip(-1).gather(1, self.payer(batch))
        return self.of(batch) - masked(owed, batch.mask) / self.eta

    def ends(self, batch: Batch) -> Tensor:
        """Which tokens end a step, boolean [N, T]."""
        last = batch.terminal().bool()
        if self.step_len is not None:
            return last | (batch.mask.bool() & (batch.mask.long().cumsum(-1) % self.step_len == 0))
        there = batch.step_end >= 0
        found = torch.zeros_like(batch.mask).scatter_add(1, batch.step_end.clamp(min=0), there.to(batch.mask))
        return last | (found > 0)

    def payer(self, batch: Batch) -> Tensor:
        """[N, T] the index of the token from which on the step of each token pays; of no account on padding."""
        ends, width = self.ends(batch), batch.mask.shape[1]
        place = torch.arange(width, device=batch.mask.device).expand(batch.mask.shape)
        if self.since == "end":
            later = torch.where(ends, place, width - 1).flip(-1)
            return later.cummin(-1).values.flip(-1)
        begins = torch.nn.functional.pad(ends[:, :-1], (1, 0), value=True)
        return torch.where(begins, place, 0).cummax(-1).values


@method(
    parent=grpo,
    arxiv="2601.10201",
    code="MaxwellJryao/Process-Reward-Learning",
    confidence="code",
    claim=Claim(
        "Steps are credited by what is still to be paid to the reference: more is solved than with GRPO, at once and within several attempts.",
        "many-answers",
        (Effect("accuracy", "higher", 0.01), Effect("pass@4", "higher", 0.01)),
        ours={"step-len": 8},
    ),
)
def prl(
    eta: float = 100.0,
    step_len: int | None = 256,
    since: Literal["end", "start"] = "end",
    low: float | None = 0.2,
    high: float | None = 0.2,
    group_size: int = 8,
) -> Recipe:
    r"""Process Reward Learning: a step's credit is the outcome less the log-ratio to the reference from that step on.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean}}{\mathrm{std} + \epsilon} - \frac1\eta\sum_{j\ge e(t)}\log\frac{\pi_{old}(y_{i,j})}{\pi_{ref}(y_{i,j})}

    It takes the place of the KL in the loss: both have the same optimum, so there is no other. e(t) is the last token of the block of
    ``step_len`` tokens around t (None: of the line). With eta without bound, or a policy that is the reference, it is GRPO. Source:
    arXiv:2601.10201 and the authors' code (MaxwellJryao/Process-Reward-Learning): eta 100 to 200, blocks of 256 or 64 tokens, groups of 5. Our
    reading: the outcome is normalised and then the log-ratios are taken off, as in their main runs; the sum begins with
    the last token of the step as in the code, and with its first one (``since`` "start") as the theory has it.
    """
    parent = grpo(low, high, kl_coef=0.0, group_size=group_size)
    credit = StillToPay(of=require(parent.advantage), eta=eta, step_len=step_len, since=since)
    return parent.replace(advantage=credit)
