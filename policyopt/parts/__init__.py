"""The parts that two papers or more use: pure mathematics on a batch, no model and no input or output."""

from policyopt.part import (
    Advantage,
    Aggregate,
    Controller,
    Critic,
    Filter,
    Look,
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
from policyopt.parts.advantage.cloned import Cloned
from policyopt.parts.advantage.decoupled import Decoupled
from policyopt.parts.advantage.gae import GAE
from policyopt.parts.advantage.normalise import Normalise
from policyopt.parts.advantage.teacher import TeacherAdvantage
from policyopt.parts.advantage.tree import EdgeAdvantage
from policyopt.parts.advantage.weighed import Weighed
from policyopt.parts.aggregate.means import (
    PromptMean,
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    SumOverRows,
    TokenMean,
)
from policyopt.parts.aggregate.own import OwnTokens
from policyopt.parts.critic.value import ClippedValueLoss
from policyopt.parts.curriculum.evenly import AmongPool
from policyopt.parts.filter.outcomes import MixedOutcomes
from policyopt.parts.memory.accuracy import LastAccuracy
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
from policyopt.parts.select.rows import FromProgram, Judged, RowSelector, RowWeight
from policyopt.parts.select.tokens import AboveQuantile, Selector
from policyopt.parts.shape.components import WeightedSum
from policyopt.parts.shape.correctness import Correctness
from policyopt.parts.shape.kl import KLPenalty
from policyopt.parts.shape.length import LengthReward, LengthScale, ShortestToLongest
from policyopt.parts.shape.length_range import LengthRange
from policyopt.parts.shape.shown import HasSpan
from policyopt.parts.shape.truncated import TruncatedReward
from policyopt.parts.shape.wins import WinRate
from policyopt.parts.span.kinds import LastAnswer, Lines, Phrases, Regex, Tag
from policyopt.parts.statistic.collision import LogCollision
from policyopt.parts.statistic.group import GroupStatistic
from policyopt.parts.statistic.jsd import JSD
from policyopt.parts.statistic.soft_value import SoftValue
from policyopt.parts.surrogate.bounds import Bounded, Bounds, FixedBounds
from policyopt.parts.surrogate.contrast import Contrast, Link, Pairs
from policyopt.parts.surrogate.policy_gradient import LogProb, RatioTimesAdvantage
from policyopt.parts.surrogate.ppo import PPOClip
from policyopt.parts.surrogate.preference import BinaryLogistic, Hinge, Logistic, Preference, SquareTo
from policyopt.parts.surrogate.shaping import PolicyShaping
from policyopt.parts.weight.clipped import ClipMask, TruncatedRatio
from policyopt.parts.weight.mismatch import Rejection, SamplerMismatch
from policyopt.parts.weight.selected import MeanOver, SelectedWeight

__all__ = [
    "EMA",
    "GAE",
    "JSD",
    "KL",
    "AboveQuantile",
    "Advantage",
    "Aggregate",
    "AllPairs",
    "AmongPool",
    "BestResponse",
    "BestWorst",
    "BinaryLogistic",
    "Bounded",
    "Bounds",
    "BySource",
    "ClipMask",
    "ClippedValueLoss",
    "Cloned",
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
    "GroupStatistic",
    "HasSpan",
    "Hinge",
    "Judged",
    "KLPenalty",
    "LastAccuracy",
    "LastAnswer",
    "LengthRange",
    "LengthReward",
    "LengthScale",
    "Likelihood",
    "Lines",
    "Link",
    "LogCollision",
    "LogProb",
    "Logistic",
    "Look",
    "Margin",
    "MeanOver",
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
    "PromptMean",
    "Proximal",
    "Ratio",
    "RatioTimesAdvantage",
    "Reference",
    "Regex",
    "Regularizer",
    "Rejection",
    "Reset",
    "RolloutBaseline",
    "RowScore",
    "RowSelector",
    "RowWeight",
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
    "ShortestToLongest",
    "Side",
    "SoftValue",
    "Span",
    "SquareTo",
    "Statistic",
    "SumOverRows",
    "Surrogate",
    "Tag",
    "TeacherAdvantage",
    "TokenMean",
    "TokenRatio",
    "TokenScale",
    "TruncatedRatio",
    "TruncatedReward",
    "Weighed",
    "Weight",
    "WeightedSum",
    "WinRate",
    "part",
]
