"""The files that a run starts from, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from policyopt.errors import UserError


def need_run(folder: Path) -> None:
    """Raises :class:`~policyopt.errors.UserError` where no run lies."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"--resume {folder}: no run lies there (config.yaml is missing)")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises :class:`~policyopt.errors.UserError` naming the file, and the line."""
    try:
        data = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{where}: not valid YAML ({reason})") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of fields such as `steps: 100`")
    return data
