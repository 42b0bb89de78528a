"""SFT."""

from __future__ import annotations

from policyopt.claims import Claim
from policyopt.parts import Likelihood, TokenMean
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.sources.given import Demonstrations


@method(
    confidence="code",
    claim=Claim(
        "What others wrote is learnt by making it likely.",
        beyond="It claims nothing over another method: it is what the others here are held against.",
    ),
)
def sft() -> Recipe:
    r"""Supervised fine-tuning: completions that the task brings are made likely.

    .. math:: L = -\frac{1}{\sum_i|y_i|}\sum_{i,t}\log\pi_\theta(y_{i,t})

    The mean over the tokens of the mini-batch, of the completion alone; the prompt is not learnt. Nothing is drawn and
    nothing judged. Source: no paper; it is what TRL's ``SFTTrainer`` does with ``completion_only_loss``.
    """
    return Recipe(source=Demonstrations(), aggregate=TokenMean(), regularizers=(Likelihood(coef=1.0, rows=None),))
