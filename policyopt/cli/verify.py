"""``policyopt verify``: numeric cases against the library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from policyopt.cli.common import operands
from policyopt.errors import UserError
from policyopt.lens.case_files import case_files, read_cases

VERIFY = """\
usage: policyopt verify FILE_OR_FOLDER... [--words DIR] [--json]

Runs numeric cases against the library, in float64 with a relative tolerance of 1e-6, and prints a line for each: pass,
fail with both numbers, or unsupported with the reason. Exit code 0 only when nothing failed, 1 when something did.

  --words DIR   what the cases of each method call things, in DIR/METHOD.py; unset: the folder "words" beside each file
  --json        print the outcomes as a JSON list"""


def _words_folder(args: list[str]) -> Path | None:
    """The folder that ``--words`` names, taken out of the line."""
    if "--words" not in args:
        return None
    at = args.index("--words")
    if at + 1 == len(args):
        raise UserError("--words: expected a folder, got nothing")
    del args[at]
    folder = Path(args.pop(at))
    if not folder.is_dir():
        raise UserError(f"--words {folder}: no such folder; leave --words out to take the words beside the cases")
    return folder


def run(args: list[str]) -> int:
    """Numeric cases against the library. Returns 1 where one fails, else 0."""
    if not args or "-h" in args or "--help" in args:
        print(VERIFY)
        return 0 if args else 2
    args = list(args)
    words = _words_folder(args)
    paths = operands(args, "verify", "files, folders, --words DIR")
    files = case_files(paths)
    for file in files:  # a file that breaks the schema stops the command before its first line
        read_cases(file)
    from policyopt.lens.verify import verify_file

    outcomes = []
    for file in files:
        for outcome in verify_file(file, words):
            outcomes.append(outcome)
            if "--json" not in args:
                print(outcome, flush=True)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("pass", "fail", "unsupported")}
    if "--json" in args:
        plain = json.dumps([dataclasses.asdict(o) for o in outcomes], default=str)
        # JSON has no infinity: an error that is not finite is null
        print(json.dumps(json.loads(plain, parse_constant=lambda name: None), indent=1))
    else:
        print(f"{len(outcomes)} cases: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if counts["fail"] else 0
