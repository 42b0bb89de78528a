"""The testbed ``assign``: one expression of Verilog for a truth table, judged by a real simulator. Nothing here imports torch."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt import sandbox
from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.items import judge
from policyopt.judging.answers import answer_line, find_answer
from policyopt.judging.hardware import Costs, costs, simulate
from policyopt.judging.structure import likeness
from policyopt.judging.verilog import PARTS, unsaid

INPUTS = "abcdef"
ROWS = 2 ** len(INPUTS)
LONGEST = 80
"""Characters of an expression."""
TWO = {
    "0000": "0", "0001": "p&q", "0010": "p&~q", "0011": "p", "0100": "~p&q", "0101": "q", "0110": "p^q", "0111": "p|q",
    "1000": "~(p|q)", "1001": "~(p^q)", "1010": "~q", "1011": "p|~q", "1100": "~p", "1101": "~p|q", "1110": "~(p&q)", "1111": "1",
}  # fmt: skip
"""An expression for each function of p and q, by its values at 00, 01, 10, 11."""

_QUESTION = re.compile(r"y\(([a-f]{3})\)=([01]{8})")
_WORDS = re.compile(r"1'b[01]|[a-f01]|&&?|\|\|?|~[&|^]?|\^~?|[!?:()]|[=!]=| +")
_FRAME = f"module m{{number}}(input {', '.join(INPUTS)}, output y); assign y = {{expression}}; endmodule\n"
"""Everything but the expression is given."""
_DRIVER = f"""\
module driver;
reg {", ".join(INPUTS)}; integer i;
{{wires}}
initial for (i = 0; i < {ROWS}; i = i + 1) begin
{{{{{", ".join(INPUTS)}}}}} = i; #1;
$display("%b", {{{{{{outputs}}}}}});
end
endmodule
"""


def _draw(chance: random.Random) -> Entry:
    """A truth table of three of the inputs; the worked solution halves it by the first of them, in either order, the hasty one forgets the half in
    which that is 0. Either order, so that the hasty beginning is the likeliest single one, and working it out still the likelier thing."""
    names = "".join(sorted(chance.sample(INPUTS, 3)))
    table = "".join(chance.choice("01") for _ in range(8))
    low, high = (TWO[half].translate(str.maketrans("pq", names[1:])) for half in (table[:4], table[4:]))
    return {
        "question": f"y({names})={table}",
        "steps": chance.sample([f"0 {table[:4]} {low}", f"1 {table[4:]} {high}"], 2),
        "answer": low if low == high else f"{names[0]}?{high}:{low}",
        "hasty": answer_line(high),
        "metadata": {"names": names, "table": table},
    }


def wanted(question: str) -> str:
    """What a question asks for, at all values of the inputs, 000000 to 111111. Raises ``ValueError`` for another text."""
    found = _QUESTION.search(question)
    if found is None:
        raise ValueError(f"{question[-80:]!r} asks for no function: expected a text as y(abd)=01101001")
    names, table = found.groups()
    places = [len(INPUTS) - 1 - INPUTS.index(name) for name in names]
    return "".join(table[int("".join(str(row >> place & 1) for place in places), 2)] for row in range(ROWS))


def in_frame(expression: str) -> bool:
    """Whether a text can be put into the frame: operators of one bit, brackets, the inputs, 0 and 1, and no more, so that nothing
    in it ends the assignment or calls the simulator."""
    place = 0
    while place < len(expression) <= LONGEST:
        found = _WORDS.match(expression, place)
        if found is None:
            return False
        place = found.end()
    return 0 < place == len(expression) and bool(expression.strip())


def tables(expressions: Sequence[str]) -> list[str | None]:
    """The values of expressions at all values of the inputs, as Icarus works them out: all in one run. ``None`` for what does not compile.

    Raises :class:`~policyopt.errors.UserError` where the sandbox or Icarus is not there, ``ValueError`` where the simulation fails.
    """
    left = [n for n, x in enumerate(expressions) if in_frame(x)]
    found: list[str | None] = [None] * len(expressions)
    # A compiler names the lines that it cannot read, but may find others once these are gone
    while left:
        design = "".join(_FRAME.format(number=n, expression=expressions[n]) for n in left)
        wires = "\n".join(f"wire y{n}; m{n} u{n}({', '.join(INPUTS)}, y{n});" for n in left)
        driver = _DRIVER.format(wires=wires, outputs=", ".join(f"y{n}" for n in left))
        said = simulate({"design.v": design, "driver.v": driver})
        if said.compiles:
            if [len(line) for line in said.lines] != [len(left)] * ROWS:
                raise ValueError(f"the simulation has {len(said.lines)} lines of {ROWS}: {said.reason}")
            for n, *bits in zip(left, *said.lines, strict=True):
                found[n] = "".join(bits)
            return found
        bad = {left[int(line) - 1] for line in re.findall(r"design\.v:(\d+)", said.said) if int(line) <= len(left)}
        if not bad:
            raise ValueError(f"the frame of the simulation cannot be read: {said.reason}")
        left = [n for n in left if n not in bad]
    return found


def priced(expressions: Sequence[str]) -> dict[str, Costs]:
    """The costs of expressions as they are written, by Yosys: operators, and how many of them follow one another."""
    named = {f"m{n}": x for n, x in enumerate(expressions)}
    design = "".join(_FRAME.format(number=n, expression=x) for n, x in enumerate(expressions))
    return {named[name]: cost for name, cost in costs(design, list(named), optimise=False).items()} if named else {}


@judge(columns=tuple(f"component[{name}]" for name in PARTS))
def judge_assign(completions: list[str], prompts: list[str], answer: list[str]) -> list[dict[str, Any]]:
    """Expressions in the frame, against the table of their prompt: compiled, simulated, and where they are right, priced by Yosys; all that come
    at once in one run of each. ``correct`` and the score mean right in all rows; the parts are those of the judge ``verilog``."""
    sandbox.need("iverilog", "vvp", "yosys")
    given = [find_answer(text) or "" for text in completions]
    asked = list(dict.fromkeys(given))
    values = dict(zip(asked, tables(asked), strict=True))
    asked_for = list(map(wanted, prompts))
    right = [values[x] == table for x, table in zip(given, asked_for, strict=True)]
    prices = priced(list(dict.fromkeys([x for x, ok in zip(given, right, strict=True) if ok] + answer)))
    return [_verdict(*row, prices) for row in zip(given, map(values.get, given), asked_for, answer, strict=True)]


def _verdict(given: str, values: str | None, table: str, reference: str, prices: Mapping[str, Costs]) -> dict[str, Any]:
    like = likeness(words(given), words(reference))
    found = unsaid(similarity=like.similarity, coverage=like.coverage, redundancy=like.redundancy)
    if values is not None:
        share = sum(a == b for a, b in zip(values, table, strict=True)) / ROWS
        found |= {"compiles": 1.0, "vectors": share, "passes": float(share == 1)}
        if share == 1 and given in prices:
            # One more of each, so that an input alone, or a constant, costs something too
            own, other = prices[given], prices[reference]
            found |= {"synthesises": 1.0, "cost": _one_more(own), "reference_cost": _one_more(other)}
    said = "does not compile" if values is None else f"is right at {found['vectors']:.0%} of all inputs"
    return {
        "score": found["passes"],
        "correct": found["passes"] == 1,
        "formatted": bool(given),
        "reason": f"{given[:LONGEST]!r} {said}",
        "parts": found,
    }


def _one_more(cost: Costs) -> float:
    return Costs(cost.cells + 1, cost.depth + 1).mean()


def words(expression: str) -> list[str]:
    """The operators and operands of an expression, which stand for its statements."""
    return [x for x in _WORDS.findall(expression[:LONGEST]) if x.strip()]


ASSIGN = Drawn(
    name="assign",
    summary="an expression of Verilog for a truth table of three inputs, which a simulator tries: y(abd)=01101001",
    draw=_draw,
    judge=judge_assign,
    max_tokens=72,
    warm_start={"steps": 700, "terse": 0.2},
)
"""What compiles is mostly right in one half of the table, so that tests and structure have something to tell apart."""
