"""``policyopt merge``: models that were made from one another as one."""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from policyopt.cli.common import named, options_of
from policyopt.errors import UserError
from policyopt.models.merging import Merging

MERGE = """\
usage: policyopt merge FIRST MODEL... --out DIR [--keep SHARE] [--scale S] [--how average|changes|ties]

Merges models that were trained from the same one, weight by weight: folders with safetensors, such as runs/NAME/model. Configuration and
tokenizer are those of FIRST.

  --out DIR      the folder of the merged model
  --how average  the mean of all (unset, without --keep and --scale): long and short thinkers as one, Kimi k1.5
  --how changes  FIRST, and what the others have changed in it (unset, with one of these): of each tensor the share --keep of the
                 entries that changed most, times --scale. `--keep 0.25 --scale 0.7` is DLER's merge; without --keep it is task arithmetic
  --how ties     the same, with one sign for each entry: that of the sum; those that have the other one are left out"""


@dataclass(frozen=True)
class MergeOptions(Merging):
    """Models as one."""

    out: Path | None = None
    """The folder of the merged model."""


def run(args: list[str]) -> int:
    """Merge folders of models."""
    if not args or "-h" in args or "--help" in args:
        print(MERGE)
        return 0 if args else 2
    names, given = named(args, MergeOptions())
    folders, options = [*map(Path, names)], options_of(MergeOptions(), given, "merge")
    if len(folders) < 2:
        raise UserError(f"merge takes two models or more, got {len(folders)}: policyopt merge FIRST MODEL... --out DIR")
    if options.out is None:
        raise UserError("--out: expected the folder that the merged model is written to")
    if options.way == "average" and options.speaks_of_changes:
        raise UserError("--keep and --scale are about changes: leave them out, or take --how changes or --how ties")
    from policyopt.models.merge import merge_folders

    count = merge_folders(folders, options.out, options)
    print(f"{count:,} weights of {len(folders)} models merged ({options.way}): {options.out}")
    return 0
