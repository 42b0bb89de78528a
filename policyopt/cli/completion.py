"""``policyopt completion``: what a shell needs to complete lines of this command."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from policyopt.cli import COMMANDS
from policyopt.errors import UserError

if TYPE_CHECKING:
    from policyopt.options import Option

COMPLETION = """\
usage: policyopt completion bash|zsh|fish

Prints a script for the shell. To complete commands, methods, options and their values:

  bash   source <(policyopt completion bash)            # in ~/.bashrc
  zsh    source <(policyopt completion zsh)             # in ~/.zshrc
  fish   policyopt completion fish | source             # in ~/.config/fish/config.fish

Where none of these fits, files are completed."""

# Each script hands the words of the line to `policyopt completion words`, which prints what the last one may become.
SCRIPTS = {
    "bash": """\
_policyopt() {
    local line word lost found
    # Bash parts words at ":" and "=" too, which stand inside of names here: the line is read anew.
    read -ra line <<< "${COMP_LINE:0:COMP_POINT}"
    [[ ${COMP_LINE:0:COMP_POINT} == *' ' ]] && line+=('')
    word=${line[${#line[@]} - 1]}
    [[ $word == *[:=]* ]] && lost=${word%"${word##*[:=]}"}
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$lost"}")
    done < <("${line[0]}" completion words "${line[@]:1}" 2> /dev/null)
}
complete -o default -F _policyopt policyopt
""",
    "zsh": """\
#compdef policyopt
_policyopt() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2> /dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _policyopt policyopt
""",
    "fish": """\
function __policyopt_words
    set -l line (commandline -opc) (commandline -ct)
    $line[1] completion words $line[2..-1] 2> /dev/null
end
complete -c policyopt -a '(__policyopt_words)'
""",
}


def run(args: list[str]) -> int:
    """Print a script, or what a word may become. Returns the exit code."""
    if args[:1] == ["words"]:
        with contextlib.suppress(UserError):
            sys.stdout.writelines(f"{word}\n" for word in candidates(args[1:]))
        return 0
    if not args or args[0] in ("-h", "--help"):
        print(COMPLETION)
        return 0 if args else 2
    if args[0] not in SCRIPTS or len(args) > 1:
        raise UserError(f"completion takes one of {', '.join(SCRIPTS)}, not {' '.join(args)!r}")
    sys.stdout.write(SCRIPTS[args[0]])
    return 0


def candidates(words: list[str]) -> list[str]:
    """What the last of the words of a line may become, sorted; nothing where a file is meant."""
    if len(words) < 2:
        found: Iterable[str] = (*COMMANDS, "help")
    elif words[0] == "help":
        found = COMMANDS if len(words) == 2 else ()
    else:
        found = _after(words[0], words[1:-1], words[-1])
    return sorted(word for word in set(found) if word.startswith(words[-1] if words else ""))


def _after(command: str, line: list[str], word: str) -> Iterable[str]:
    """What may stand after a command and the words of a line."""
    known = {f"--{option.name}": option for option in _options(command, line)}
    name, equals, _ = word.partition("=")
    if equals and name in known:
        return (f"{name}={value}" for value in known[name].choices or _values(known[name].name))
    before = known.get(line[-1]) if line else None
    if before is not None and before.takes:
        return before.choices or _values(before.name)
    if word.startswith("-"):
        return known
    return {
        "train": _names("method") if not line else (),
        "explain": _names() if not line else (),
        "check": _names("method"),
        "completion": SCRIPTS if not line else (),
    }.get(command, ())


def _options(command: str, line: list[str]) -> list[Option]:
    """The options of a command; of a method of the user's own those of GRPO."""
    from policyopt.options import Option, catalogue

    help = Option("help", takes=False)
    if command == "train":
        from policyopt.cli.train import known_options, method_help
        from policyopt.qualified import is_own, need

        own = not line or line[0].startswith("-") or is_own(line[0])
        name = "grpo" if own else need(line[0])
        if not known_options(name):
            method_help(name)  # seconds, once
        return [help, *known_options(name)]
    module: Any = importlib.import_module(f"policyopt.cli.{command}") if command in COMMANDS else None
    kinds = [x for name, x in vars(module).items() if name == f"{command.capitalize()}Options"] if module else []
    plain = {"verify": ("words", "json"), "check": ("json",)}.get(command, ())
    return [help, *(Option(name) for name in plain), *(option for kind in kinds for option in catalogue(kind()))]


def _values(option: str) -> Iterable[str]:
    """The values of an option that are names of the library."""
    kinds = {"task": ("testbed",), "with": ("study",), "vs": ("method",)}
    if option == "model":
        return ("embedded",)
    if option == "symptom":
        from policyopt.comparing.advise.symptoms import SYMPTOMS

        return [s.name for s in SYMPTOMS]
    return _names(*kinds[option]) if option in kinds else ()


def _names(*kinds: str) -> list[str]:
    from policyopt.registry import entries

    return [e.name for e in entries() if not kinds or e.kind in kinds]
