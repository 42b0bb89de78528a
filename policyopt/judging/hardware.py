"""Hardware in Verilog: compiled and simulated by Icarus, synthesised and proven equal by Yosys, all of it in the sandbox.

Cheap checks come first, and what fails one is not put to the next. What a design should do is never simulated beside it: outputs are
compared outside, so that a design that writes words of its own, ends the simulation or reads the test bench has nothing to win.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from policyopt import sandbox
from policyopt.judging.structure import module_names

NAME = re.compile(r"[A-Za-z_]\w{0,63}")
"""Names of modules and signals that are put on a command line."""
SIMULATION = sandbox.Limits(cpu=10, wall=30, memory_mb=1024, output_kb=1024)
SYNTHESIS = sandbox.Limits(cpu=30, wall=60, memory_mb=2048, output_kb=1024)

Outcome = Literal["equal", "different", "unknown"]
"""Of a proof: "unknown" where it did not end, or one of the two could not be read."""

_SIMULATE = """\
iverilog -g2012 -o design.vvp $DESIGN >compiled 2>&1 || { head -c 50000 compiled >&2; exit 3; }
vvp -n design.vvp
"""
_COSTS = """\
yosys -Q -T -q -p "$1" >log 2>&1 || { tail -c 1000 log >&2; exit 3; }
cat cells.json; echo; echo PATHS; cat paths.txt
"""


@dataclass(frozen=True)
class Simulated:
    """What came of a simulation."""

    compiles: bool
    lines: tuple[str, ...] = ()
    """What it printed."""
    reason: str = ""
    """Why there are no lines, or no more."""
    said: str = ""
    """All that the compiler says, cut."""


def simulate(files: Mapping[str, str], limits: sandbox.Limits = SIMULATION) -> Simulated:
    """Compile the Verilog files together, in the order of their names, and run the simulation.

    Raises :class:`~policyopt.errors.UserError` where the sandbox or Icarus is not there.
    """
    sandbox.need("iverilog", "vvp")
    names = sorted(files)
    _plain(names)
    script = _SIMULATE.replace("$DESIGN", " ".join(names))
    found = sandbox.run(["sh", "-c", script], files, limits)
    if found.code == 3 and not found.stdout:
        return Simulated(False, reason=_last(found.stderr) or "it does not compile", said=found.stderr)
    lines = tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
    return Simulated(True, lines, "" if found.ok else f"the simulation {sandbox.ended(found)}")


def matching(given: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of lines that are equal, by number where both are numbers, else as texts; of the longer list, so that lines that are
    missing or too many count as wrong."""
    most = max(len(given), len(wanted))
    return sum(map(_same_line, given, wanted)) / most if most and wanted else 0.0


def _same_line(a: str, b: str) -> bool:
    if a.split() == b.split():
        return True
    try:
        return float(a) == float(b)
    except ValueError:
        return False


@dataclass(frozen=True)
class Costs:
    """What a design costs, lower is better."""

    cells: int
    """Cells after synthesis."""
    depth: int
    """Cells on the longest path between registers."""

    def mean(self) -> float:
        """Their geometric mean; 0 where one of them is."""
        return math.sqrt(self.cells * self.depth)


