"""SymRTLO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from policyopt.errors import UserError
from policyopt.judging.hardware import Costs, costs, equivalent, matching, reference_lines, simulate
from policyopt.judging.structure import module_names
from policyopt.registry import tool

Outcome = Literal["rejected", "tested", "proven"]


@dataclass(frozen=True)
class Rewrite:
    """What was found out of one version of a design."""

    code: str
    outcome: Outcome
    """Rejected, passed its tests, or proven equal to the original."""
    costs: Costs | None = None
    """Where it was not rejected and can be synthesised."""
    reason: str = ""
    """Why it was rejected."""


@dataclass(frozen=True)
class Optimised:
    """The version that is kept, and what became of each candidate."""

    best: Rewrite
    """The cheapest one that was not rejected; the original where none is cheaper."""
    tried: tuple[Rewrite, ...]
    """Candidates in their order."""


@tool(
    arxiv="2504.10369",
    confidence="abstract",
    use="python: from policyopt.methods.programs.symrtlo import symrtlo; symrtlo(code, candidates, testbench).best.code",
)
def symrtlo(
    original: str, candidates: Sequence[str], testbench: str | None = None, *, tests_suffice: bool = False
) -> Optimised:
    r"""Rewrites of a hardware design, put to the test: the cheapest one that is proven to do the same takes the design's place.

    .. math:: \text{best} = \mathrm{argmin}_{c \,\in\, \{o\} \cup \{c\,:\,\text{compiles} \wedge \text{tests} \wedge \text{proof}\}} \sqrt{\text{cells} \cdot \text{depth}}

    Each candidate (of a language model, or of anything else) is checked from what is cheap to what is dear, with an exit at the first failure: it is no copy of
    the original; under the ``testbench``, where there is one, it compiles and prints what the original prints; and a SAT solver proves it equal to the
    original (:func:`~policyopt.judging.hardware.equivalent`). With ``tests_suffice`` what passes its tests and cannot be proven, nor refuted, is
    accepted as "tested". A rewrite that is not accepted never takes the place of the design, so its cost never gets worse. Icarus and Yosys run in the
    sandbox. To train a model on such rewrites, ``chipseek-r1`` has the reward.

    Raises :class:`~policyopt.errors.UserError` where the original has no module, cannot be synthesised, or the tools are not there.

    Source: arXiv:2504.10369, known from its abstract: an inference pipeline that trains nothing. Our reading: the order of the checks, and the costs (the paper's
    are power, delay and area of a commercial flow). Its retrieved rules, its templates and its symbolic merging of states make candidates and are not here; Yosys
    merges states where it finds a machine (``fsm``).
    """
    top = (module_names(original) or [""])[0]
    own = costs(original, [top]).get(top) if top else None
    if own is None:
        raise UserError("symrtlo: the original is no design that can be synthesised: expected Verilog with a module")
    tried = tuple(_put_to_the_test(original, code, top, testbench, tests_suffice) for code in candidates)
    kept = [Rewrite(original, "proven", own), *(rewrite for rewrite in tried if rewrite.costs is not None)]
    return Optimised(min(kept, key=lambda rewrite: _price(rewrite.costs)), tried)


def _price(cost: Costs | None) -> float:
    # One more of each, so that a design without cells, or without depth, is compared by the other one
    return float("inf") if cost is None else Costs(cost.cells + 1, cost.depth + 1).mean()


def _put_to_the_test(original: str, code: str, top: str, testbench: str | None, tests_suffice: bool) -> Rewrite:
    if top not in module_names(code):
        return Rewrite(code, "rejected", reason=f"it has no module {top}")
    if testbench is not None:
        said = simulate({"design.v": code, "testbench.v": testbench})
        if matching(said.lines, reference_lines(original, testbench)) < 1:
            return Rewrite(code, "rejected", reason=said.reason or "it prints something else under the test bench")
    proof = equivalent(original, code, top)
    if proof == "different" or (proof == "unknown" and not (tests_suffice and testbench is not None)):
        return Rewrite(
            code, "rejected", reason="it does something else" if proof == "different" else "no proof was found"
        )
    found = costs(code, [top]).get(top)
    if found is None:
        return Rewrite(code, "rejected", reason="it cannot be synthesised")
    return Rewrite(code, "proven" if proof == "equal" else "tested", found)
