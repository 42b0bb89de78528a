"""The parts: pure mathematics on a batch, no model and no input or output."""

from policyopt.parts.advantage import GAE, GreedyBaseline, Normalise, StepNormalise
from policyopt.parts.aggregate import SeqMeanTokenMean, SeqMeanTokenSum, SeqMeanTokenSumNorm, TokenMean
from policyopt.parts.base import (
    Advantage,
    Aggregate,
    Controller,
    Critic,
    Filter,
    Part,
    Ratio,
    Regularizer,
    Shape,
    Surrogate,
    Weight,
    part,
)
from policyopt.parts.filter import MixedOutcomes, NotTruncated
from policyopt.parts.ratio import SequenceRatio, SequenceRatioPerToken, TokenRatio
from policyopt.parts.regularize import KL, EntropyBonus
from policyopt.parts.shape import Correctness, KLPenalty, OverlongPenalty, TruncatedReward
from policyopt.parts.surrogate import LogProb, PPOClip, RatioTimesAdvantage
from policyopt.parts.value import ClippedValueLoss
from policyopt.parts.weight import TruncatedRatio

__all__ = [
    "GAE",
    "KL",
    "Advantage",
    "Aggregate",
    "ClippedValueLoss",
    "Controller",
    "Correctness",
    "Critic",
    "EntropyBonus",
    "Filter",
    "GreedyBaseline",
    "KLPenalty",
    "LogProb",
    "MixedOutcomes",
    "Normalise",
    "NotTruncated",
    "OverlongPenalty",
    "PPOClip",
    "Part",
    "Ratio",
    "RatioTimesAdvantage",
    "Regularizer",
    "SeqMeanTokenMean",
    "SeqMeanTokenSum",
    "SeqMeanTokenSumNorm",
    "SequenceRatio",
    "SequenceRatioPerToken",
    "Shape",
    "StepNormalise",
    "Surrogate",
    "TokenMean",
    "TokenRatio",
    "TruncatedRatio",
    "TruncatedReward",
    "Weight",
    "part",
]
