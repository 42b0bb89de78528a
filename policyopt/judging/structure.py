"""Verilog as statements, roughly: how much of a reference's structure a module has, where nothing can be simulated."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 20_000
"""Characters of a module that are looked at."""

_COMMENT = re.compile(r"//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_PIECE = re.compile(r"[;]|\b(?:begin|end|endcase|endmodule|endfunction|endtask|endgenerate|else)\b")
_NAME = re.compile(r"\bmodule\s+([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Likeness:
    """How like a reference the statements of a module are."""

    similarity: float
    """Matching blocks of the two lists, 0 to 1 (:class:`difflib.SequenceMatcher`)."""
    coverage: float
    """Share of the reference's different statements that are there."""
    redundancy: float
    """Share of the module's different statements that the reference does not have."""


def plain_verilog(code: str) -> str:
    """Code without comments; texts in quotes are emptied."""
    return _COMMENT.sub(" ", _STRING.sub('""', code[:LONGEST]))


def module_names(code: str) -> list[str]:
    """The modules that are defined, in order."""
    return _NAME.findall(plain_verilog(code))


def statements(code: str) -> list[str]:
    """Modules with their ports, declarations, assignments, branches and instances, one text each, with single blanks and without
    ``begin`` and ``end``."""
    found = (" ".join(piece.split()) for piece in _PIECE.split(plain_verilog(code)))
    spaced = (re.sub(r"\s*([^\w\s$])\s*", r"\1", text) for text in found)
    return [text for text in spaced if text]


def likeness(generated: Sequence[str], reference: Sequence[str]) -> Likeness:
    r"""Two lists of statements held against each other:

    .. math:: cov = |S_g \cap S_r| / |S_r|, \qquad red = |S_g \setminus S_r| / |S_g|

    of their sets. Where a set is empty, its share is 0.
    """
    ours, theirs = set(generated), set(reference)
    return Likeness(
        difflib.SequenceMatcher(None, generated, reference, autojunk=False).ratio(),
        len(ours & theirs) / len(theirs) if theirs else 0.0,
        len(ours - theirs) / len(ours) if ours else 0.0,
    )
