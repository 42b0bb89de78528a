"""Hardware: the tools in the sandbox, the gates of the judge, and the testbed of one expression."""

from __future__ import annotations

import itertools
import random
import shutil
import time

import pytest

from policyopt.data import JudgePool, JudgeSpec, load_task
from policyopt.data.assign import INPUTS, ROWS, TWO, in_frame, judge_assign, priced, tables, wanted
from policyopt.errors import UserError
from policyopt.items import Example, user
from policyopt.judging.hardware import Costs, costs, equivalent, matching, renamed, simulate
from policyopt.judging.judges import make_judge
from policyopt.judging.structure import likeness, module_names, statements
from policyopt.judging.verilog import PARTS
from tests.sandbox.test_sandbox import REASON

tools = pytest.mark.skipif(
    bool(REASON) or not all(map(shutil.which, ("iverilog", "vvp", "yosys"))),
    reason=REASON or "iverilog and yosys are not installed",
)

ADDER = "module adder(input [3:0] a, b, output [4:0] y);\n  assign y = a + b;\nendmodule\n"
BENCH = """
module bench;
reg [3:0] a, b; wire [4:0] y; integer i;
adder under_test(.a(a), .b(b), .y(y));
initial for (i = 0; i < 16; i = i + 1) begin a = i; b = 3 * i; #1; $display("%d", y); end
endmodule
"""
REGISTER = "module top(input clk, rst, d, output reg q); always @(posedge clk) if (rst) q <= 0; else q <= d; endmodule"


def verdict(code: str, **options: object):
    example = Example("v:1", user("An adder."), ADDER, meta={"testbench": BENCH})
    return make_judge(JudgeSpec("verilog", options))(example, f"```verilog\n{code}\n```")


@tools
def test_gates_come_one_after_the_other() -> None:
    right = verdict(ADDER.replace("a + b", "b + a"))
    assert right.correct and right.score == 1 and right.formatted and set(right.parts) == set(PARTS)
    parts = dict(right.parts)
    assert [parts[name] for name in ("compiles", "vectors", "passes", "synthesises")] == [1, 1, 1, 1]
    assert parts["cost"] == pytest.approx(parts["reference_cost"], rel=0.2) and parts["cost"] > 1
    other = verdict("module other_name(input [3:0] a, b, output [4:0] y); assign y = a - b; endmodule")
    assert not other.correct and other.parts["compiles"] == 1 and 0 < other.parts["vectors"] < 0.99
    assert other.parts["synthesises"] == other.parts["cost"] == 0, "what fails its tests is not put to Yosys"
    broken = verdict(ADDER.replace("a + b;", "a + ;"))
    assert broken.score == broken.parts["compiles"] == broken.parts["vectors"] == 0
    assert "does not compile" in broken.reason and broken.parts["similarity"] > 0
    assert verdict("assign y = a + b;").reason == "no module found"
    dear = verdict(ADDER.replace("a + b", "(a * 4'd1) + (b ^ 4'd0) + (a & ~a)"), synthesis=False)
    assert dear.correct and dear.parts["synthesises"] == 0


@tools
@pytest.mark.parametrize(
    "code",
    [
        "module adder(input [3:0] a, b, output [4:0] y); assign y = 0; initial $finish; endmodule",
        'module adder(input [3:0] a, b, output [4:0] y); assign y = 0; initial begin $display("PASS"); $display("0"); $finish; end endmodule',
        "module adder(input [3:0] a, b, output [4:0] y); assign y = 0; initial forever #0 ; endmodule",
        "module adder(input [3:0] a, b, output [4:0] y); assign y = 0; reg x; always @* x = ~x; initial while (1) x = 0; endmodule",
        'module adder(input [3:0] a, b, output [4:0] y); assign y = 0; initial while (1) $display("0"); endmodule',
        'module adder(input [3:0] a, b, output [4:0] y); assign y = 0; integer f; initial begin f = $fopen("/usr/breach"); $fdisplay(f, "x"); end endmodule',
        'module adder(input [3:0] a, b, output [4:0] y); assign y = 0; initial $system("kill -9 1"); endmodule',
        "`include \"/etc/passwd\"\nmodule adder(input [3:0] a, b, output [4:0] y); assign y = 0; endmodule",
        "module adder(input [3:0] a, b, output [4:0] y); reg [99999999:0] m [0:99999999]; assign y = m[a]; endmodule",
        "module adder(input [3:0] a, b, output [4:0] y); generate genvar i; for (i = 0; i >= 0; i = i + 1) begin : g wire w; end endgenerate endmodule",
        "`define A `A `A\nmodule adder(input [3:0] a, b, output [4:0] y); assign y = `A; endmodule",
    ],
)  # fmt: skip
def test_a_hostile_design_scores_nothing(code: str) -> None:
    begun = time.monotonic()
    found = verdict(code, seconds=1.0)
    assert found.rewarded and found.score == 0 and found.parts["passes"] == 0 and found.reason.isprintable()
    assert time.monotonic() - begun < 30


