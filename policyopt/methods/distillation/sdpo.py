"""SDPO, self-distillation from feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyopt.claims import Claim
from policyopt.items import Attempt, Example, Verdict
from policyopt.methods.distillation.sdft import sdft
from policyopt.methods.group.grpo import grpo
from policyopt.part import Finite, Look, part
from policyopt.parts import TeacherAdvantage
from policyopt.parts.advantage.teacher import Self
from policyopt.recipe import Recipe
from policyopt.registry import method


@part
class InHindsight(Look):
    """The question with a response of the group that was worth enough, and with what the judge said of this one.

    The first other response that succeeded is shown: one that the judge calls right or, with ``least``, one of that score. A
    response without one, and without feedback, is looked at behind its own prompt, where there is nothing to learn. Source:
    SDPO, arXiv:2601.20802; the words are TRL's.
    """

    least: Finite | None = None
    """Score from which on a response has succeeded; None goes by what the judge calls right."""
    feedback: bool = False
    """Whether the judge's reason is told of responses that failed."""
    solved: str = "\nCorrect solution:\n\n{solution}\n\n"
    """How a response is shown."""
    failed: str = "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{reason}\n\n"
    """How the reason is told."""
    request: str = "\n\nCorrectly solve the original question.\n"
    """What stands after both."""

    def hindsight(
        self, example: Example, attempts: Sequence[Attempt], place: int, key: tuple[int, ...]
    ) -> Sequence[Mapping[str, str]]:
        others = (a.text for j, a in enumerate(attempts) if j != place and self.succeeded(a.verdict))
        mine = attempts[place].verdict
        shown = next((self.solved.replace("{solution}", text) for text in others), "")
        if self.feedback and mine.reason and not self.succeeded(mine):
            shown += self.failed.replace("{reason}", mine.reason)
        *before, last = example.prompt
        return [*before, dict(last) | {"content": last["content"] + shown + self.request}] if shown else example.prompt

    def succeeded(self, verdict: Verdict) -> bool:
        """Whether a response is one to learn from."""
        return verdict.correct if self.least is None else verdict.score >= self.least


@method(
    parent=sdft,
    arxiv="2601.20802",
    code="huggingface/trl",
    confidence="code",
    claim=Claim(
        "Oneself in hindsight, with a right answer and the feedback in view, says of every token what a reward says of a whole response.",
        beyond="The teacher is what the model makes of feedback in its context, and a model of a million parameters makes nothing of it.",
    ),
)
def sdpo(
    kl_coef: float = 1.0,
    rewards: bool = False,
    feedback: bool = False,
    least: float | None = None,
    self_teacher: Self = "ema",
    rate: float = 0.05,
    is_clip: float | None = 2.0,
    group_size: int = 8,
) -> Recipe:
    r"""Self-Distillation Policy Optimization: SDFT in which what is shown to the teacher comes from the group and from the judge.

    .. math:: A_{i,t} = [A^{GRPO}_i +]\ \kappa\log\frac{\pi_T(y_{i,t}\mid x, f_i)}{\pi_{old}(y_{i,t}\mid x)},\qquad
              f_i = \text{another response that succeeded, the judge's words on } y_i

    A response to which there is nothing to show teaches nothing, and counts in the mean. A response has succeeded that the
    judge calls right or, with ``least``, scores so high. With ``feedback`` the judge's reason is told of those that failed. With
    ``rewards`` GRPO's advantage stands beside it.

    Sources: arXiv:2601.20802, and TRL's trainer of this name (teacher a moving average at rate 0.05, ``is_clip`` 2, reverse KL of
    the sampled tokens, success at a reward of 1, which is ``least=1``, no feedback). TRL mixes the losses, (1 - w) and w; our
    reading is a sum of advantages. Scores are the judge's, before shaping; the first success of the group is shown, as in TRL.
    """
    parent = sdft(kl_coef, self_teacher, rate, is_clip, group_size=group_size)
    base = grpo(group_size=group_size).advantage if rewards else None
    look = InHindsight(least=least, feedback=feedback, role="policy" if self_teacher == "live" else "reference")
    return parent.replace(advantage=TeacherAdvantage(coef=kl_coef, teacher=look, base=base))
