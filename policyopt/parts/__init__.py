"""The parts that two papers or more use: pure mathematics on a batch, no model and no input or output."""

from policyopt.part import (
    Advantage,
    Aggregate,
    Controller,
    Critic,
    Filter,
    Memory,
    Part,
    Probe,
    Ratio,
    Reference,
    Regularizer,
    Shape,
    Span,
    Statistic,
    Surrogate,
    Weight,
    part,
)
from policyopt.parts.advantage.baseline import RolloutBaseline
from policyopt.parts.advantage.by_source import BySource
from policyopt.parts.advantage.decoupled import Decoupled
from policyopt.parts.advantage.gae import GAE
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.advantage.tree import EdgeAdvantage
from policyopt.parts.aggregate.means import (
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    SumOverRows,
    TokenMean,
)
from policyopt.parts.aggregate.own import OwnTokens
from policyopt.parts.critic.value import ClippedValueLoss
from policyopt.parts.filter.outcomes import MixedOutcomes
from policyopt.parts.pairing.pairs import (
    AllPairs,
    BestResponse,
    BestWorst,
    FixedMargin,
    Margin,
    PairSelector,
    PairWeight,
    Side,
)
from policyopt.parts.ratio.sequence import SequenceRatio, SequenceRatioPerToken
from policyopt.parts.ratio.token import TokenRatio
from policyopt.parts.reference.following import EMA, Frozen, Reset
from policyopt.parts.regularizer.distribution import DistributionLoss
from policyopt.parts.regularizer.entropy import EntropyBonus
from policyopt.parts.regularizer.kl import KL
from policyopt.parts.regularizer.likelihood import Likelihood
from policyopt.parts.regularizer.proximal import Proximal
from policyopt.parts.score.rows import RowScore, Score, TokenScale
from policyopt.parts.select.rows import FromProgram, Judged, RowSelector
from policyopt.parts.select.tokens import AboveQuantile, Selector
from policyopt.parts.shape.components import WeightedSum
from policyopt.parts.shape.correctness import Correctness
from policyopt.parts.shape.kl import KLPenalty
from policyopt.parts.shape.length import LengthReward
from policyopt.parts.shape.truncated import TruncatedReward
from policyopt.parts.shape.wins import WinRate
from policyopt.parts.span.kinds import LastAnswer, Lines, Phrases, Regex, Tag
from policyopt.parts.statistic.jsd import JSD
from policyopt.parts.surrogate.bounds import Bounded, Bounds, FixedBounds
from policyopt.parts.surrogate.contrast import Contrast, Link, Pairs
from policyopt.parts.surrogate.policy_gradient import LogProb, RatioTimesAdvantage
from policyopt.parts.surrogate.ppo import PPOClip
from policyopt.parts.surrogate.preference import BinaryLogistic, Hinge, Logistic, Preference, SquareTo
from policyopt.parts.surrogate.shaping import PolicyShaping
from policyopt.parts.weight.clipped import ClipMask, TruncatedRatio
from policyopt.parts.weight.mismatch import SamplerMismatch
from policyopt.parts.weight.selected import SelectedWeight

__all__ = [
    "EMA",
    "GAE",
    "JSD",
    "KL",
    "AboveQuantile",
    "Advantage",
    "Aggregate",
    "AllPairs",
    "BestResponse",
    "BestWorst",
    "BinaryLogistic",
    "Bounded",
    "Bounds",
    "BySource",
    "ClipMask",
    "ClippedValueLoss",
    "Contrast",
    "Controller",
    "Correctness",
    "Critic",
    "Decoupled",
    "DistributionLoss",
    "EdgeAdvantage",
    "EntropyBonus",
    "Filter",
    "FixedBounds",
    "FixedMargin",
    "FromProgram",
    "Frozen",
    "Hinge",
    "Judged",
    "KLPenalty",
    "LastAnswer",
    "LengthReward",
    "Likelihood",
    "Lines",
    "Link",
    "LogProb",
    "Logistic",
    "Margin",
    "Memory",
    "MixedOutcomes",
    "Normalise",
    "OwnTokens",
    "PPOClip",
    "PairSelector",
    "PairWeight",
    "Pairs",
    "Part",
    "Phrases",
    "PolicyShaping",
    "Preference",
    "Probe",
    "Proximal",
    "Ratio",
    "RatioTimesAdvantage",
    "Reference",
    "Regex",
    "Regularizer",
    "Reset",
    "RolloutBaseline",
    "RowScore",
    "RowSelector",
    "SamplerMismatch",
    "Score",
    "SelectedWeight",
    "Selector",
    "SeqMeanTokenMean",
    "SeqMeanTokenSum",
    "SeqMeanTokenSumNorm",
    "SequenceRatio",
    "SequenceRatioPerToken",
    "Shape",
    "Side",
    "Span",
    "SquareTo",
    "Statistic",
    "SumOverRows",
    "Surrogate",
    "Tag",
    "TokenMean",
    "TokenRatio",
    "TokenScale",
    "TruncatedRatio",
    "TruncatedReward",
    "Weight",
    "WeightedSum",
    "WinRate",
    "part",
]
