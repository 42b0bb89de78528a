"""COPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt import schema
from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean, group_sum, whiten
from policyopt.judging.alike import answer_groups
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, NonNegative, Shape, Surrogate, Unit, Wrapper, part
from policyopt.parts import PPOClip
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

schema.column(
    "answer_id", dtype="int", filled_by="judge", absent=-1, invent=lambda s: s.integers(2),
    sentence="a number for the answer that a response gives: equal ones of one prompt are the same answer; below 0 where nobody says",
)  # fmt: skip
schema.column(
    "global_advantage", filled_by="part", invent=lambda s: s.normal(s.groups)[s.group],
    sentence="how much more often the row's prompt is solved than the other prompts of the batch, in standard deviations",
)  # fmt: skip
schema.column(
    "local_weight", filled_by="part", sentence="how much of the loss of a row is due to its own group, 0 to 1"
)


@part
class GlobalCredit(Shape):
    r"""Compares prompts with one another, and says by the entropy of their answers how much that counts.

    .. math:: A^g_q = \frac{g_q - \mathrm{mean}_{q'}\,g}{\mathrm{std}_{q'}\,g + \epsilon},\qquad g_q = \bar R_q\ \text{or}\ \bar R_q(1 - \lambda H_q),\ \
              \lambda = \frac{1 - 1/G}{\log_2 G},\qquad w_q = \sigma\big(k(H_q - b)\big),\qquad H_q = -\sum_z f_z\log_2 f_z

    f_z is the share of answer z among the G responses to prompt q. Mean and std (ddof 1) run over the prompts of the batch, each of which
    counts once; a single prompt has A^g = 0. Fills ``global_advantage`` and ``local_weight``; the reward stays. Two responses give the same answer where a judge says so
    (``answer_id``), else where the same text is found where answers stand, or the whole texts are the same; with neither
    numbers nor texts, where rewards are equal. Source: COPO, arXiv:2508.04138, and the authors' code (hijih/copo-code), which compares
    raw strings and adds 1e-8 inside the logarithm; that is left out here.
    """

    k: NonNegative = 20.0
    """Steepness of the blend per bit."""
    b: Finite = 0.5
    """b in bits, the entropy at which both count alike."""
    force_global: bool = True
    """w is 0 where all rewards of a group are equal: it has no contrast of its own."""
    consistency_coef: bool = False
    """Whether g has the factor of consistency."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    provides: ClassVar[frozenset[str]] = frozenset({"global_advantage", "local_weight"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Batch:
        return batch.replace(global_advantage=self.advantage(batch), local_weight=self.weight(batch))

    def advantage(self, batch: Batch) -> Tensor:
        """A^g of the prompt of each row, [N]."""
        size = group_sum(torch.ones_like(batch.reward), batch.group)
        rate = group_mean(batch.total_reward(), batch.group)
        if self.consistency_coef:
            rate = rate * (1 - (1 - 1 / size) / size.log2().clamp(min=1) * answer_entropy(batch))
        return whiten(rate, None, 1 / size, ddof=1, eps=self.eps)

    def weight(self, batch: Batch) -> Tensor:
        """w of each row, [N]."""
        weight = torch.sigmoid(self.k * (answer_entropy(batch) - self.b))
        if not self.force_global:
            return weight
        reward = batch.total_reward()
        alike = group_max(reward, batch.group) == -group_max(-reward, batch.group)
        return torch.where(alike, 0.0, weight)


def answer_entropy(batch: Batch) -> Tensor:
    """H of the prompt of each row in bits, [N]."""
    answer, one = answer_ids(batch), torch.ones_like(batch.reward)
    names, number = torch.unique(answer, return_inverse=True)
    key = batch.group * len(names) + number.to(batch.group)
    share = group_sum(one, key) / group_sum(one, batch.group)
    return group_mean(-share.log2(), batch.group)


def answer_ids(batch: Batch) -> Tensor:
    """[N] whole numbers: equal ones of one prompt are the same answer."""
    if batch.answer_id is not None and bool((batch.answer_id >= 0).all()):
        found: Tensor = batch.answer_id
        return found
    if batch.records is None:
        return torch.unique(batch.total_reward(), return_inverse=True)[1]
    return answer_groups(batch)


@part
class LocalAndGlobal(Wrapper, Surrogate):
    r"""A surrogate of two advantages, those of the row in its group and of its prompt in the batch.

    .. math:: w_i\,\ell(r_{i,t}, A_{i,t}) + (1 - w_i)\,\ell(r_{i,t}, A^g_i)

    A mixture of losses is no loss of a mixed advantage: where the two differ in sign, each is clipped on its own side. Source: COPO,
    arXiv:2508.04138, and the authors' code (hijih/copo-code).
    """

    inner: Surrogate = PPOClip(dual=3.0)
    """l."""

    @property
    def needs(self) -> frozenset[str]:
        """The second advantage and the weight of the first."""
        return self.inner.needs | {"global_advantage", "local_weight"}

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        w = batch.local_weight[:, None]
        other = batch.replace(advantage=batch.global_advantage[:, None] * batch.mask)
        return w * self.inner(log_ratio, batch) + (1 - w) * self.inner(log_ratio, other)


@method(
    parent=grpo,
    arxiv="2508.04138",
    code="hijih/copo-code",
    confidence="code",
    claim=Claim(
        "Groups with one outcome teach too, by how their prompt does among the others of the batch: more is solved than with GRPO.",
        "many-answers",
        (Effect("accuracy", "higher", 0.01),),
        theirs={"kl-coef": 0.0},
    ),
)
def copo(
    k: float = 20.0,
    b: float = 0.5,
    force_global: bool = True,
    consistency_coef: bool = False,
    low: float | None = 0.2,
    high: float | None = 0.2,
    dual: float | None = 3.0,
    kl_coef: float = 0.0,
    group_size: int = 8,
) -> Recipe:
    r"""Consistency-aware policy optimisation: prompts whose answers agree learn from how they do among the other prompts.

    .. math:: L = \frac1N\sum_i\frac1{|y_i|}\sum_t \big[w_i\,\ell(r_{i,t}, A_i) + (1 - w_i)\,\ell(r_{i,t}, A^g_{q(i)})\big] + \beta\,k3,\qquad
              w_q = \sigma(k(H_q - b))

    A is GRPO's advantage and A^g that of the prompt's mean reward among those of the batch (:class:`GlobalCredit`); l is PPO's clip with
    the ceiling ``dual``. H is the entropy of the answers to a prompt in bits: varied answers learn from one another, and a group with one answer
    from the batch. With ``force_global`` so does every group with one reward. Source: arXiv:2508.04138 and the authors' scripts (an
    ablation has k 5 and b 1; KL 0 or 0.001). Our reading: the soft blend with ``force_global``, one of several modes of the code, keeps the promise
    that groups of one outcome learn. A judge may say which answers are the same (the column ``answer_id``).
    """
    return grpo(low, high, kl_coef, group_size=group_size).replace(
        shape=(GlobalCredit(k=k, b=b, force_global=force_global, consistency_coef=consistency_coef),),
        surrogate=LocalAndGlobal(inner=PPOClip(low=low, high=high, dual=dual)),
    )
