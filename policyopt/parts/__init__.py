"""The parts: pure mathematics on a batch, no model and no input or output."""

from policyopt.parts.advantage import GAE, Normalise, RolloutBaseline, StepNormalise
from policyopt.parts.aggregate import (
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    SeqMeanTokenSumNorm,
    SeqSumTokenMean,
    SeqSumTokenSumNorm,
    TokenMean,
)
from policyopt.parts.alignment import AgainstSamples, Alignment, PromptMean
from policyopt.parts.auxiliary import ReplaceByAuxiliary, RewardedAuxiliary
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
from policyopt.parts.bellman import SoftBellman, SoftBellmanValue
from policyopt.parts.bounds import (
    BalancedBounds,
    Bounds,
    EntropyBounds,
    FixedBounds,
    ProbabilityBounds,
    ProximalBounds,
)
from policyopt.parts.centred import CentredRatio
from policyopt.parts.contrast import (
    AdvantageRegression,
    ClippedPair,
    HardNegatives,
    Logistic,
    Pairs,
    Regress,
    RowScore,
)
from policyopt.parts.covariance import CovarianceBand, TopCovariance
from policyopt.parts.divergence import (
    JSD,
    DistributionLoss,
    ExtrapolatedKL,
    NoRatio,
    NoSurrogate,
    OccupancyPenalty,
    PosteriorWeight,
    SequenceDivergence,
)
from policyopt.parts.entropy import EntropyAnchor, EntropyBand
from policyopt.parts.filter import Credited, MixedOutcomes, NotTruncated
from policyopt.parts.forward_kl import ForwardKL
from policyopt.parts.gate import GammaWeight, SoftGate
from policyopt.parts.guided import GuidedValueLoss
from policyopt.parts.history import SmoothNormalise, VisitMoments
from policyopt.parts.likelihood import Likelihood
from policyopt.parts.novelty import NoveltyAdvantage
from policyopt.parts.once import MeanOver, Unlikely
from policyopt.parts.one_token import OneToken
from policyopt.parts.outlier import SigmaFilter, TokenNormalise
from policyopt.parts.passk import MaxAtK, PassAtK
from policyopt.parts.penalty import Proximal, TrustRegion
from policyopt.parts.prefix import PrefixAdvantage
from policyopt.parts.probe import BestOf, PosteriorGap, RewardCliff, UpdateSparsity
from policyopt.parts.rank import RankDiscount, RankWeight
from policyopt.parts.ratio import (
    ClampedTokenRatio,
    PrefixMinRatio,
    ProximalRatio,
    SequenceRatio,
    SequenceRatioPerToken,
    TokenRatio,
    TrajectoryRatio,
)
from policyopt.parts.regularize import KL, EntropyBonus, KLByDifficulty
from policyopt.parts.select import AboveQuantile, LeastLikely, Mastered, SelectedWeight
from policyopt.parts.shape import Consistency, Correctness, KLPenalty, LengthReward, OverlongPenalty, TruncatedReward
from policyopt.parts.shaping import PolicyShaping
from policyopt.parts.shield import ProxyShield
from policyopt.parts.shortest import ShorterAdvantage
from policyopt.parts.source import BySource, Superseded
from policyopt.parts.statistic import LogProbAt, MinPLogProb, NucleusEntropy, RewardTempered
from policyopt.parts.subtree import SharedAdvantage, SubtreeAdvantage
from policyopt.parts.surrogate import (
    GeometricMeanClip,
    GPPOClip,
    HybridClip,
    LogProb,
    PPOClip,
    RatioTimesAdvantage,
)
from policyopt.parts.target import OwnTokens
from policyopt.parts.tier import TierWeight
from policyopt.parts.tree import EdgeAdvantage
from policyopt.parts.value import ClippedValueLoss, NodeValueLoss
from policyopt.parts.virtual import VirtualTemperature
from policyopt.parts.weight import (
    AdvantageWeight,
    ClipMask,
    EntropyRedistribution,
    PositionWeight,
    SamplerMismatch,
    TruncatedRatio,
)
from policyopt.parts.window import EarlierTokens

__all__ = [
    "GAE",
    "JSD",
    "KL",
    "AboveQuantile",
    "Advantage",
    "AdvantageRegression",
    "AdvantageWeight",
    "AgainstSamples",
    "Aggregate",
    "Alignment",
    "BalancedBounds",
    "BestOf",
    "Bounds",
    "BySource",
    "CentredRatio",
    "ClampedTokenRatio",
    "ClipMask",
    "ClippedPair",
    "ClippedValueLoss",
    "Consistency",
    "Controller",
    "Correctness",
    "CovarianceBand",
    "Credited",
    "Critic",
    "DistributionLoss",
    "EarlierTokens",
    "EdgeAdvantage",
    "EntropyAnchor",
    "EntropyBand",
    "EntropyBonus",
    "EntropyBounds",
    "EntropyRedistribution",
    "ExtrapolatedKL",
    "Filter",
    "FixedBounds",
    "ForwardKL",
    "GPPOClip",
    "GammaWeight",
    "GeometricMeanClip",
    "GuidedValueLoss",
    "HardNegatives",
    "HybridClip",
    "KLByDifficulty",
    "KLPenalty",
    "LeastLikely",
    "LengthReward",
    "Likelihood",
    "LogProb",
    "LogProbAt",
    "Logistic",
    "Mastered",
    "MaxAtK",
    "MeanOver",
    "MinPLogProb",
    "MixedOutcomes",
    "NoRatio",
    "NoSurrogate",
    "NodeValueLoss",
    "Normalise",
    "NotTruncated",
    "NoveltyAdvantage",
    "NucleusEntropy",
    "OccupancyPenalty",
    "OneToken",
    "OverlongPenalty",
    "OwnTokens",
    "PPOClip",
    "Pairs",
    "Part",
    "PassAtK",
    "PolicyShaping",
    "PositionWeight",
    "PosteriorGap",
    "PosteriorWeight",
    "PrefixAdvantage",
    "PrefixMinRatio",
    "ProbabilityBounds",
    "PromptMean",
    "Proximal",
    "ProximalBounds",
    "ProximalRatio",
    "ProxyShield",
    "RankDiscount",
    "RankWeight",
    "Ratio",
    "RatioTimesAdvantage",
    "Regress",
    "Regularizer",
    "ReplaceByAuxiliary",
    "RewardCliff",
    "RewardTempered",
    "RewardedAuxiliary",
    "RolloutBaseline",
    "RowScore",
    "SamplerMismatch",
    "SelectedWeight",
    "SeqMeanTokenMean",
    "SeqMeanTokenSum",
    "SeqMeanTokenSumNorm",
    "SeqSumTokenMean",
    "SeqSumTokenSumNorm",
    "SequenceDivergence",
    "SequenceRatio",
    "SequenceRatioPerToken",
    "Shape",
    "SharedAdvantage",
    "ShorterAdvantage",
    "SigmaFilter",
    "SmoothNormalise",
    "SoftBellman",
    "SoftBellmanValue",
    "SoftGate",
    "StepNormalise",
    "SubtreeAdvantage",
    "Superseded",
    "Surrogate",
    "TierWeight",
    "TokenMean",
    "TokenNormalise",
    "TokenRatio",
    "TopCovariance",
    "TrajectoryRatio",
    "TruncatedRatio",
    "TruncatedReward",
    "TrustRegion",
    "Unlikely",
    "UpdateSparsity",
    "VirtualTemperature",
    "VisitMoments",
    "Weight",
    "part",
]
