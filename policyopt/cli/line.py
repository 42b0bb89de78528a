"""The words of a line, held against the options that a command has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from policyopt.aliases import advice, canonical, ours
from policyopt.errors import UserError
from policyopt.options import Option


def check_line(args: Sequence[str], options: Collection[Option], prog: str, *, sure: bool = True) -> None:
    """Raises :class:`~policyopt.errors.UserError` for an option that there is not, with what it is called here or the
    nearest ones, and for one that stands on the line twice and may not.

    ``sure`` is whether these are all options there are: the fields of a recipe's parts follow from what the whole line says.
    """
    known = {option.name: option for option in options} | {name: Option(name, takes=False) for name in ("help", "h")}
    seen: set[str] = set()
    for before, word in zip(["", *args], args, strict=False):
        if not word.startswith("--"):
            _check_word(word, before, known)
            continue
        name = canonical(word.removeprefix("--").partition("=")[0])
        if name not in known and (sure or not name.startswith("recipe.")):
            told = advice(name, known.keys())
            raise UserError(f"there is no option --{name}{told and f'; {told}'} (`{prog} --help` shows all)")
        if name in known and name in seen and not known[name].repeats:
            raise UserError(f"--{name} is given twice: leave one of them away")
        seen.add(name)


def _check_word(word: str, before: str, known: Mapping[str, Option]) -> None:
    """Refuse a setting that is written as verl's lines have it, without dashes."""
    name, equals, _ = word.partition("=")
    if equals and not before.startswith("-") and (told := ours(name, known.keys())) is not None:
        raise UserError(f"{word} is no option; {told}")
