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

INPUTS = "abc"
ROWS = 2 ** len(INPUTS)
LONGEST = 80
"""Characters of an expression."""
TWO = {
    "0000": "0", "0001": "b&c", "0010": "b&~c", "0011": "b", "0100": "~b&c", "0101": "c", "0110": "b^c", "0111": "b|c",
    "1000": "~(b|c)", "1001": "~(b^c)", "1010": "~c", "1011": "b|~c", "1100": "~b", "1101": "~b|c", "1110": "~(b&c)", "1111": "1",
}  # fmt: skip
"""An expression for each function of b and c, by its values at 00, 01, 10, 11."""

_WORDS = re.compile(r"1'b[01]|[a-c01]|&&?|\|\|?|~[&|^]?|\^~?|[!?:()]|[=!]=|\s+")
_FRAME = "module m{number}(input a, b, c, output y); assign y = {expression}; endmodule\n"
"""Everything but the expression is given."""
_DRIVER = """\
module driver;
reg a, b, c; integer i;
{instances}
initial for (i = 0; i < 8; i = i + 1) begin
{{a, b, c}} = i; #1;
{prints}
end
endmodule
"""


def _draw(chance: random.Random) -> Entry:
    """A truth table; the worked solution halves it by a, the hasty one forgets the half in which a is 0."""
    table = "".join(chance.choice("01") for _ in range(ROWS))
    low, high = TWO[table[:4]], TWO[table[4:]]
    answer = low if low == high else f"a?{high}:{low}"
    return {
        "question": f"y({INPUTS})={table}",
        "steps": [f"0 {table[:4]} {low}", f"1 {table[4:]} {high}"],
        "answer": answer,
        "hasty": answer_line(high),
        "metadata": {"table": table},
    }


def in_frame(expression: str) -> bool:
    """Whether a text can be put into the frame: operators of one bit, brackets, the three inputs, 0 and 1, and no more, so that nothing
    in it ends the assignment or calls the simulator."""
    place = 0
    while place < len(expression) <= LONGEST:
        found = _WORDS.match(expression, place)
        if found is None:
            return False
        place = found.end()
    return 0 < place == len(expression) and bool(expression.strip())


def tables(expressions: Sequence[str]) -> list[str | None]:
    """The values of expressions at 000, 001, ... 111, as Icarus works them out: all in one run. ``None`` for what does not compile.

    Raises :class:`~policyopt.errors.UserError` where the sandbox or Icarus is not there, ``ValueError`` where the simulation fails.
    """
    left = {n: x for n, x in enumerate(expressions) if in_frame(x)}
    found: list[str | None] = [None] * len(expressions)
    # A compiler names all lines that it cannot read, but may find others once these are gone
    for _ in range(len(expressions) + 1):
        if not left:
            return found
        numbers = sorted(left)
        design = "".join(_FRAME.format(number=n, expression=left[n]) for n in numbers)
        said = simulate({"design.v": design, "driver.v": _driver(numbers)})
        if said.compiles:
            break
        bad = {
            numbers[int(line) - 1] for line in re.findall(r"design\.v:(\d+)", said.reason) if int(line) <= len(numbers)
        }
        if not bad:
            raise ValueError(f"the frame of the simulation cannot be read: {said.reason}")
        left = {n: x for n, x in left.items() if n not in bad}
    values: dict[int, list[str]] = {n: [] for n in left}
    for line in said.lines:
        number, _, value = line.partition(" ")
        values[int(number)].append(value)
    for n, bits in values.items():
        found[n] = "".join(bits)
        if len(bits) != ROWS:
            raise ValueError(f"the simulation has {len(bits)} lines of {ROWS}: {said.reason}")
    return found


def _driver(numbers: Sequence[int]) -> str:
    instances = "\n".join(f"wire y{n}; m{n} u{n}(a, b, c, y{n});" for n in numbers)
    prints = "\n".join(f'$display("{n} %b", y{n});' for n in numbers)
    return _DRIVER.format(instances=instances, prints=prints)


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
    wanted = [re.sub(r"\s", "", prompt.rpartition("=")[2])[-ROWS:] for prompt in prompts]
    right = [values[x] == table for x, table in zip(given, wanted, strict=True)]
    prices = priced(list(dict.fromkeys([x for x, ok in zip(given, right, strict=True) if ok] + answer)))
    return [
        _verdict(*row, prices) for row in zip(completions, given, map(values.get, given), wanted, answer, strict=True)
    ]


def _verdict(
    response: str, given: str, values: str | None, table: str, reference: str, prices: Mapping[str, Costs]
) -> dict[str, Any]:
    like = likeness(words(given), words(reference))
    found = unsaid(similarity=like.similarity, coverage=like.coverage, redundancy=like.redundancy)
    if values is not None:
        share = sum(a == b for a, b in zip(values, table, strict=True)) / ROWS
        found |= {"compiles": 1.0, "vectors": share, "passes": float(share == 1)}
        if share == 1 and given in prices:
            # One more of each, so that an input alone, or a constant, costs something too
            own, other = prices[given], prices[reference]
            found |= {"synthesises": 1.0, "cost": _one_more(own), "reference_cost": _one_more(other)}
    said = "does not compile" if values is None else f"is {values}"
    return {
        "score": found["passes"],
        "correct": found["passes"] == 1,
        "formatted": bool(given),
        "reason": f"{given[:LONGEST]!r} {said}, asked was {table}",
        "parts": found,
    }


def _one_more(cost: Costs) -> float:
    return Costs(cost.cells + 1, cost.depth + 1).mean()


def words(expression: str) -> list[str]:
    """The operators and operands of an expression, which stand for its statements."""
    return [x for x in _WORDS.findall(expression[:LONGEST]) if x.strip()]


ASSIGN = Drawn(
    name="assign",
    summary="an expression of Verilog for a truth table of three inputs, which a simulator tries: y(abc)=01101001",
    draw=_draw,
    judge=judge_assign,
    max_tokens=72,
    warm_start={"steps": 900, "terse": 0.5},
)
"""What compiles is mostly right in one half of the table, so that tests and structure have something to tell apart."""
