"""Which metrics of a run stand together in a chart, under which question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Colour = Literal["main", "second", "grey", "fourth", "fifth", "green", "violet", "teal", "pink", "olive"]
"""The last five stand beside the first three where many things of a kind are told apart."""
Style = Literal["line", "points", "dash", "faint", "area", "stack", "overlay"]
Format = Literal["percent", "number", "integer", "seconds"]


ANSWERS = "How does it answer?"
"""Where the lengths before and after stand too."""


@dataclass(frozen=True)
class Curve:
    """One metric as a curve of a chart."""

    name: str
    metric: str
    """What it draws; one that ends in ``@`` stands for every metric that begins so."""
    colour: Colour = "main"
    style: Style = "line"
    sign: int = 1
    share: bool = False
    """A share of the held-out questions: it is drawn with its Wilson interval."""


@dataclass(frozen=True)
class Plan:
    """A chart, drawn where the run has one of its metrics."""

    id: str
    title: str
    note: str
    curves: tuple[Curve, ...]
    format: Format = "number"
    unit: str = ""
    """What the vertical axis counts."""
    log: bool = False
    smooth: bool = False
    """The noisy numbers of a step get a moving mean, where there are many steps."""


PLANS: tuple[tuple[str, tuple[Plan, ...]], ...] = (
    (
        "Does it learn?",
        (
            Plan(
                "accuracy",
                "Accuracy",
                "Share of right responses: those sampled in training, and on held-out prompts, never trained on.",
                (
                    Curve("training", "accuracy"),
                    Curve("held-out", "eval/accuracy", "second", "points", share=True),
                    Curve("held-out pass@", "eval/pass@", "grey", "points"),
                ),
                "percent",
                smooth=True,
                unit="share of responses",
            ),
            Plan(
                "reward",
                "Reward",
                "Mean over the responses of a step, after shaping, and the spread between them.",
                (Curve("reward", "reward/mean"), Curve("standard deviation", "reward/std", "grey", "dash")),
                smooth=True,
                unit="reward",
            ),
        ),
    ),
    (
        "How likely are the texts?",
        (
            Plan(
                "loglik",
                "Log-likelihood",
                "Mean log-probability of a token of the texts that the step was given, and of held-out ones.",
                (
                    Curve("training", "loglik"),
                    Curve("chosen", "loglik/chosen", "second"),
                    Curve("rejected", "loglik/rejected", "grey"),
                    Curve("held-out", "eval/loglik", "main", "points"),
                    Curve("held-out, chosen", "eval/loglik/chosen", "second", "points"),
                    Curve("held-out, rejected", "eval/loglik/rejected", "grey", "points"),
                ),
                unit="nats per token",
            ),
            Plan(
                "pairs",
                "Pairs in the right order",
                "Share of pairs of which the policy has come to prefer the chosen text.",
                (Curve("training", "pairs/accuracy"), Curve("held-out", "eval/pairs/accuracy", "second", "points")),
                "percent",
                unit="share of pairs",
                smooth=True,
            ),
            Plan(
                "margin",
                "Margin",
                "How much more it prefers the chosen text than the reference does.",
                (Curve("training", "pairs/margin"), Curve("held-out", "eval/pairs/margin", "second", "points")),
                unit="nats",
                smooth=True,
            ),
            Plan(
                "sides",
                "Chosen and rejected, apart",
                "How much likelier than under the reference the whole texts have become: their implicit reward without its "
                "factor. Both may fall while the margin grows.",
                (
                    Curve("chosen", "gain/chosen", "second"),
                    Curve("rejected", "gain/rejected", "grey"),
                    Curve("held-out, chosen", "eval/gain/chosen", "second", "points"),
                    Curve("held-out, rejected", "eval/gain/rejected", "grey", "points"),
                ),
                unit="nats per text",
                smooth=True,
            ),
            Plan(
                "texts",
                "Log-probability of whole texts",
                "Of those that were chosen and those that were rejected: a longer text is less likely.",
                (
                    Curve("chosen", "logp/chosen", "second"),
                    Curve("rejected", "logp/rejected", "grey"),
                    Curve("held-out, chosen", "eval/logp/chosen", "second", "points"),
                    Curve("held-out, rejected", "eval/logp/rejected", "grey", "points"),
                ),
                unit="nats per text",
                smooth=True,
            ),
            Plan(
                "lengths",
                "Length of the texts",
                "Where chosen texts are longer, length is a part of what is learned.",
                (Curve("chosen", "length/chosen", "second"), Curve("rejected", "length/rejected", "grey")),
                unit="tokens",
                smooth=True,
            ),
        ),
    ),
    (
        ANSWERS,
        (
            Plan(
                "length",
                "Response length",
                "Tokens per response.",
                (
                    Curve("mean", "length/mean"),
                    Curve("longest", "length/max", "grey", "dash"),
                    Curve("held-out", "eval/length", "second", "points"),
                ),
                unit="tokens",
            ),
            Plan(
                "format",
                "Format and truncation",
                "Share of responses in the form that the judge reads, and of those that hit the token budget.",
                (
                    Curve("well formed", "format"),
                    Curve("held-out, well formed", "eval/format", "second", "points"),
                    Curve("truncated", "length/truncated", "grey"),
                ),
                "percent",
                unit="share of responses",
            ),
            Plan(
                "entropy",
                "Entropy",
                "Nats per token. Near 0 the policy always writes the same and has stopped to explore.",
                (Curve("entropy", "entropy"),),
                unit="nats per token",
            ),
        ),
    ),
    (
        "What does it learn from?",
        (
            Plan(
                "signal",
                "Groups with signal",
                "Share of prompts whose responses got different rewards. The others teach a group baseline nothing.",
                (Curve("share of groups", "signal/groups"),),
                "percent",
                unit="share of prompts",
            ),
            Plan(
                "mass",
                "Token weights",
                "The gradient is a sum over tokens, each with a weight w. Total w that pushes tokens up, and down.",
                (
                    Curve("makes likelier", "signal/positive", "main", "area"),
                    Curve("makes less likely", "signal/negative", "second", "area", sign=-1),
                ),
                unit="sum of w",
            ),
            Plan(
                "advantage",
                "Advantage spread",
                "Standard deviation of the advantages of a step.",
                (Curve("standard deviation", "advantage/std"),),
                unit="standard deviation",
            ),
        ),
    ),
    (
        "How far does it move?",
        (
            Plan(
                "kl",
                "KL to the reference",
                "How far the policy has gone from where it began.",
                (Curve("KL", "kl/ref"),),
                unit="nats per token",
            ),
            Plan("grad", "Gradient norm", "Before clipping.", (Curve("norm", "grad_norm"),), unit="norm"),
            Plan(
                "update",
                "Size of the update",
                "Length of a step relative to the length of the weights, |Δθ| / |θ|.",
                (Curve("|Δθ| / |θ|", "update/size"),),
                unit="share of |θ|",
            ),
            Plan(
                "clip",
                "Clipped tokens",
                "Share of tokens whose ratio left the trust region, at its lower and upper bound.",
                (Curve("lower bound", "clip_fraction/low", "second"), Curve("upper bound", "clip_fraction/high")),
                "percent",
                unit="share of tokens",
            ),
            Plan(
                "mismatch",
                "Sampler and trainer",
                "Difference of the two log-probabilities of the same token. Float noise, if training is on-policy.",
                (Curve("mean", "mismatch/mean"), Curve("largest", "mismatch/max", "grey", "dash")),
                log=True,
                unit="nats",
            ),
            Plan("lr", "Learning rate", "As scheduled.", (Curve("learning rate", "lr"),), unit="rate"),
        ),
    ),
)
PHASES: tuple[tuple[str, str, Colour], ...] = (
    ("sampling", "time/rollout", "main"),
    ("update", "time/update", "second"),
    ("judging", "time/judge", "fourth"),
    ("evaluation", "time/eval", "fifth"),
    ("checkpoint", "time/checkpoint", "grey"),
)
SPEED = Plan(
    "speed",
    "Throughput",
    "Sampled tokens per second.",
    (Curve("tokens/s", "tokens_per_s"),),
    "integer",
    unit="tokens per second",
)

EACH: tuple[tuple[str, str, str], ...] = (
    ("component/", "What does each judge say?", "Mean over the responses of a step."),
    ("control/", "What do controllers move?", "The value that a controller has set for the step."),
)
"""Metrics of which a run may have any number, each with a chart of its own: what their names begin with, heading, note."""
