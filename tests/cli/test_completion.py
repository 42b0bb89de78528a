"""Completion, as a shell asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import policyopt
from policyopt.cli.completion import SCRIPTS, candidates
from tests.commands import Said


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["tr"], ["train"]),
        (["help", "ex"], ["explain"]),
        (["train", "dr-"], ["dr-grpo", "dr-po"]),
        (["train", "grpo", "--optim.l"], ["--optim.lr"]),
        (["train", "GRPO", "--kl"], ["--kl", "--kl-coef"]),
        (["train", "grpo", "--dtype", "f"], ["float16", "float32", "float64"]),
        (["train", "grpo", "--dtype=b"], ["--dtype=bfloat16"]),
        (["train", "grpo", "--with", "rl-s"], ["rl-subnetworks"]),
        (["train", "grpo", "--config", ""], []),
        (["train", "grpo", "--lora", ""], []),
        (["train", "my.py", "--optim.l"], ["--optim.lr"]),
        (["list", "--kind", "st"], ["study"]),
        (["eval", "--task", "chain"], ["chain_sum"]),
        (["explain", "gspo", "--v"], ["--vs"]),
        (["verify", "--w"], ["--words"]),
        (["advise", "--symptom", "entropy"], ["entropy-falls", "entropy-rises"]),
        (["advise", "--s"], ["--symptom"]),
        (["nothing", "--"], ["--help"]),
    ],
)
def test_what_a_word_may_become(line: list[str], found: list[str]) -> None:
    assert candidates(line) == found


def test_bash_completes_a_line_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "policyopt"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m policyopt "$@"\n')
    program.chmod(0o755)
    script = """
source <(policyopt completion bash)
for line in "policyopt expl" "policyopt list --kind " "policyopt eval --task reasoning-gym:nothing" "policyopt list --kind=st"; do
    COMP_LINE=$line COMP_POINT=${#line} _policyopt
    echo "$line:${COMPREPLY[*]}"
done
complete -p policyopt
"""
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(policyopt.__file__).parents[1]),
    }
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "policyopt expl:explain",
        "policyopt list --kind :all guide method part study testbed tool",
        "policyopt eval --task reasoning-gym:nothing:",
        "policyopt list --kind=st:study",
        "complete -o default -F _policyopt policyopt",
    ]


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_a_script_is_one_of_its_shell(shell: str, command: Callable[..., Said]) -> None:
    said = command("completion", shell)
    assert (said.code, said.out) == (0, SCRIPTS[shell])
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=said.out, text=True, check=True, timeout=30)


def test_an_unknown_shell_is_refused(command: Callable[..., Said]) -> None:
    said = command("completion", "tcsh")
    assert (said.code, "one of bash, zsh, fish" in said.err) == (2, True)
