"""The page of what other trainers have: its lines are lines."""

from __future__ import annotations

import re
from math import exp, log
from pathlib import Path

import pytest

import policyopt
from policyopt import parts
from policyopt.cli.train import parse_config
from policyopt.methods.clip.gppo_klear import NotTruncated
from policyopt.methods.offpolicy.m2po import SecondMomentBounds
from policyopt.registry import get_method, methods

ROOT = Path(policyopt.__file__).parent.parent
PAGE = (ROOT / "docs" / "ported.md").read_text()
LINES = sorted(set(re.findall(r"`policyopt train ([a-z][^`]*)`", PAGE)))


def test_every_line_asks_for_a_run() -> None:
    made = 0
    for line in LINES:
        name, *words = line.split()
        if name in methods() and "..." not in words:
            assert parse_config(get_method(name), words)[0].recipe, line
            made += 1
    assert made > 60


@pytest.mark.parametrize("slot", ["weight", "regularizers", "select", "shape"])
def test_changes_that_are_python_make_recipes(slot: str) -> None:
    names = {
        **vars(parts),
        "NotTruncated": NotTruncated,
        "SecondMomentBounds": SecondMomentBounds,
        "exp": exp,
        "log": log,
    }
    found = [code for code in re.findall(rf"`{slot}=(\(.*?,\))`", PAGE) if "..." not in code]
    assert found
    for code in found:
        recipe = get_method("grpo")(kl_coef=0.0).replace(**{slot: eval(code, names)})
        assert len(getattr(recipe, slot)) == 1


def test_tests_that_the_page_names_are_there() -> None:
    for name in set(re.findall(r"`(?:tests/[a-z/_]*/)?(test_\w+\.py)`", PAGE)):
        assert list((ROOT / "tests").rglob(name)), name
