"""The pages of symrtlo and rtlrepocoder."""

from __future__ import annotations

import pytest

from policyopt.errors import UserError
from policyopt.items import JudgeSpec
from policyopt.judging.judges import check_judge
from policyopt.methods.programs.rtlrepocoder import rtlrepocoder
from policyopt.methods.programs.symrtlo import symrtlo
from tests.judging.test_hardware import BENCH, tools

DEAR = "module adder(input [3:0] a, b, output [4:0] y);\n  assign y = (a * 5'd3) - (a * 5'd2) + b;\nendmodule\n"
CHEAP = "module adder(input [3:0] a, b, output [4:0] y); assign y = a + b; endmodule"
WRONG = "module adder(input [3:0] a, b, output [4:0] y); assign y = a | b; endmodule"
RARE = "module adder(input [3:0] a, b, output [4:0] y); assign y = (a == 4'd13 && b == 4'd6) ? 5'd0 : a + b; endmodule"


@tools
def test_the_cheapest_proven_rewrite_takes_the_place() -> None:
    found = symrtlo(DEAR, [WRONG, RARE, CHEAP, "module other; endmodule", "module adder("], BENCH)
    assert found.best.code == CHEAP and found.best.outcome == "proven"
    assert [rewrite.outcome for rewrite in found.tried] == ["rejected", "rejected", "proven", "rejected", "rejected"]
    reasons = [rewrite.reason for rewrite in found.tried]
    assert "prints something else" in reasons[0], "the test bench comes first"
    assert "does something else" in reasons[1], "what the tests do not see, the proof does"
    assert "no module adder" in reasons[3]


@tools
def test_an_unverified_rewrite_never_replaces_the_design() -> None:
    assert symrtlo(CHEAP, [WRONG, RARE, DEAR]).best.code == CHEAP
    with pytest.raises(UserError, match="can be synthesised"):
        symrtlo("module adder(", [CHEAP])


def test_the_guide_gives_a_judge() -> None:
    assert rtlrepocoder(2) == JudgeSpec("edits", {"lines": 2})
    check_judge(rtlrepocoder())
    check_judge(rtlrepocoder(None))