@tools
def test_a_proof_is_for_all_inputs() -> None:
    assert equivalent(ADDER, ADDER.replace("a + b", "b + a + 1'b0"), "adder") == "equal"
    rare = ADDER.replace("a + b", "(a == 4'd13 && b == 4'd6) ? 5'd0 : a + b")
    assert equivalent(ADDER, rare, "adder") == "different"
    same = "module top(input clk, rst, d, output reg q); always @(posedge clk) q <= d & ~rst; endmodule"
    assert equivalent(REGISTER, same, "top") == "equal"
    assert equivalent(REGISTER, same.replace("& ~rst", "| rst"), "top") != "equal"
    assert equivalent(ADDER, "module adder(", "adder") == "unknown"
    assert equivalent(ADDER, ADDER.replace("[4:0] y", "[5:0] y"), "adder") != "equal"
    with pytest.raises(ValueError, match="no name of a module"):
        equivalent(ADDER, ADDER, 'x"; shell id; #')


@tools
def test_costs_are_those_of_the_tool() -> None:
    small = "module top(input a, b, output y); assign y = a & b; endmodule"
    assert costs(small, ["top"]) == {"top": Costs(1, 1)}
    assert costs("module top(", ["top"]) == {} == costs(small, ["other"])
    assert Costs(4, 9).mean() == 6 and Costs(4, 0).mean() == 0


@tools
def test_a_simulation_says_what_it_printed() -> None:
    assert simulate({"a.v": ADDER, "b.v": BENCH}).lines[:3] == ("0", "4", "8")
    broken = simulate({"a.v": ADDER, "b.v": "module ;"})
    assert not broken.compiles and "b.v:1" in broken.reason
    with pytest.raises(ValueError, match="no name"):
        simulate({"a;id.v": ADDER})


def test_missing_lines_are_wrong_ones() -> None:
    assert matching(["1", "2", "3"], ["1", "2", "3"]) == 1
    assert matching(["1"], ["1", "2", "3", "4"]) == 0.25, "a design that stops early has not passed what it did not say"
    assert matching(["1", "2", "9", "9"], ["1", "2"]) == 0.5
    assert matching(["01", "0x"], ["1.0", "0x"]) == 1 and matching([], []) == 0 == matching([], ["1"])


def test_structure_is_held_against_the_reference() -> None:
    code = "module m(input a, output y); // the port\n assign  y=a ; /* x; */ always @(*) begin z <= 1; end endmodule"
    assert statements(code) == ["module m(input a,output y)", "assign y=a", "always@(*)", "z<=1"]
    found = likeness(["a", "b", "c"], ["a", "c", "d", "e"])
    assert (found.similarity, found.coverage, found.redundancy) == (pytest.approx(4 / 7), 0.5, pytest.approx(1 / 3))
    assert likeness([], []).coverage == likeness([], ["a"]).redundancy == 0
    assert module_names(f"// module no\n{ADDER} module second; endmodule") == ["adder", "second"]
    assert module_names('initial $display("module x");') == []


def test_the_top_module_is_renamed() -> None:
    code = "module top_one(input a); leaf l(a); endmodule module leaf(input a); endmodule"
    assert module_names(renamed(code, "adder")) == ["adder", "leaf"]
    assert renamed(ADDER, "adder") == ADDER and renamed("nothing", "adder") == "nothing"


# The testbed ---------------------------------------------------------------------------------------------------------


