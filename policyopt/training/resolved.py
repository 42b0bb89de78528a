"""What a run has found out by itself, beside what it was asked for: it stands at the end of ``config.yaml``, for readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from policyopt.errors import UserError
from policyopt.files import read_yaml
from policyopt.items import Task
from policyopt.judging.judges import judge_name

KEY = "resolved"
"""Its name in ``config.yaml``; a configuration that is read back goes without it."""


def resolved(task: Task) -> dict[str, Any]:
    """The judge, and why it was taken."""
    return {
        "judge": judge_name(task.judge) if task.judge else None,
        "judge_reason": task.judge_reason or "the task's own",
    }


def resolved_yaml(task: Task) -> str:
    """What is written after the configuration."""
    return yaml.safe_dump({KEY: resolved(task)}, sort_keys=False, allow_unicode=True)


def same_judge(folder: Path, task: Task) -> None:
    """Refuse to go on with a run under another judge than it began with: answers that changed may ask for another one."""
    before = (read_yaml(folder / "config.yaml").get(KEY) or {}).get("judge")
    now = resolved(task)["judge"]
    if before is not None and before != now:
        raise UserError(
            f"--resume {folder}: that run has the judge {before}, and the answers of {task.name} now ask for {now} "
            f"({task.judge_reason}): give the run the answers that it began with, or start another run"
        )
