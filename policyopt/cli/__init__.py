"""The command line: ``policyopt COMMAND ...``; each command is a module of this package with a function ``run``."""

# A module of this package hides a builtin of its name here once it is imported: no list() and no eval() in this file.

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence

from policyopt.errors import UserError, nearest
from policyopt.training.process import exit_code, stoppable

COMMANDS = {
    "train": ("METHOD", "train a model with a method", "train grpo --task chain_sum --steps 60"),
    "eval": ("", "measure a model on a task", "eval --model runs/grpo-chain_sum-seed0/model"),
    "sample": ("", "read what a model answers", "sample --task countdown --questions 2"),
    "lengths": ("[MODEL]", "how long its answers are", "lengths embedded --task long-winded --prompts 8"),
    "serve": ("", "serve a model to clients of the tinker package", "serve --model embedded --port 8000"),
    "merge": (
        "MODEL...",
        "models that were made from one another as one",
        "merge runs/a/model runs/b/model --out merged",
    ),
    "push": ("RUN ID", "push the model of a run to the hub", "push runs/grpo-chain_sum-seed0 me/sums"),
    "advise": ("[RUN...]", "what a run suffers from, and what addresses it", "advise runs/grpo-chain_sum-seed0"),
    "list": ("[WORD]", "the methods; with --kind parts, studies ...", "list clip"),
    "explain": ("NAME", "what a method, a part, a task, a study is", "explain luspo --vs gspo --out luspo.html"),
    "tasks": ("", "the tasks of the package, and how to bring your own", "tasks"),
    "compare": (
        "METHOD...",
        "methods against each other, with intervals",
        "compare grpo gspo --task countdown --seeds 5",
    ),
    "replicate": ("[METHOD...]", "what methods claim, put to the test", "replicate dr-grpo --seeds 5"),
    "verify": ("FILE...", "numeric cases against the library", "verify tests/cases"),
    "check": ("NAME", "properties of a method, or of your file", "check my_method.py"),
    "completion": ("SHELL", "completes lines in bash, zsh, fish", "completion --help"),
}
"""What each takes and does, and a line of it."""

MORE = (
    "`policyopt COMMAND --help` or `policyopt help COMMAND` says more; `policyopt train METHOD --help` shows every field of the "
    "method's parts."
)


def usage(width: int) -> str:
    """The commands, each on a line where the terminal is wide enough for one with an example."""
    rows = [(f"{name} {takes}".strip(), what, f"policyopt {line}") for name, (takes, what, line) in COMMANDS.items()]
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    if width >= first + second + max(len(row[2]) for row in rows) + 6:
        told = [f"  {name:{first}}  {what:{second}}  {line}" for name, what, line in rows]
    else:
        told = [
            textwrap.fill(f"{name}: {what}", width, initial_indent="  ", subsequent_indent="    ")
            for name, what, _ in rows
        ]
    return "\n".join(["usage: policyopt COMMAND ...", "", *told, "", textwrap.fill(MORE, min(width, 120))])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 where something that was asked for did not come out, 2 for bad input, and 128 and the signal
    (130 for Ctrl-C) where one ended it."""
    args = [*(sys.argv[1:] if argv is None else argv)]
    if args and args[0].startswith("-") and args[0] not in ("-h", "--help", "--version"):
        return _complain(f"the command comes first: policyopt COMMAND {args[0]} ...; one of {', '.join(COMMANDS)}")
    if args[:1] == ["help"] and len(args) > 1:
        args = [*args[1:], "--help"]
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage(shutil.get_terminal_size().columns))
        return 0
    if args[0] == "--version":
        from policyopt import __version__

        print(__version__)
        return 0
    if args[0] not in COMMANDS:
        return _complain(f"no command is called {args[0]!r}; {nearest(args[0], COMMANDS)}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return _carried_out(args[0], args[1:])


def _carried_out(command: str, args: Sequence[str]) -> int:
    """Run a command and turn what is the user's to mend into words; anything else keeps its traceback, because it is
    ours."""
    try:
        with stoppable(), _saying_what_runs():
            code: int = importlib.import_module(f"policyopt.cli.{command}").run(args)
            sys.stdout.flush()
            return code
    except UserError as error:
        return _complain(str(error))
    except ValueError as error:
        from pydantic import ValidationError

        from policyopt.errors import explain

        if not isinstance(error, ValidationError):
            raise
        return _complain(explain(error))
    except SystemExit as end:  # tyro has printed the help, or what is wrong with the line
        return _complain(end.code) if isinstance(end.code, str) else end.code or 0
    except KeyboardInterrupt as error:
        print("\n".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(f"{error.filename or 'the output'}: {error.strerror}")


@contextlib.contextmanager
def _saying_what_runs() -> Iterator[None]:
    """Say on standard error which files of the user's own run."""
    log, handler = logging.getLogger("policyopt"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _complain(message: str) -> int:
    print(f"policyopt: {message}", file=sys.stderr)
    return 2