@tools
def test_the_two_input_expressions_are_right_by_the_simulator() -> None:
    """The table that solutions are written from, held against Icarus."""
    found = tables([x.replace("p", "e").replace("q", "f") for x in TWO.values()])
    assert found == [table * (ROWS // 4) for table in TWO]


@tools
def test_solutions_are_right_and_a_step_is_judged_at_once() -> None:
    task = load_task("assign", heldout=64)
    examples = [task.train[i] for i in range(64)]
    texts = [e.solution for e in examples] + [e.hasty for e in examples]
    prompts, answers = [[f(e) for e in examples] * 2 for f in (lambda e: e.prompt[0]["content"], lambda e: e.answer)]
    begun = time.monotonic()
    found = judge_assign(texts, prompts, answers)
    assert time.monotonic() - begun < 20, "one run of each tool for all of them"
    assert all(x["correct"] and x["formatted"] and x["parts"]["synthesises"] == 1 for x in found[:64])
    assert all(x["parts"]["cost"] == x["parts"]["reference_cost"] > 0 for x in found[:64])
    hasty = sum(x["correct"] for x in found[64:])
    assert hasty < 16 and all(x["parts"]["compiles"] == 1 and x["parts"]["vectors"] >= 0.5 for x in found[64:])
    assert max(len(e.solution or "") for e in examples) < task.max_tokens
    assert not {e.prompt[0]["content"] for e in task.heldout} & {e.prompt[0]["content"] for e in examples}


@tools
def test_one_text_that_cannot_be_read_costs_no_other_one() -> None:
    question, answer = "y(abc)=01101001", "a?~(b^c):b^c"
    texts = [
        "a^b^c",
        "(a^b^c",
        "a b",
        "",
        "a^b^c;",
        "$finish",
        "`x",
        "a^(b^c)",
        "a?b",
        "a^^b",
        "\n",
        "a" * 90,
        "1'b1",
        "a & & b",
    ]
    found = judge_assign([f"#### {x}" for x in texts], [question] * len(texts), [answer] * len(texts))
    assert [x["correct"] for x in found] == [x in ("a^b^c", "a^(b^c)") for x in texts]
    compiled = {x for x, said in zip(texts, found, strict=True) if said["parts"]["compiles"]}
    assert {"a^b^c", "a^(b^c)", "1'b1"} <= compiled <= {"a^b^c", "a^(b^c)", "1'b1", "a & & b", "a^^b"}
    best = {x: said["parts"]["cost"] for x, said in zip(texts, found, strict=True)}["a^b^c"]
    assert best == 3 and found[0]["parts"]["reference_cost"] > best, "an expression of fewer operators is cheaper"


@tools
def test_the_testbed_is_judged_in_a_worker() -> None:
    task = load_task("assign", heldout=1)
    with JudgePool(task.judge, timeout=30) as pool:
        pool.ready()
        assert {f"component[{name}]" for name in PARTS} <= pool.provides
        found = pool([(e, text) for e in map(task.train.__getitem__, range(4)) for text in (e.solution, "#### )")])
    assert [v.correct for v in found] == [True, False] * 4


def test_what_a_question_asks_for_is_a_table_of_all_inputs() -> None:
    table = wanted("y(bdf)=01101001")
    for row, bits in enumerate(itertools.product((0, 1), repeat=len(INPUTS))):
        b, d, f = (bits[INPUTS.index(x)] for x in "bdf")
        assert int(table[row]) == b ^ d ^ f
    with pytest.raises(ValueError, match="asks for no function"):
        wanted("y(xyz)=01101001")


def test_only_expressions_of_the_inputs_fit_into_the_frame() -> None:
    for good in ("a", "~(a&b)|c^1'b1", "a ? b : c", "a==b", "~^a", "a && !b"):
        assert in_frame(good), good
    for bad in (
        "",
        " ",
        "a;b",
        "g",
        "$time",
        "`a",
        "a\nb",
        "a//b",
        "/*",
        "\\a",
        '"a"',
        "a" * 81,
        "{a}",
        "a[0]",
        "#1",
        "@a",
        "2",
        "é",
    ):
        assert not in_frame(bad), bad
    chance = random.Random(0)
    for _ in range(2000):
        text = "".join(chance.choice("ab01~&|^?:()!='; $`{") for _ in range(chance.randint(1, 12)))
        assert not in_frame(text) or not set(text) & set(";$`{")


@tools
def test_expressions_are_priced_as_they_are_written() -> None:
    found = priced(["a", "a&b", "(a&b)|(c&d)", "~~a"])
    assert found["a"] == Costs(0, 0) and found["a&b"] == Costs(1, 1) and found["(a&b)|(c&d)"] == Costs(3, 2)
    assert priced([]) == {}


def test_tools_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if REASON:
        pytest.skip(REASON)
    monkeypatch.setattr("policyopt.sandbox.walls.PATH", "/nowhere")
    with pytest.raises(UserError, match=r"no command 'iverilog': install it .*apt-get install iverilog"):
        make_judge(JudgeSpec("verilog"))
