"""An explanation as lines of text, with colours where a terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.text import Text

from policyopt.lens.cost import Cost, Passes
from policyopt.lens.drawn_rows import KINDS, Drawn, DrawnRow
from policyopt.lens.explain import Explanation, PartView
from policyopt.lens.formula import lines, spoken, unicode
from policyopt.lens.probe_batch import BUDGET, Picture, Row
from policyopt.training.console import writable

CONFIDENCE = {
    "code": "the authors' code",
    "paper": "the paper",
    "secondary": "a third party's code or account",
    "recalled": "general knowledge",
    "abstract": "the abstract alone",
}
"""Where the facts of a method come from, in words."""
MARK = "●"
SILENT = "silent everywhere: this loss does not read the log-probabilities of the drawn tokens"
HANG = 6
"""How far the second line of something wrapped is indented."""
WIDE = 78
"""Columns that the tables take where there is room for them; below, they are set closer."""
UP, DOWN = (42, 91, 208), (192, 90, 0)


def show(explanation: Explanation, out: Console) -> None:
    """Print an explanation."""
    print_lines(view(explanation, out.width if out.is_terminal else WIDE), out)


def print_lines(lines: Iterable[Text], out: Console) -> None:
    """Print lines: wrapped to a terminal, or in plain columns that nothing wraps."""
    for line in lines:
        text = Text(writable(line.plain, out), spans=line.spans)
        text.rstrip()
        if not out.is_terminal or text.cell_len <= out.width:
            out.print(text, soft_wrap=True)
            continue
        hang = HANG if text.plain[:1] in f" {MARK}" else 0
        for i, piece in enumerate(text.wrap(out, out.width - hang)):
            piece.pad_left(hang if i else 0)
            out.print(piece, soft_wrap=True)


def view(e: Explanation, width: int = WIDE) -> Iterator[Text]:
    """The lines of the view, for so many columns."""
    narrow = width < WIDE
    yield from _head(e)
    yield from _parts(e)
    yield from _needs(e)
    yield from _costs(e.costs)
    for picture in filter(None, (e.picture, e.other)):
        yield from _picture(picture, narrow)
    yield from _drawn(e.picture.name, e.drawn, narrow)
    for look in e.drawn.looks:
        yield from _title(f"The same rows behind {look}: d = log p there - log p as drawn")
        yield from _rows(e.drawn.seen(look), narrow, "d")
    if e.other is not None and e.other_drawn is not None:
        yield from _drawn(e.other.name, e.other_drawn, narrow)


def _head(e: Explanation) -> Iterator[Text]:
    f = e.facts
    yield Text.assemble((f.name, "bold"), f"  {spoken(f.summary)}" if f.summary else "")
    facts = {
        "family": f.family, "parent": f.parent, "source": f.source, "code": f.code,
        "facts from": CONFIDENCE.get(f.confidence, f.confidence),
    }  # fmt: skip
    line = Text()
    for name, value in facts.items():
        if value:
            line.append(f"{name} ", "dim").append(f"{value}   ")
    yield line
    for latex in f.formulas:
        yield Text()
        yield from (Text(f"    {unicode(piece)}", "cyan") for piece in lines(latex))
    for note in f.notes:
        yield Text()
        yield Text(spoken(note))
    if f.claim:
        yield Text()
        yield Text.assemble(("claim ", "dim"), f"{f.claim} ", (f"({f.came})", "dim"))


def _parts(e: Explanation) -> Iterator[Text]:
    yield from _title("Parts")
    for name, found in e.differences.items():
        said = "the same parts as" if not found else f"{MARK} differs from"
        yield Text(f"{said} {name}", "yellow" if found else "dim")
    width = max(15, *(len(view_.path) for view_ in e.parts))
    for view_ in e.parts:
        changed = bool(view_.elsewhere)
        line = Text(f"{MARK if changed else ' '} {view_.path:<{width}} ", "yellow" if changed else "")
        line.append(view_.kind, "bold").append(f"  {spoken(view_.doc)}", "dim")
        for name, there in view_.elsewhere.items():
            line.append(f"  [{name}: {there or 'nothing'}]", "yellow")
        yield line
        yield from _fields(view_)
    for name, found in e.differences.items():
        for d in found:
            if d.here is None:
                yield Text(f"{MARK} {d.path:<{width}} nothing  [{name}: {d.there}]", "yellow")


def _fields(part: PartView) -> Iterator[Text]:
    for f in part.fields:
        line = Text(f"{MARK if f.elsewhere else ' '}     {f.name:<16}", "yellow" if f.elsewhere else "")
        line.append(f"{f.value:<10}", "" if f.elsewhere else "cyan")
        for name, there in f.elsewhere.items():
            line.append(f"  [{name}: {there}]", "yellow")
        yield line


def _needs(e: Explanation) -> Iterator[Text]:
    yield from _title("Needs, beyond the log-probabilities of its own tokens")
    if not e.needs:
        yield Text("  nothing", "dim")
    for need in e.needs:
        line = Text(f"{'+' if need.beyond_grpo else ' '} {need.name:<16} ", "yellow" if need.beyond_grpo else "")
        yield line.append(f"{need.doc} ", "dim").append(f"[{', '.join(need.parts)}]", "dim")
    if any(need.beyond_grpo for need in e.needs):
        yield Text("+ beyond what GRPO needs", "dim")


def _costs(costs: Mapping[str, Cost]) -> Iterator[Text]:
    yield from _title("Cost of a step per response that is trained on, counted on a model of 22 thousand parameters")
    rows = list(cost_rows(costs))
    label = max(len(name) for name, _ in rows)
    columns = [max(len(x) for x in (name, *(row[i] for _, row in rows))) + 2 for i, name in enumerate(costs)]
    yield Text("  " + " " * label + "".join(f"{name:>{n}}" for name, n in zip(costs, columns, strict=True)), "dim")
    for name, values in rows:
        line = Text(f"  {name:<{label}}")
        for value, n in zip(values, columns, strict=True):
            line.append(f"{value:>{n}}", "bold" if len(set(values)) > 1 and value == values[0] else "")
        yield line


def cost_rows(costs: Mapping[str, Cost]) -> Iterator[tuple[str, list[str]]]:
    """What is counted, in words, with the number of each recipe."""

    def row(label: str, values: list[float]) -> tuple[str, list[str]]:
        return label, [f"{v:.3g}" if v else "–" for v in values]

    found = list(costs.values())
    yield row("responses returned", [c.sampled for c in found])
    yield row("tokens drawn, of one trained on", [c.tokens for c in found])
    yield row("optimiser steps", [float(c.updates) for c in found])
    none = Passes(0, 0)
    for role in dict.fromkeys(role for c in found for role in c.passes):
        passes = [c.passes.get(role, none) for c in found]
        for kind, values in (
            ("forward and backward", [p.backward for p in passes]),
            ("forward only", [p.forward for p in passes]),
        ):
            if any(values):
                yield row(f"{role}: {kind}", values)


# The token weights ---------------------------------------------------------------------------------------------------


def _picture(p: Picture, narrow: bool) -> Iterator[Text]:
    yield from _title(f"Token weights of {p.name}: w = -dL/dlogp on a fixed batch, a line for each response")
    if p.problem:
        yield Text(f"  cannot be computed on it: {p.problem}", "red")
        return
    if strongest(p.weights):
        yield from _grid(p.rows, p.weights, narrow)
    else:
        yield Text(f"  {SILENT}", "dim")
    for name, grid in p.others.items():
        yield Text()
        yield Text(f"{p.name}, {through(name)}")
        yield from _grid(p.rows, grid, narrow)


def through(name: str) -> str:
    """What the numbers of another leaf than the log-probabilities are."""
    return "-dL/dvalue" if name == "value" else f"push on the drawn token through {name}, as a weight"


def _grid(rows: tuple[Row, ...], weights: tuple[tuple[float, ...], ...], narrow: bool) -> Iterator[Text]:
    most, cell = strongest(weights), 5 if narrow else 6
    power = exponent(weights) - narrow
    yield Text(f"{_facts(None, narrow)} len  " + (f"w x 1e{power}" if power else "w"), "dim")
    before = -1
    for row, values in zip(rows, weights, strict=True):
        first = row.group != before
        if first and before >= 0:
            yield Text()
        before = row.group
        told = f"{row.group + 1 if first else '':>2}{_facts(row, narrow)[2:]} {row.length:>3}"
        line = Text(told).append("+" if row.truncated else " ").append("" if narrow else " ")
        for w in values:
            shown = "-" if not row.kept else short(w * 10**power) if w else "."
            line.append(f"{shown:>{cell}}", _colour(w, most))
        yield line
    if any(row.truncated for row in rows):
        yield Text(f"  + cut off at the budget of {BUDGET} tokens", "dim")


def _facts(row: Row | DrawnRow | None, narrow: bool) -> str:
    """Reward and advantage of a row, or their heading where there is none."""
    said = ("reward", "adv." if narrow else "advantage") if row is None else (reward(row), advantage(row))
    if not narrow:
        return f"  {said[0]:>7} {said[1]:>14}"
    close = "varies" if " to " in said[1] else said[1].removeprefix("left ")
    return f"  {said[0]:>6} {close:>6}"


def _drawn(name: str, drawn: Drawn, narrow: bool) -> Iterator[Text]:
    yield from _title(f"Rows that {name} drew in this step, from an untrained model: {shown(drawn)}")
    yield from _rows(drawn, narrow)


def _rows(drawn: Drawn, narrow: bool, what: str = "w") -> Iterator[Text]:
    yield Text(f"{_facts(None, narrow)} {f'sum of {what}':>9}  response", "dim")
    most, before = drawn.strongest, 0
    for row in drawn.rows:
        if before and row.question != before and len(drawn.rows) > drawn.questions:
            yield Text()
        said = f"{row.question if row.question != before else '':>2}{_facts(row, narrow)[2:]}"
        before = row.question
        line = Text(f"{said} {f'{row.weight:+.2g}' if row.weight else '.':>9}  ")
        for kind, run in row.pieces:
            left, right, _ = KINDS[kind]
            line.append(left)
            for token in run:
                line.append(visible(token.text), "dim" if kind == "read" else _colour(token.weight, most))
            line.append(right)
        yield line.append(f"  {', '.join(row.kinds)}" if row.kinds else "", "yellow")
    for kind in drawn.kinds:
        left, right, told = KINDS[kind]
        yield Text(f"  {left} {right} {told}", "dim")


def shown(drawn: Drawn) -> str:
    """How many of the rows are shown."""
    some = len(drawn.rows)
    return f"all {some} rows" if some == drawn.total else f"{some} of {drawn.total} rows"


def visible(text: str) -> str:
    """The text of a token on one line."""
    return text.replace("\n", "↵").replace("\t", "⇥")


def strongest(weights: tuple[tuple[float, ...], ...]) -> float:
    """The largest absolute weight, 0 where there is none."""
    return max((abs(w) for row in weights for w in row), default=0.0)


def exponent(weights: tuple[tuple[float, ...], ...]) -> int:
    """The power of ten that brings the strongest weight between 10 and 100, for numbers in a narrow column."""
    most = strongest(weights)
    return 1 - math.floor(math.log10(most)) if most else 0


def reward(row: Row | DrawnRow) -> str:
    """The reward of a row, after shaping."""
    return f"{round(row.reward, 2) + 0.0:.2f}"


def advantage(row: Row | DrawnRow) -> str:
    """The advantage of a row: a number, a range where its tokens differ, or that a filter has left it out."""
    if isinstance(row, Row) and not row.kept:
        return "left out"
    if not row.advantage:
        return ""
    low, high = min(row.advantage), max(row.advantage)
    if high - low < 1e-9:
        return f"{low + 0.0:+.2f}" if abs(low) >= 5e-3 else "0"
    return f"{low:+.2f} to {high:+.2f}"


def short(scaled: float) -> str:
    """A scaled weight with one decimal; what rounds to 0 has no sign."""
    return f"{round(scaled, 1) + 0.0:.1f}"


def _colour(w: float, most: float) -> str:
    if not w or not most:
        return "dim"
    share = 0.15 + 0.85 * min(1.0, abs(w) / most)
    mixed = ",".join(str(round(share * c)) for c in (UP if w > 0 else DOWN))
    return f"white on rgb({mixed})"


def _title(text: str) -> Iterator[Text]:
    yield Text()
    yield Text(text, "bold")
