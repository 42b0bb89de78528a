"""The judge of Verilog: gates one after the other, from what is cheap to what is dear."""

from __future__ import annotations

from policyopt import sandbox
from policyopt.items import Example, Verdict
from policyopt.judging.answers import THINK
from policyopt.judging.calls import fills
from policyopt.judging.fences import program_of
from policyopt.judging.hardware import (
    costs,
    matching,
    reference_costs,
    reference_lines,
    renamed,
    simulate,
)
from policyopt.judging.kinds import Judge, short
from policyopt.judging.structure import likeness, module_names, statements

PARTS = (
    "compiles", "vectors", "passes", "synthesises", "cost", "reference_cost", "similarity", "coverage", "redundancy",
)  # fmt: skip
"""What a verdict on hardware says beside its score: gates (1 or 0), the share of output lines that are right, geometric means of costs
(0 where nothing was synthesised), and how like the reference the code is."""
SHORTEST = 20
"""Characters that a module has at least."""


def unsaid(**found: float) -> dict[str, float]:
    """All :data:`PARTS`: those that were found out, else 0."""
    return dict.fromkeys(PARTS, 0.0) | found


def verilog_judge(synthesis: bool = True, share: float = 0.99, seconds: float = 30.0, think: str = THINK) -> Judge:
    r"""The Verilog of a response does what the row's reference does under the row's test bench.

    The row's answer is the reference, a module with all that it needs, and its column ``testbench`` a module that drives it and prints what comes
    out; it must not hold another copy of the reference, which a design could read. The module of the response is called as the reference is,
    compiled with the test bench (gate 1), simulated (gate 2: of the lines, as many as the reference prints, the ``share`` is right, numbers by
    value), and where it passes, synthesised (gate 3), with its cells and longest path as costs. The score is 1 for what passes, else 0; all
    that was found out is in the parts (:data:`PARTS`), for methods that make tiers of it.

    Raises:
        UserError: The sandbox, Icarus or Yosys is not there.
    """
    sandbox.need("iverilog", "vvp", *(["yosys"] if synthesis else []))
    limits = sandbox.Limits(cpu=seconds, wall=2 * seconds, memory_mb=1024, output_kb=1024)

    def judge(example: Example, response: str) -> Verdict:
        code, fenced = program_of(response, think, ("module",))
        if code is None or len(code.strip()) < SHORTEST:
            return Verdict(0.0, False, False, "no module found", parts=unsaid())
        testbench, top = example.meta.get("testbench"), (module_names(example.answer) or [""])[0]
        if not isinstance(testbench, str) or not top:
            raise ValueError("the row needs a reference module as its answer, and a column testbench")
        wanted = reference_lines(example.answer, testbench)
        code = renamed(code, top)
        like = likeness(statements(code), statements(example.answer))
        found = unsaid(similarity=like.similarity, coverage=like.coverage, redundancy=like.redundancy)
        said = simulate({"design.v": code, "testbench.v": testbench}, limits)
        if not said.compiles:
            return Verdict(0.0, False, fenced, f"does not compile: {short(said.reason)}", parts=found)
        found |= {"compiles": 1.0, "vectors": matching(said.lines, wanted)}
        if found["vectors"] < share:
            why = f"{found['vectors']:.0%} of {len(wanted)} lines are right" + (
                f", {said.reason}" if said.reason else ""
            )
            return Verdict(0.0, False, fenced, why, parts=found)
        found["passes"] = 1.0
        if synthesis and (cost := costs(code, [top]).get(top)) is not None:
            own = reference_costs(example.answer, top)
            found |= {"synthesises": 1.0, "cost": cost.mean(), "reference_cost": own.mean() if own else 0.0}
        return Verdict(1.0, True, fenced, "passes its test bench", parts=found)

    judge.patience = 6 * seconds  # type: ignore[attr-defined]
    return fills(judge, *(f"component[{name}]" for name in PARTS))
