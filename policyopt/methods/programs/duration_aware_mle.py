"""Duration-aware gradients and partial credit for machine learning engineering."""

from __future__ import annotations

import hashlib
import random
from typing import Any, ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Count, Finite, Fraction, Shape, Unit, Weight, part
from policyopt.parts.shape.components import silent
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Group
from policyopt.sources.program import Context, Question, Response

REQUEST = "Improve this program. It said: {said}"
"""What the policy is asked below its task and its earlier program."""
LONGEST = 4000
"""Characters of a program that is remembered."""


@part
class DurationWeight(Weight):
    r"""Weigh every response by how long its program ran, :math:`w_i = \Delta t_i / \overline{\Delta t}`, the mean over the mini-batch.

    Where actors do not wait for each other, a response whose program runs for :math:`\Delta t` comes :math:`1/\Delta t` as often, and the weight takes
    that back. Equal durations, or another unit of time, change nothing. A response whose program never ran has duration 0 and counts as one
    of mean duration. The component ``seconds``; where the judge does not give it, all weights are 1. Source: arXiv:2509.01684.
    """

    unit: ClassVar[Unit] = "batch"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        if silent(batch, ("seconds",)) or "seconds" not in batch.components():
            return torch.ones_like(log_ratio)
        return self.weight(batch)[:, None].expand_as(log_ratio)

    def weight(self, batch: Batch) -> Tensor:
        """w [N]; its mean is 1."""
        seconds = batch.component("seconds").to(batch.mask)
        ran = seconds > 0
        mean = torch.where(ran, seconds, 0.0).sum() / ran.sum().clamp(min=1)
        return torch.where(ran, seconds / torch.where(mean > 0, mean, 1.0), 1.0)


@part
class PartialCredit(Shape):
    r"""The score of a program that runs to its end; for one that does not, a number far below with a little for how far it came.

    .. math:: R = \begin{cases}\pm s & \text{valid}\\ R_0 + c\,h & \text{else}\end{cases}

    s is the judge's score, turned round where lower is better, h how many of the expected words it printed on its way. Components: ``valid`` (1 or 0),
    ``prints`` (h) and ``lower`` (1 where lower is better), the last two 0 unless they are given; where the judge does not say what is
    valid, its score stays. Source: arXiv:2509.01684. Our reading: the text gives -10 for a complete failure and 0.1 for each match.
    """

    fail: Finite = -10.0
    """R_0."""
    per_print: Finite = 0.1
    """c."""

    def __call__(self, batch: Batch) -> Batch:
        said = batch.components()
        if silent(batch, ("valid",)) or "valid" not in said:
            return batch
        none = torch.zeros_like(batch.reward)
        lower, prints = (batch.component(name) if name in said else none for name in ("lower", "prints"))
        score = torch.where(lower > 0.5, -batch.reward, batch.reward)
        return batch.replace(
            reward=torch.where(batch.component("valid") > 0.5, score, self.fail + self.per_print * prints)
        )


@part
class Improving(Group):
    """Answers to the task, or, for a share of the prompts that were answered before, improvements of the best earlier program.

    An improvement is asked for below the task, the program and what the judge said of it, and it is trained on behind these words. Whose turn it is follows
    from the prompt's key. The best program of each prompt is remembered (``keep`` prompts at most, the oldest out first), in the checkpoint;
    what leaves no room for an answer is answered as the task alone, and counted. Source: arXiv:2509.01684, where half of the prompts are
    of each kind. Our reading: the best program, not the last one; what its judge says in the place of all that it printed.
    """

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    share: Fraction = 0.5
    """Probability that a prompt with an earlier program asks to improve it."""
    request: str = REQUEST
    """The words; ``{said}`` stands for what the judge said."""
    keep: Count = 1000
    """Prompts whose programs are remembered."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        programs: dict[str, Any] = context.notes.setdefault("improving", {})
        name = hashlib.blake2b(question.text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        earlier, asked = programs.get(name), None
        if earlier is not None and random.Random(repr(("improving", question.key))).random() < self.share:
            words = self.request.replace("{said}", earlier["said"])
            asked = context.asked(f"{question.text}\n\n{earlier['text']}\n\n{words}")
            context.count(improvements_asked=asked is not None, improvements_without_room=asked is None)
        drawn = await context.sampler.generate(
            asked or question.tokens, n=self.size, max_tokens=question.budget, temperature=self.temperature,
            key=question.key,
        )  # fmt: skip
        if asked is not None:
            for response in drawn:
                response.origin, response.context = 1, asked
        verdicts = await context.judge(drawn)
        known = [i for i, verdict in enumerate(verdicts) if verdict.rewarded]
        best = max(known, key=lambda i: verdicts[i].score, default=None)
        if best is not None and (earlier is None or verdicts[best].score > earlier["score"]):
            text, verdict = context.decode(drawn[best].tokens)[:LONGEST], verdicts[best]
            programs.pop(name, None)
            programs[name] = {"text": text, "said": verdict.reason, "score": verdict.score}
            while len(programs) > self.keep:
                programs.pop(next(iter(programs)))
        return drawn


@method(
    parent=ppo,
    arxiv="2509.01684",
    code="sherryy/rl4mle",
    confidence="secondary",
    claim=Claim(
        "Weights by running time and credit for how far a program came make a small model better at machine learning tasks than a large prompted one.",
        beyond="It takes programs that run for minutes on actors that do not wait for each other; here the trainer waits for all.",
    ),
)
def duration_aware_mle(
    fail: float = -10.0,
    per_print: float = 0.1,
    improve: float = 0.5,
    low: float | None = 0.2,
    high: float | None = 0.2,
    vf_coef: float = 0.1,
    kl_coef: float = 0.05,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 1,
) -> Recipe:
    r"""PPO on programs that run long: gradients weighed by running time, credit for how far a failing program came, and improving one's own programs.

    .. math:: L = \frac{\sum_i\sum_t m_{i,t}\,w_i\,\ell^{clip}(r_{i,t}, A_{i,t})}{\sum m},\quad w_i = \frac{\Delta t_i}{\overline{\Delta t}},\qquad
              R = \begin{cases}\pm s & \text{valid}\\ -10 + 0.1\,h & \text{else}\end{cases}

    Actors that do not wait sample an action of duration :math:`\Delta t` :math:`1/\Delta t` as often, and would favour fast solutions; the weight
    takes that back. It is for asynchronous runs (``--staleness``, or an engine that draws ahead): where the trainer waits for all, it introduces the
    bias that it should remove. h counts the expected words (data loaded, model trained, ...) that a program printed: every failing program
    stays far below every one that ends. With ``improve``, a share of the prompts asks for a better version of the best earlier
    program. The judge ``code`` says ``valid``, with ``timed`` also ``seconds``, and with ``prints=a,b,c`` how many of these words are in the output; a judge
    of your own may fill the same components, and ``lower`` where a lower score is better. Source: arXiv:2509.01684, after third parties. Our reading: the
    weight is on the clipped loss alone, not on the critic's. In the paper another frozen copy of the model writes the prints into the program,
    so that the policy gains nothing by printing; do that in a judge of your own, before it runs a program.
    """
    parent = ppo(low, high, 0.2, vf_coef, kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size)
    source = Improving(size=group_size, share=improve) if improve else parent.source
    return parent.replace(
        source=source,
        shape=(PartialCredit(fail=fail, per_print=per_print), *parent.shape),
        weight=(DurationWeight(),),
    )
