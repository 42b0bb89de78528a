"""Rollout programs that several papers use: how responses are drawn."""

from policyopt.sources.draw.announced import Announced
from policyopt.sources.draw.begun import DatasetReset
from policyopt.sources.draw.budgeted import GroupWithinBudget
from policyopt.sources.draw.demonstration import Demonstrated
from policyopt.sources.draw.embed import Embedder, InputEmbeddings
from policyopt.sources.draw.exits import EarlyExits, Exits, Plan
from policyopt.sources.draw.group import Group, GroupWithGreedy
from policyopt.sources.draw.hint import Hinted, Redraw
from policyopt.sources.draw.other import GroupFrom
from policyopt.sources.draw.pieces import Pieces
from policyopt.sources.draw.target import WithReference
from policyopt.sources.draw.tree import Branching, Fork, Growth, Levels, Tree
from policyopt.sources.draw.windows import Windows

__all__ = [
    "Announced",
    "Branching",
    "DatasetReset",
    "Demonstrated",
    "EarlyExits",
    "Embedder",
    "Exits",
    "Fork",
    "Group",
    "GroupFrom",
    "GroupWithGreedy",
    "GroupWithinBudget",
    "Growth",
    "Hinted",
    "InputEmbeddings",
    "Levels",
    "Pieces",
    "Plan",
    "Redraw",
    "Tree",
    "Windows",
    "WithReference",
]
