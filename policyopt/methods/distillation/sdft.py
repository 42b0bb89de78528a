"""SDFT, self-distillation from demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyopt.claims import Claim
from policyopt.errors import UserError
from policyopt.items import Attempt, Example
from policyopt.methods.distillation.opd import opd
from policyopt.part import Look, part
from policyopt.parts import EMA, Frozen, LogProb, SeqMeanTokenMean, TeacherAdvantage, TruncatedRatio
from policyopt.parts.advantage.teacher import Self
from policyopt.recipe import Recipe
from policyopt.registry import method

DEMONSTRATION = "{question}\n\n{demonstration}"


@part
class BehindDemonstration(Look):
    """The question with the demonstration that the task brings: its worked solution, or its completion.

    Source: SDFT, arXiv:2601.19897; the words are TRL's.
    """

    request: str = DEMONSTRATION
    """The last message; ``{question}`` and ``{demonstration}`` stand for the prompt's own."""

    def __post_init__(self) -> None:
        if "{demonstration}" not in self.request:
            raise ValueError(f"request is {self.request!r}, which never shows the {{demonstration}}")

    def hindsight(
        self, example: Example, attempts: Sequence[Attempt], place: int, key: tuple[int, ...]
    ) -> Sequence[Mapping[str, str]]:
        shown = example.solution or example.completion
        if not shown:
            raise UserError(
                f"{example.id} has no demonstration for the teacher: give every row of the task a 'solution' or a 'completion'"
            )
        *before, last = example.prompt
        said = self.request.replace("{question}", last["content"]).replace("{demonstration}", shown)
        return [*before, dict(last) | {"content": said}]


@method(
    parent=opd,
    arxiv="2601.19897",
    code="huggingface/trl",
    confidence="code",
    claim=Claim(
        "Demonstrations learned on-policy, from oneself as a teacher who sees them, cost less of what was known than supervised fine-tuning.",
        beyond="The teacher is what the model makes of a demonstration in its context, and a model of a million parameters makes nothing of it.",
    ),
)
def sdft(
    kl_coef: float = 1.0,
    self_teacher: Self = "live",
    rate: float = 0.05,
    is_clip: float | None = 2.0,
    request: str = DEMONSTRATION,
    group_size: int = 1,
) -> Recipe:
    r"""Self-distillation fine-tuning: the policy answers, and itself with a demonstration before its eyes is the teacher of every token.

    .. math:: L = -\frac1N\sum_i\frac{1}{|y_i|}\sum_t sg[w_{i,t}A_{i,t}]\log\pi_\theta(y_{i,t}\mid x_i),\qquad
              A_{i,t} = \kappa\log\frac{\pi_T(y_{i,t}\mid x_i, c_i)}{\pi_{old}(y_{i,t}\mid x_i)},\qquad w = \min(r, c_{is})

    c is the demonstration, kappa = ``kl_coef``, r the ratio to the policy that drew. On-policy it follows the reverse KL to the
    teacher. The teacher is the policy as it is (``live``), a moving average of it that goes ``rate`` of the way after each
    step (``ema``), or the policy of the start (``start``). Nothing is judged for the loss.

    Sources: arXiv:2601.19897; TRL's trainer of this name with ``sampled_token`` and alpha 1 (``is_clip`` 2, the words, the
    mean); prime-rl's ``opsd`` (the live policy, without the bound, a mean over all tokens). Both give the same on-policy.
    Our reading: the teacher is asked once, when the batch is drawn, and of the drawn tokens alone; TRL's default compares
    its hundred likeliest tokens.
    """
    look = BehindDemonstration(request=request, role="policy" if self_teacher == "live" else "reference")
    return opd(group_size=group_size).replace(
        advantage=TeacherAdvantage(coef=kl_coef, teacher=look),
        surrogate=LogProb(),
        weight=(TruncatedRatio(high=None if is_clip is None else is_clip - 1),),
        aggregate=SeqMeanTokenMean(),
        reference=EMA(decay=1 - rate) if self_teacher == "ema" else Frozen(),
    )
