"""The lens from Python: names and recipes, printed and shown in a notebook as the commands print them."""

from __future__ import annotations

import pytest

import policyopt as po
from policyopt.errors import UserError


def test_explain_and_check() -> None:
    answer = po.explain("dr-grpo", vs=po.methods.gspo())
    assert answer.found.facts.name == "dr-grpo" and {"grpo", "gspo"} <= answer.found.differences.keys()
    assert "dr-grpo" in str(answer) and "\x1b" not in str(answer) and repr(answer) == str(answer)
    shown = answer._repr_html_()
    assert shown.startswith("<pre") and "dr-grpo" in shown and "<script" not in shown
    [report] = po.check(po.methods.reinforce()).found
    assert not report.broken and report["shift"].value


def test_differences() -> None:
    found = {d.path: (d.here, d.there) for d in po.differences(po.methods.grpo(kl_coef=0.0), "grpo")}
    assert any("KL" in path or "regularizers" in path for path in found)
    assert po.differences("grpo", po.methods.grpo()) == ()
    with pytest.raises(UserError, match="no method is called 'grppo'"):
        po.explain("grppo")
