"""The local engine: one process, CPU or GPU, that samples, scores and updates."""

from policyopt.engine.local.engine import LocalEngine
from policyopt.engine.local.sampler import LocalSampler

__all__ = ["LocalEngine", "LocalSampler"]