def costs(
    code: str, tops: Sequence[str], *, optimise: bool = True, limits: sandbox.Limits = SYNTHESIS
) -> dict[str, Costs]:
    """The costs of modules of a design by name; those that cannot be synthesised are not there.

    ``optimise``: synthesised and mapped to simple gates first; otherwise the operators are counted as they were written. Several
    modules are taken from one file without being optimised, or one of them with.

    Raises :class:`~policyopt.errors.UserError` where the sandbox or Yosys is not there.
    """
    sandbox.need("yosys")
    _plain(tops)
    if optimise:
        [top] = tops
        steps = [f"synth -flatten -top {top}", "abc -g simple", "opt_clean"]
    else:
        steps = ["proc", "opt_clean"]
    script = "; ".join(
        ["read_verilog -sv design.v", *steps, "tee -q -o cells.json stat -json", "tee -q -o paths.txt ltp -noff"]
    )
    found = sandbox.run(["sh", "-c", _COSTS, "sh", script], {"design.v": code}, limits)
    if not found.ok:
        return {}
    cells, _, paths = found.stdout.partition("PATHS\n")
    try:
        modules = json.loads(re.sub(r",(?=\s*})", "", cells))["modules"]  # versions differ in commas
        depth = {name: int(n) for name, n in re.findall(r"path in (\w+) \(length=(\d+)\)", paths)}
        counted = {name.removeprefix("\\"): int(module["num_cells"]) for name, module in modules.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {top: Costs(counted[top], depth.get(top, 0)) for top in tops if top in counted}


def equivalent(one: str, other: str, top: str, *, steps: int = 10, limits: sandbox.Limits = SYNTHESIS) -> Outcome:
    """Whether two designs with the same top module and ports do the same, by a SAT proof on their miter: for all inputs, or for designs with
    registers by induction over at most ``steps`` clock cycles, from registers of equal, unknown content.

    "different" where a counterexample was found at the outputs of a design without registers; for designs with registers what is not
    proven is "unknown", since induction may start where no run comes.

    Raises :class:`~policyopt.errors.UserError` where the sandbox or Yosys is not there.
    """
    sandbox.need("yosys")
    _plain([top])
    load = " ".join(
        f"read_verilog -sv {file}.v; prep -flatten -top {top}; async2sync; rename {top} {file}; design -stash {file}; design -reset;"
        for file in ("gold", "gate")
    )
    both = "design -copy-from gold -as gold gold; design -copy-from gate -as gate gate;"
    miter = "miter -equiv -flatten -make_outputs gold gate miter; hierarchy -top miter;"
    script = f"""\
yosys -Q -T -q -p "{load} {both} {miter} select -assert-none t:\\$*dff* t:\\$mem*" >log 2>&1 && kind=plain || kind=clocked
yosys -Q -T -q -p "{load} {both} {miter}" >log 2>&1 || exit 4
if [ $kind = plain ]; then
  yosys -Q -T -q -p "{load} {both} {miter} sat -verify -prove trigger 0 miter" >log 2>&1 && exit 0
  grep -q "proof did fail\\|Model check failed\\|model found: FAIL" log && exit 5
  exit 4
fi
yosys -Q -T -q -p "{load} {both} equiv_make gold gate equiv; hierarchy -top equiv; clean; equiv_simple -seq {steps}; equiv_induct -seq {steps}; equiv_status -assert" >log 2>&1 && exit 0
exit 4
"""
    found = sandbox.run(["sh", "-c", script], {"gold.v": one, "gate.v": other}, limits)
    return {0: "equal", 5: "different"}.get(found.code if found.code is not None else 4, "unknown")  # type: ignore[return-value]


def renamed(code: str, name: str) -> str:
    """Code whose first module that no other one uses is called ``name``, wherever it is named; as it is where that is taken already."""
    names = module_names(code)
    if not names or name in names:
        return code
    top = next((n for n in names if len(re.findall(rf"\b{n}\b", code)) == 1), names[-1])
    return re.sub(rf"\b{top}\b", name, code)


def _plain(names: Sequence[str]) -> None:
    """Refuse what does not belong on a command line."""
    for name in names:
        if not NAME.fullmatch(name.removesuffix(".v")):
            raise ValueError(f"{name!r} is no name of a module: letters, digits and _")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[-1] if lines else "")[:200]


@functools.lru_cache(maxsize=256)
def reference_lines(reference: str, testbench: str) -> tuple[str, ...]:
    """What the reference prints under a test bench. Raises ``ValueError`` where it prints nothing."""
    found = simulate({"design.v": reference, "testbench.v": testbench})
    if not found.lines:
        raise ValueError(f"the row's reference prints nothing under its test bench: {found.reason or 'no line'}")
    return found.lines


@functools.lru_cache(maxsize=256)
def reference_costs(reference: str, top: str) -> Costs | None:
    """What the reference costs; ``None`` where it cannot be synthesised."""
    return costs(reference, [top]).get(top)
