"""A sandbox for programs that a model wrote: nothing of theirs ever runs outside of it.

What is guaranteed, what is not, and how to judge code of one's own stands in ``docs/sandbox.md``.
"""

from policyopt.sandbox.calls import Call, Reply, called, ended
from policyopt.sandbox.limits import Limits, Result, Status
from policyopt.sandbox.python import Python, python
from policyopt.sandbox.running import SandboxError, run
from policyopt.sandbox.walls import check, need

__all__ = [
    "Call", "Limits", "Python", "Reply", "Result", "SandboxError", "Status", "called", "check", "ended", "need", "python", "run",
]  # fmt: skip
